# SPDX-License-Identifier: LGPL-2.1-or-later
"""What people and dashboards query, as in docs/database.md: these stay when the tables change."""

from __future__ import annotations

from kdumpfence.database.calls import GONE

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
