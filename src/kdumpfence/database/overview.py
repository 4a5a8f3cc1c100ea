# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a listener's status page is told: how the other listeners are, and what only they hear.

A writer may ask this, though it may read nothing else: it takes no lock, and looks at so much and
no more. Other listeners have written every string in it, and whoever has a writer's password can be
one. What may not be in this file: how it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from kdumpfence.database.calls import DEFINER
from kdumpfence.database.seen import ListenerState, Seen

#: Listeners and dumps in an answer at most, the latter of so many that began last.
LISTENERS = 64
DUMPS = 200
SCANNED = 200_000

FUNCTION = f"""
-- Listeners other than this one, and the dumps under way that it does not hear itself.
CREATE OR REPLACE FUNCTION overview(the_identity uuid) RETURNS json
LANGUAGE plpgsql STABLE {DEFINER} AS $$
DECLARE me integer := (SELECT id FROM listener WHERE identity = the_identity);
BEGIN
    RETURN (
        WITH others AS (
            SELECT * FROM listeners
            WHERE identity <> the_identity AND (state = 'up' OR seen > now() - interval '30 days')
        ), elsewhere AS (
            SELECT d.id, d.began
            FROM (
                SELECT id, began FROM dump WHERE ended IS NULL ORDER BY began DESC LIMIT {SCANNED}
            ) d
            WHERE NOT EXISTS (
                SELECT FROM report r WHERE r.listener = me AND r.dump = d.id AND r.ended IS NULL
            )
        )
        SELECT json_build_object(
            'when', extract(epoch FROM clock_timestamp()),
            'listening', (SELECT count(*) FROM others),
            'listeners', (
                SELECT json_agg(json_build_array(
                    left(name, 100), state, left(version, 40),
                    extract(epoch FROM clock_timestamp() - seen), dumping, waiting,
                    clock_behind, clock_error, left(trouble, 400)
                ))
                FROM (SELECT * FROM others ORDER BY name, seen DESC LIMIT {LISTENERS}) o
            ),
            'dumping', (SELECT count(*) FROM elsewhere),
            'dumps', (
                SELECT json_agg(json_build_array(
                    left(d.node, 253), extract(epoch FROM d.began), extract(epoch FROM d.last),
                    d.messages, (SELECT json_agg(left(a, 48)) FROM unnest(d.addresses[1:16]) a),
                    extract(epoch FROM d.last - d.began),
                    (SELECT json_agg(left(l, 100)) FROM unnest(d.listeners[1:8]) l), d.observed
                ) ORDER BY e.began DESC)
                FROM (SELECT * FROM elsewhere ORDER BY began DESC LIMIT {DUMPS}) e
                CROSS JOIN LATERAL (SELECT * FROM dumping WHERE dumping.id = e.id) d
            )
        )
    );
END $$;
"""

#: What a writer may call of this.
SIGNATURE = "overview(uuid)"

Row = TypeVar("Row")


class Overview(NamedTuple):
    """The others at a moment, a Unix time by the database's clock."""

    when: float
    #: LISTENERS at most, and how many there are.
    listeners: list[ListenerState]
    listening: int
    #: Under way and not heard by who asks, newest first, DUMPS at most; and how many there are of
    #: the SCANNED that began last.
    dumps: list[Seen]
    dumping: int


def read(answer: Any) -> Overview:
    """What the function returned. ValueError if that is none; rows that cannot be are left out."""
    try:
        return Overview(
            _number(answer["when"]),
            list(_rows(_listener, answer["listeners"])),
            int(answer["listening"]),
            list(_rows(_dump, answer["dumps"])),
            int(answer["dumping"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("not an overview") from None


def _rows(read_one: Callable[..., Row], rows: list[list[Any]] | None) -> Iterable[Row]:
    for row in rows or ():
        try:
            yield read_one(*row)
        except (TypeError, ValueError, OverflowError):
            continue


def _listener(
    name: str, state: str, version: str, age: Any, dumping: Any, waiting: Any, *more: Any
) -> ListenerState:
    behind, error, trouble = more
    return ListenerState(
        str(name), str(state), str(version), _number(age), int(dumping), int(waiting),
        _number(behind), _number(error), str(trouble),
    )  # fmt: skip


def _dump(node: str, since: Any, last: Any, messages: Any, *more: Any) -> Seen:
    addresses, took, listeners, observed = more
    return Seen(
        str(node), _number(since), _number(last), int(messages), tuple(map(str, addresses or ())),
        _number(took), tuple(map(str, listeners or ())), bool(observed),
    )  # fmt: skip


def _number(value: Any) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(found)
    return found
