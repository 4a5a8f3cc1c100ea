# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tables, by the version that brought them. What a version once had is never changed here: the
next one changes the database. What may not be in this file: functions and views, which are made
anew by each version.
"""

from __future__ import annotations

#: Version -> what it adds to the one before it.
MIGRATIONS = {
    1: """
CREATE TABLE meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL DEFAULT 1,
    last_event bigint NOT NULL DEFAULT 0,           -- its number
    watched_since timestamptz NOT NULL DEFAULT now(), -- listeners have come without a pause...
    watched_until timestamptz NOT NULL DEFAULT now(), -- ...from then until then
    keep_days real NOT NULL DEFAULT 400,
    keep_event_days real NOT NULL DEFAULT 30,
    most_dumps bigint NOT NULL DEFAULT 10000000
);
INSERT INTO meta DEFAULT VALUES;

CREATE TABLE listener (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity uuid NOT NULL UNIQUE,
    name text NOT NULL,
    version text NOT NULL,
    life text NOT NULL,                     -- of the process that speaks for it
    lives text[] NOT NULL DEFAULT '{}',     -- the last ones before that
    silence interval NOT NULL,
    registered timestamptz NOT NULL DEFAULT now(),
    seen timestamptz NOT NULL DEFAULT now(),  -- when it came last
    horizon timestamptz NOT NULL DEFAULT '-infinity', -- until when all that it heard is here
    up boolean NOT NULL DEFAULT true,
    stopped boolean NOT NULL DEFAULT false, -- it said good-bye
    last_seq bigint NOT NULL DEFAULT 0,     -- of its outbox, what is here
    clock_offset bigint NOT NULL DEFAULT 0, -- microseconds that its clock is behind
    clock_error bigint NOT NULL DEFAULT 0,  -- how far that may be wrong
    waiting bigint NOT NULL DEFAULT 0,      -- events in its outbox
    dumping integer NOT NULL DEFAULT 0,
    trouble text NOT NULL DEFAULT ''
);

CREATE TABLE dump (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node text NOT NULL,
    began timestamptz NOT NULL,             -- first message that any listener heard
    last timestamptz NOT NULL,              -- last one; of a dump under way see its reports
    ended timestamptz,                      -- NULL: under way
    how text NOT NULL DEFAULT '' CHECK (how IN ('', 'finished', 'failed', 'silent')),
    messages bigint NOT NULL,               -- that one listener heard, the most
    addresses text[] NOT NULL,
    took double precision NOT NULL,         -- seconds
    named boolean NOT NULL,                 -- it stands in the settings of a listener
    observed boolean NOT NULL DEFAULT true, -- false: all who heard it are gone
    CHECK ((ended IS NULL) = (how = ''))
) WITH (fillfactor = 80);
CREATE INDEX dump_node ON dump (node, began);
CREATE INDEX dump_began ON dump (began);
CREATE INDEX dump_under_way ON dump (began) WHERE ended IS NULL;
CREATE INDEX dump_stranger ON dump (began) WHERE NOT named AND ended IS NOT NULL;

CREATE TABLE report (
    listener integer NOT NULL REFERENCES listener ON DELETE CASCADE,
    node text NOT NULL,
    since bigint NOT NULL,                  -- microseconds of Unix time by the listener's clock
    dump bigint NOT NULL REFERENCES dump ON DELETE CASCADE,
    began timestamptz NOT NULL,
    last timestamptz NOT NULL,
    ended timestamptz,
    how text NOT NULL DEFAULT '',
    messages bigint NOT NULL,
    addresses text[] NOT NULL,
    took double precision NOT NULL,
    sessions text[] NOT NULL,
    PRIMARY KEY (node, since, listener)
) WITH (fillfactor = 70);
CREATE INDEX report_dump ON report (dump);
CREATE INDEX report_under_way ON report (listener, dump) WHERE ended IS NULL;

CREATE TABLE event (
    number bigint PRIMARY KEY,
    timeline integer NOT NULL,              -- of the database: another one after a failover
    recorded timestamptz NOT NULL,
    kind text NOT NULL,
    dump bigint NOT NULL,
    node text NOT NULL,
    at timestamptz NOT NULL,
    began timestamptz NOT NULL,
    last timestamptz NOT NULL,
    messages bigint NOT NULL,
    addresses text[] NOT NULL,
    took double precision NOT NULL,
    listeners text[] NOT NULL,              -- who heard it, by name
    merged_into bigint                      -- of kind "merged": the dump that it turned out to be
);

-- What a listener hands on, of its own clock.
CREATE TYPE incoming AS (
    seq bigint, round integer, kind text, node text, happened timestamptz, since bigint,
    began timestamptz, last timestamptz, messages bigint, addresses text[], took double precision,
    sessions text[], named boolean
);
""",
}

VERSION = max(MIGRATIONS)
