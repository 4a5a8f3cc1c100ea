# SPDX-License-Identifier: LGPL-2.1-or-later
"""Views for tests of the status page: quiet ones, full ones, and ones full of malice."""

from __future__ import annotations

from collections.abc import Sequence

from kdumpfence.daemon.history_reading import Past
from kdumpfence.daemon.neighbours import Around
from kdumpfence.daemon.page.view import MOST_PAST, ROWS, Found, Heard, Row, View
from kdumpfence.daemon.status import MOST_UNRESOLVED, Status
from kdumpfence.database.overview import DUMPS, LISTENERS, Overview
from kdumpfence.database.seen import ListenerState, Seen
from kdumpfence.listener.events import MOST_ADDRESSES, Dump, Event
from kdumpfence.wire import REASONS

#: 2026-11-29 03:12:05 UTC.
NOW = 1795921925.0

#: What a node, an address or a trouble may be called by somebody who means no good.
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></table></svg><h1>x</h1>",
    "&lt;b&gt;&amp;#60;",
    "a\x00b\x1b[31m\r\n\tc\x7f\x85",
    "evil\u202eedon\u202c\u2066x\u2069\u200f\ufeff",
    "\ud800\udfff lone",
    "x" * 100_000,
    "\U000e0001" * 5000,
    "שלום",
    "z" + "\u0301" * 300,
    "javascript:alert(1)",
    "${7*7}{{7*7}}{0}%s",
    "--> <!-- ]]> <![CDATA[",
)  # fmt: skip


def status(**more: object) -> Status:
    """Of a daemon that has nothing to say."""
    quiet = Status("0.1.0", 90.0, NOW, 5, (), 0, (), dict.fromkeys(("accepted", *REASONS), 0))
    return quiet._replace(**more)  # type: ignore[arg-type]


def view(**more: object) -> View:
    """Of a daemon that hears nothing."""
    quiet = View(NOW, [Heard("engine1", status(), 30.0)], 0, [], 0, [])
    return quiet._replace(**more)  # type: ignore[arg-type]


def dump(node: str, took: float = 60.0, addresses: Sequence[str] = ("192.0.2.1",)) -> Dump:
    """One under way."""
    return Dump(node, NOW - took, NOW, 12, tuple(addresses), took, port=7410)


def other(name: str, state: str = "up", **more: object) -> ListenerState:
    """Another listener, as the database has it."""
    quiet = ListenerState(name, state, "0.1.0", 2.0, 0, 0, 0.0, 0.0, "")
    return quiet._replace(**more)  # type: ignore[arg-type]


def seen(node: str, *listeners: str, observed: bool = True) -> Seen:
    """A dump under way that only others hear."""
    return Seen(node, NOW - 60, NOW - 5, 6, ("192.0.2.7",), 55.0, listeners, observed)


def around(*listeners: ListenerState, age: float = 3.0, dumps: Sequence[Seen] = ()) -> Around:
    """What the database said of others."""
    known = Overview(NOW, list(listeners), len(listeners), list(dumps), len(dumps))
    return Around(known, age, "")


def past(node: str, took: float, end: str = "finished", since: float = NOW - 9000) -> Past:
    """One that is over."""
    return Past(node, since, since + took, since + took, 9, ("192.0.2.1",), took, end)


def hostile() -> View:
    """Everything that can be a string is one of HOSTILE, and there is as much of it as can be."""
    names = [HOSTILE[number % len(HOSTILE)] for number in range(MOST_PAST)]
    where = tuple(names[:MOST_ADDRESSES])
    evil = status(
        version=names[1],
        counting=names[0],
        unresolved=names[:MOST_UNRESOLVED],
        unresolved_nodes=10**9,
        troubles=names[:50],
        counts={"accepted": 1 << 62, **dict.fromkeys(names, 1 << 62)},
    )
    dumps = [dump(name, addresses=where) for name in names[:ROWS]]
    ends = ("finished", "failed", "silent", names[0])
    over = [past(name, 1e9, ends[n % 4])._replace(addresses=where) for n, name in enumerate(names)]
    wrong = past("when?", 5.0, since=1e300)
    states = [
        other(name, ("up", "gone", name)[n % 3], version=name, trouble=name, waiting=1 << 62)
        for n, name in enumerate(names[:LISTENERS])
    ]
    theirs = [seen(name, *names[:100])._replace(since=-1e300) for name in names[:DUMPS]]
    elsewhere = Overview(1e300, states, 1 << 62, theirs, 1 << 62)
    return View(
        NOW,
        [Heard(name, evil, 30.0, name) for name in names[:100]],
        1 << 62,
        [Row(one, names[:100]) for one in dumps],
        1 << 40,
        [wrong, *over[1:]],
        Found(names[1], True, None, Event("failed", names[1], NOW, NOW - 9, NOW, 1, where)),
        dumps[0],
        Around(elsewhere, 5.0, names[0]),
    )
