# SPDX-License-Identifier: GPL-2.0-or-later
"""What decides, in the database: which reports are of one dump, when it is over, and what is said.

Every function that a listener may call takes the lock of `meta` first, and then does all its work
alone. They run with the rights of the schema's owner, so that a writer needs no right to a table.
Made anew by `kdumpfence database init` and `upgrade`. What may not be in this file: tables.
"""

from __future__ import annotations

#: Seconds: a listener that was not seen for so long is gone. It comes every BEAT.
GONE = 30
BEAT = 5

#: Seconds for which what a node said of its end may come later than it is: clocks, and a sender's
#: second try.
AFTER_END = 5

_DEFINER = "SECURITY DEFINER SET search_path = kdumpfence, pg_temp"
# Planned anew in each call: a plan that was made while the tables were small is none when a hundred
# thousand nodes have panicked.
_DEFINER += " SET plan_cache_mode = force_custom_plan SET jit = off"

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
) RETURNS bigint LANGUAGE plpgsql {_DEFINER} AS $$
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

-- Until when that dump certainly went on, as far as its listeners can tell; null: it is over.
CREATE OR REPLACE FUNCTION known_until(the_dump bigint) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT max(CASE WHEN r.ended IS NULL THEN greatest(r.last, l.horizon) ELSE r.last END)
    FROM report r JOIN listener l ON l.id = r.listener WHERE r.dump = the_dump
$$;

-- The dumps of a node that a report with these times is of, the first one first.
CREATE OR REPLACE FUNCTION same_dumps(
    me integer, the_node text, the_began timestamptz, the_last timestamptz, slack interval,
    told boolean
) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(d.id ORDER BY d.began, d.id)
    FROM (
        SELECT * FROM dump
        WHERE node = the_node
            AND began <= the_last + CASE WHEN told THEN '{AFTER_END} s'::interval ELSE slack END
        ORDER BY node DESC, began DESC LIMIT 8
    ) d
    WHERE CASE
            WHEN d.how IN ('finished', 'failed')
                THEN d.ended + '{AFTER_END} s'::interval >= the_began
            WHEN d.how = 'silent' THEN d.last + slack >= the_began
            ELSE known_until(d.id) + slack >= the_began
        END
        -- One listener's own reports are of different dumps where it said so.
        AND (
            SELECT true FROM report r
            WHERE r.dump = d.id AND r.listener = me AND r.began < the_began
                AND r.how IN ('finished', 'failed')
            LIMIT 1
        ) IS NULL
$$;

-- What these dumps are, by their reports, written down; the differences as events, which have the
-- number of the asker instead of their own.
CREATE OR REPLACE FUNCTION settle(ids bigint[], seqs bigint[]) RETURNS event[]
LANGUAGE plpgsql AS $$
DECLARE news event[];
BEGIN
    WITH asked AS (
        SELECT id, max(seq) AS seq FROM unnest(ids, seqs) AS a (id, seq) GROUP BY id
    ), reports AS (
        SELECT a.id, a.seq,
            count(*) FILTER (WHERE r.ended IS NULL AND l.up) AS live,
            count(*) FILTER (WHERE r.ended IS NULL AND NOT l.up) AS gone,
            max(l.seen) FILTER (WHERE r.ended IS NULL AND NOT l.up) AS gone_since,
            max(r.last) FILTER (WHERE r.ended IS NULL AND l.up) AS live_last,
            max(r.ended) AS last_end,
            max(r.ended) FILTER (WHERE r.how IN ('finished', 'failed')) AS told_at,
            (array_agg(r.how ORDER BY r.ended DESC)
                FILTER (WHERE r.how IN ('finished', 'failed')))[1] AS told,
            min(r.began) AS began, max(r.last) AS last, max(r.messages) AS messages,
            CASE WHEN count(*) = 1 THEN max(r.took)
                ELSE greatest(max(r.took), extract(epoch FROM max(r.last) - min(r.began)))
            END AS took,
            array_agg(DISTINCT l.name ORDER BY l.name) AS listeners
        FROM asked a JOIN report r ON r.dump = a.id JOIN listener l ON l.id = r.listener
        GROUP BY a.id, a.seq
    ), decided AS (
        SELECT s.*, d.node, d.ended AS was_ended, d.how AS was_how, d.observed AS was_observed,
            CASE
                WHEN s.told IS NOT NULL THEN s.told_at
                -- Ended and not over: only what came after the end says so.
                WHEN s.live > 0 AND d.ended IS NOT NULL AND s.live_last <= d.ended THEN d.ended
                WHEN s.live > 0 THEN NULL
                WHEN s.gone > 0 AND (s.last_end IS NULL OR s.last_end <= s.gone_since) THEN d.ended
                ELSE greatest(s.last_end, d.ended)
            END AS now_ended,
            (SELECT array_agg(DISTINCT one ORDER BY one)
                FROM report r, unnest(r.addresses) one WHERE r.dump = s.id) AS addresses
        FROM reports s JOIN dump d ON d.id = s.id
    ), named AS (
        SELECT *,
            CASE WHEN now_ended IS NULL THEN '' ELSE coalesce(told, 'silent') END AS now_how,
            now_ended IS NOT NULL OR live > 0 AS now_observed
        FROM decided
    ), written AS (
        UPDATE dump d SET ended = n.now_ended, how = n.now_how, observed = n.now_observed,
            began = n.began, last = n.last, messages = n.messages, took = n.took,
            addresses = n.addresses
        FROM named n WHERE d.id = n.id
    )
    SELECT array_agg(
        (seq, 0, now(), kind, id, node, at, began, last, messages, addresses, took, listeners, NULL)
        ::event ORDER BY seq)
    INTO news
    FROM (
        SELECT *, CASE
            WHEN now_how NOT IN ('', was_how) THEN now_how
            WHEN now_how = '' AND was_how <> '' THEN 'resumed'
            WHEN now_how = '' AND was_observed AND NOT now_observed THEN 'unobserved'
            WHEN now_how = '' AND now_observed AND NOT was_observed THEN 'observed'
        END AS kind, coalesce(now_ended, greatest(last, gone_since)) AS at
        FROM named
    ) n
    WHERE kind IS NOT NULL;
    RETURN coalesce(news, '{{}}');
END $$;

-- Give events their numbers: nobody sees one before all lower ones.
CREATE OR REPLACE FUNCTION publish(news event[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    line integer := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
    more bigint := (SELECT count(*) FROM unnest(news) e WHERE e.kind IS NOT NULL);
    base bigint;
BEGIN
    IF more = 0 THEN
        RETURN;
    END IF;
    UPDATE meta SET last_event = last_event + more RETURNING last_event - more INTO base;
    INSERT INTO event
    SELECT base + row_number() OVER (ORDER BY e.number, place), line, clock_timestamp(), e.kind,
        e.dump, e.node, e.at, e.began, e.last, e.messages, e.addresses, e.took, e.listeners,
        e.merged_into
    FROM unnest(news) WITH ORDINALITY AS e (
        number, timeline, recorded, kind, dump, node, at, began, last, messages, addresses, took,
        listeners, merged_into, place
    ) WHERE e.kind IS NOT NULL;
    PERFORM pg_notify('kdumpfence', (base + more)::text);
END $$;

-- Take what one listener says of nodes, each of which is there once.
CREATE OR REPLACE FUNCTION take(me listener, given incoming[]) RETURNS event[]
LANGUAGE plpgsql AS $$
DECLARE
    news event[] := '{{}}';
    ids bigint[]; seqs bigint[]; unknown incoming[]; many record; other bigint;
BEGIN
    -- What is known already.
    WITH changed AS (
        UPDATE report r SET
            last = greatest(r.last, g.last), messages = greatest(r.messages, g.messages),
            took = greatest(r.took, g.took), addresses = g.addresses, sessions = g.sessions,
            ended = CASE WHEN g.kind IN ('began', 'dumping') THEN r.ended ELSE g.happened END,
            how = CASE WHEN g.kind IN ('began', 'dumping') THEN r.how ELSE g.kind END
        FROM unnest(given) g
        WHERE r.listener = me.id AND r.node = g.node AND r.since = g.since
        RETURNING r.dump, g.seq, g.kind
    )
    SELECT array_agg(c.dump), array_agg(c.seq) INTO ids, seqs
    FROM changed c JOIN dump d ON d.id = c.dump
    WHERE c.kind NOT IN ('began', 'dumping') OR d.ended IS NOT NULL OR NOT d.observed;
    -- Where it goes on with a dump that another listener took for two.
    FOR many IN
        SELECT g.seq, r.dump, r.node, same_dumps(me.id, r.node, r.began, r.last, me.silence,
            r.how IN ('finished', 'failed')) AS same
        FROM unnest(given) g
        JOIN report r ON r.listener = me.id AND r.node = g.node AND r.since = g.since
        WHERE EXISTS (
            SELECT FROM dump d
            WHERE d.node = r.node AND d.id <> r.dump AND d.began BETWEEN r.began AND r.last
        )
    LOOP
        IF many.dump = ANY (many.same) THEN
            FOREACH other IN ARRAY many.same LOOP
                IF other <> many.dump THEN
                    news := news || joined(other, many.dump, many.seq);
                END IF;
            END LOOP;
            ids := ids || many.dump;
            seqs := seqs || many.seq;
        END IF;
    END LOOP;
    SELECT array_agg(g) INTO unknown FROM unnest(given) g
    WHERE NOT EXISTS (
        SELECT FROM report r WHERE r.listener = me.id AND r.node = g.node AND r.since = g.since
    );
    IF unknown IS NOT NULL THEN
        -- New reports: of a dump that there is, or of a new one.
        WITH placed AS (
            SELECT g, same_dumps(me.id, g.node, g.began, g.last, me.silence,
                g.kind IN ('finished', 'failed')) AS same
            FROM unnest(unknown) g
        ), dumps AS (
            INSERT INTO dump (node, began, last, messages, addresses, took, named)
            SELECT (g).node, (g).began, (g).last, (g).messages, (g).addresses, (g).took, (g).named
            FROM placed WHERE same IS NULL ORDER BY (g).seq
            RETURNING *
        ), reports AS (
            INSERT INTO report
            SELECT me.id, (g).node, (g).since, coalesce(same[1], d.id), (g).began, (g).last,
                CASE WHEN (g).kind IN ('began', 'dumping') THEN NULL ELSE (g).happened END,
                CASE WHEN (g).kind IN ('began', 'dumping') THEN '' ELSE (g).kind END,
                (g).messages, (g).addresses, (g).took, (g).sessions
            FROM placed LEFT JOIN dumps d ON d.node = (g).node
            RETURNING dump, node
        )
        SELECT
            news || coalesce(array_agg(
                ((g).seq, 0, now(), 'began', d.id, d.node, d.began, d.began, d.last, d.messages,
                d.addresses, d.took, ARRAY[me.name], NULL)::event ORDER BY (g).seq
            ) FILTER (WHERE same IS NULL), '{{}}'),
            ids || array_agg(r.dump) FILTER (
                WHERE same IS NOT NULL OR (g).kind NOT IN ('began', 'dumping')),
            seqs || array_agg((g).seq) FILTER (
                WHERE same IS NOT NULL OR (g).kind NOT IN ('began', 'dumping'))
        INTO news, ids, seqs
        FROM placed JOIN reports r ON r.node = (g).node LEFT JOIN dumps d ON d.node = (g).node;
        FOR many IN
            SELECT g.seq, same_dumps(me.id, g.node, g.began, g.last, me.silence,
                g.kind IN ('finished', 'failed')) AS same
            FROM unnest(unknown) g
            WHERE (SELECT count(*) > 1 FROM dump d WHERE d.node = g.node AND
                (d.ended IS NULL OR d.ended >= g.began - me.silence))
        LOOP
            FOREACH other IN ARRAY coalesce(many.same[2:], '{{}}') LOOP
                news := news || joined(other, many.same[1], many.seq);
            END LOOP;
            IF cardinality(many.same) > 1 THEN
                ids := ids || many.same[1];
                seqs := seqs || many.seq;
            END IF;
        END LOOP;
        UPDATE dump d SET named = true FROM unnest(unknown) g
        WHERE g.named AND d.node = g.node AND NOT d.named;
        -- Who begins anew has not been dumping since nobody could see it.
        WITH closed AS (
            UPDATE report r SET ended = r.last, how = 'silent'
            FROM dump d, unnest(unknown) g
            WHERE d.node = g.node AND d.ended IS NULL AND NOT d.observed AND r.dump = d.id
                AND r.ended IS NULL AND d.last < g.began AND NOT EXISTS (
                    SELECT FROM report mine
                    WHERE mine.dump = d.id AND mine.listener = me.id AND mine.since = g.since)
            RETURNING r.dump, g.seq
        )
        SELECT ids || array_agg(dump), seqs || array_agg(seq) INTO ids, seqs FROM closed;
    END IF;
    RETURN news || settle(ids, seqs);
END $$;

-- The second dump turned out to be the first.
CREATE OR REPLACE FUNCTION joined(the_second bigint, the_first bigint, seq bigint) RETURNS event
LANGUAGE plpgsql AS $$
DECLARE gone dump;
BEGIN
    SELECT * INTO gone FROM dump WHERE id = the_second;
    IF gone.id IS NULL THEN
        RETURN NULL;
    END IF;
    UPDATE report SET dump = the_first WHERE dump = the_second;
    UPDATE dump SET named = named OR gone.named WHERE id = the_first;
    DELETE FROM dump WHERE id = the_second;
    RETURN (seq, 0, now(), 'merged', gone.id, gone.node, now(), gone.began, gone.last,
        gone.messages, gone.addresses, gone.took, '{{}}'::text[], the_first)::event;
END $$;

-- What is in an outbox, in order: a JSON list. `left_over` is how many are in it after that;
-- the last number that is here is returned. Those that were here already are left out.
CREATE OR REPLACE FUNCTION hand_on(
    the_identity uuid, the_life text, offset_us bigint, error_us bigint, left_over bigint,
    batch json
) RETURNS bigint LANGUAGE plpgsql {_DEFINER} AS $$
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
) RETURNS void LANGUAGE plpgsql {_DEFINER} AS $$
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
CREATE OR REPLACE FUNCTION trim_history() RETURNS bigint LANGUAGE plpgsql {_DEFINER} AS $$
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

VIEWS = f"""
CREATE OR REPLACE VIEW listeners AS
SELECT name, version, identity,
    CASE WHEN stopped THEN 'stopped' WHEN seen > now() - '{GONE} s'::interval THEN 'up'
        ELSE 'gone' END AS state,
    registered, seen, waiting, dumping, trouble,
    clock_offset / 1e6 AS clock_behind, clock_error / 1e6 AS clock_error, last_seq
FROM listener;

CREATE OR REPLACE VIEW dumps AS
SELECT d.id, d.node, d.began, CASE WHEN d.ended IS NULL THEN r.last ELSE d.last END AS last,
    d.ended, d.how,
    CASE WHEN d.ended IS NULL THEN extract(epoch FROM r.last - d.began)::double precision
        ELSE d.took END AS seconds,
    greatest(d.messages, r.messages) AS messages,
    CASE WHEN d.ended IS NULL THEN r.addresses ELSE d.addresses END AS addresses,
    r.listeners, d.named, d.ended IS NOT NULL OR r.live AS observed
FROM dump d CROSS JOIN LATERAL (
    SELECT max(r.last) AS last, max(r.messages) AS messages,
        array_agg(DISTINCT l.name ORDER BY l.name) AS listeners,
        (SELECT array_agg(DISTINCT one ORDER BY one) FROM report r2, unnest(r2.addresses) one
            WHERE r2.dump = d.id) AS addresses,
        coalesce(bool_or(r.ended IS NULL AND l.up AND l.seen > now() - '{GONE} s'::interval), false)
            AS live
    FROM report r JOIN listener l ON l.id = r.listener WHERE r.dump = d.id
) r;

CREATE OR REPLACE VIEW dumping AS SELECT * FROM dumps WHERE ended IS NULL;

CREATE OR REPLACE VIEW events AS SELECT * FROM event;
"""
