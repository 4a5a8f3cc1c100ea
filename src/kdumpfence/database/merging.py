# SPDX-License-Identifier: LGPL-2.1-or-later
"""What decides, in the database: which reports are of one dump, when it is over, and what is said.

Called by what is in calls.py, with the lock of `meta` held, so all of this is alone. What may not
be in this file: what a listener may call, and tables.
"""

from __future__ import annotations

#: Seconds for which what a node said of its end may come later than it is: clocks, and a sender's
#: second try.
AFTER_END = 5

FUNCTIONS = f"""
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
"""
