# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a listener may call in the database: to be registered, to hand on, to say that it is there,
and to remove what is old.

Each takes the lock of `meta` first, and then does all its work alone. They run with the rights of
the schema's owner, so that a writer needs no right to a table. Made anew by `kdumpfence database
init` and `upgrade`. What may not be in this file: what a dump is (merging.py).
"""

from __future__ import annotations

#: Seconds: a listener that was not seen for so long is gone. It comes every BEAT.
GONE = 30
BEAT = 5

#: With the rights of the owner, whatever the caller may do.
DEFINER = "SECURITY DEFINER SET search_path = kdumpfence, pg_temp"
# Planned anew in each call: a plan that was made while the tables were small is none when a hundred
# thousand nodes have panicked.
DEFINER += " SET plan_cache_mode = force_custom_plan SET jit = off"

FUNCTIONS = f"""
-- The listener that speaks, once the lock is ours. Another process may have taken its place.
CREATE OR REPLACE FUNCTION speaking(the_identity uuid, the_life text) RETURNS listener
LANGUAGE plpgsql AS $$
DECLARE me listener;
BEGIN
    PERFORM 1 FROM meta FOR UPDATE;
    SELECT * INTO me FROM listener WHERE identity = the_identity;
    IF me.id IS NULL THEN
        RAISE EXCEPTION 'listener is not registered' USING ERRCODE = 'KD001';
    END IF;
    IF me.life <> the_life THEN
        RAISE EXCEPTION 'another process took over as this listener' USING ERRCODE = 'KD001';
    END IF;
    RETURN me;
END $$;

-- A process speaks for a listener from now on; the last number of
-- its outbox that is here.
CREATE OR REPLACE FUNCTION register(
    the_identity uuid, the_life text, the_name text, the_version text, the_silence interval
) RETURNS bigint LANGUAGE plpgsql {DEFINER} AS $$
DECLARE me listener;
BEGIN
    PERFORM 1 FROM meta FOR UPDATE;
    SELECT * INTO me FROM listener WHERE identity = the_identity;
    IF the_life = ANY (me.lives) THEN
        RAISE EXCEPTION 'another kdumpfenced (%) has the same identity', me.name
            USING ERRCODE = 'KD002';
    END IF;
    IF me.id IS NULL THEN
        INSERT INTO listener (identity, name, version, life, silence)
        VALUES (the_identity, the_name, the_version, the_life, the_silence);
        RETURN 0;
    END IF;
    UPDATE listener SET
        lives = CASE WHEN life = the_life THEN lives ELSE (life || lives)[1:20] END,
        life = the_life, name = the_name, version = the_version, silence = the_silence
    WHERE id = me.id;
    RETURN me.last_seq;
END $$;

-- What is in an outbox, in order: a JSON list. `left_over` is how many are in it after that;
-- the last number that is here is returned. Those that were here already are left out.
CREATE OR REPLACE FUNCTION hand_on(
    the_identity uuid, the_life text, offset_us bigint, error_us bigint, left_over bigint,
    batch json
) RETURNS bigint LANGUAGE plpgsql {DEFINER} AS $$
DECLARE
    me listener := speaking(the_identity, the_life);
    given incoming[]; one incoming[]; news event[] := '{{}}'; last_round integer; last bigint;
    heard_until timestamptz;
BEGIN
    SELECT array_agg((seq, round, kind, node, unix(happened + offset_us), since,
            unix(since + offset_us), unix(last_heard + offset_us), messages,
            string_to_array(addresses, ' '), took, string_to_array(sessions, ' '), named)::incoming
            ORDER BY seq),
        max(round), max(seq), max(unix(happened + offset_us))
    INTO given, last_round, last, heard_until
    FROM (
        SELECT *, row_number() OVER (PARTITION BY node ORDER BY seq) AS round
        FROM json_to_recordset(batch) AS b (
            seq bigint, kind text, node text, happened bigint, since bigint, last_heard bigint,
            messages bigint, addresses text, took double precision, sessions text, named boolean
        )
        WHERE seq > me.last_seq AND kind IN ('began', 'dumping', 'finished', 'failed', 'silent')
    ) b;
    UPDATE listener SET
        last_seq = greatest(last_seq, last), seen = clock_timestamp(), waiting = left_over,
        clock_offset = offset_us, clock_error = error_us, stopped = false,
        horizon = CASE WHEN left_over = 0 THEN clock_timestamp()
            ELSE greatest(horizon, heard_until) END
    WHERE id = me.id RETURNING * INTO me;
    IF NOT me.up THEN
        news := returned(me.id);
    END IF;
    FOR this_round IN 1 .. coalesce(last_round, 0) LOOP
        SELECT array_agg(g ORDER BY g.seq) INTO one FROM unnest(given) g WHERE g.round = this_round;
        news := news || take(me, one);
    END LOOP;
    PERFORM publish(news);
    RETURN me.last_seq;
END $$;

CREATE OR REPLACE FUNCTION unix(microseconds bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT '1970-01-01 00:00:00+00'::timestamptz
        + make_interval(secs => microseconds / 1000000)
        + (microseconds % 1000000) * interval '1 microsecond'
$$;

-- A listener is there again.
CREATE OR REPLACE FUNCTION returned(me integer) RETURNS event[] LANGUAGE plpgsql AS $$
BEGIN
    UPDATE listener SET up = true WHERE id = me;
    RETURN (
        SELECT settle(array_agg(dump), array_agg(0)) FROM report
        WHERE listener = me AND ended IS NULL
    );
END $$;

-- A listener is there, which it says every {BEAT} s; who is not said so for {GONE} s is gone. While
-- nobody comes, as when the database was down, nobody is missed.
CREATE OR REPLACE FUNCTION beat(
    the_identity uuid, the_life text, offset_us bigint, error_us bigint, left_over bigint,
    now_dumping integer, the_trouble text, stopping boolean
) RETURNS void LANGUAGE plpgsql {DEFINER} AS $$
DECLARE
    me listener := speaking(the_identity, the_life);
    moment timestamptz := clock_timestamp();
    since timestamptz; gone integer[]; news event[] := '{{}}';
BEGIN
    UPDATE listener SET seen = moment, waiting = left_over, dumping = now_dumping,
        trouble = the_trouble, stopped = stopping, clock_offset = offset_us,
        clock_error = error_us,
        horizon = CASE WHEN left_over = 0 THEN moment ELSE horizon END
    WHERE id = me.id;
    IF NOT me.up THEN
        news := returned(me.id);
    END IF;
    UPDATE meta SET
        watched_since = CASE WHEN moment - watched_until > '{GONE // 2} s'::interval
            THEN moment ELSE watched_since END,
        watched_until = moment
    RETURNING watched_since INTO since;
    WITH lost AS (
        UPDATE listener SET up = false
        WHERE up AND greatest(seen, since) < moment - '{GONE} s'::interval
        RETURNING id
    )
    SELECT array_agg(id) INTO gone FROM lost;
    IF gone IS NOT NULL THEN
        news := news || (
            SELECT settle(array_agg(dump), array_agg(0)) FROM report
            WHERE listener = ANY (gone) AND ended IS NULL
        );
    END IF;
    PERFORM publish(news || forsaken(interval '1 day'));
END $$;

-- What nobody could see for so long is over.
CREATE OR REPLACE FUNCTION forsaken(age interval) RETURNS event[] LANGUAGE plpgsql AS $$
DECLARE news event[] := '{{}}';
BEGIN
    IF EXISTS (SELECT FROM dump WHERE ended IS NULL AND NOT observed AND last < now() - age) THEN
        WITH closed AS (
            UPDATE report r SET ended = r.last, how = 'silent' FROM dump d
            WHERE d.ended IS NULL AND NOT d.observed AND d.last < now() - age
                AND r.dump = d.id AND r.ended IS NULL
            RETURNING r.dump
        )
        SELECT settle(array_agg(dump), array_agg(0)) INTO news FROM closed;
    END IF;
    RETURN coalesce(news, '{{}}');
END $$;

-- Remove what is too old or too much, 10,000 dumps and as many events at most; how many dumps it
-- were. Dumps of nodes that stand in no settings go first.
CREATE OR REPLACE FUNCTION trim_history() RETURNS bigint LANGUAGE plpgsql {DEFINER} AS $$
DECLARE rules meta; removed bigint; more bigint; excess bigint;
BEGIN
    SELECT * INTO rules FROM meta FOR UPDATE;
    DELETE FROM event WHERE number IN (
        SELECT number FROM (SELECT number, recorded FROM event ORDER BY number LIMIT 10000) e
        WHERE recorded < now() - rules.keep_event_days * interval '1 day'
    );
    DELETE FROM dump WHERE id IN (
        SELECT id FROM dump
        WHERE began < now() - rules.keep_days * interval '1 day' AND ended IS NOT NULL
        ORDER BY began LIMIT 10000
    );
    GET DIAGNOSTICS removed = ROW_COUNT;
    SELECT count(*) - rules.most_dumps INTO excess FROM dump;
    DELETE FROM dump WHERE id IN (
        SELECT id FROM dump WHERE NOT named AND ended IS NOT NULL
        ORDER BY began LIMIT least(greatest(excess, 0), 10000)
    );
    GET DIAGNOSTICS more = ROW_COUNT;
    IF more < least(excess, 10000) THEN
        removed := removed + more;
        DELETE FROM dump WHERE id IN (
            SELECT id FROM dump WHERE ended IS NOT NULL
            ORDER BY began LIMIT least(excess, 10000) - more
        );
        GET DIAGNOSTICS more = ROW_COUNT;
    END IF;
    RETURN removed + more;
END $$;
"""

#: What a writer may call.
WRITERS = (
    "register(uuid, text, text, text, interval)",
    "hand_on(uuid, text, bigint, bigint, bigint, json)",
    "beat(uuid, text, bigint, bigint, bigint, integer, text, boolean)",
    "trim_history()",
)
