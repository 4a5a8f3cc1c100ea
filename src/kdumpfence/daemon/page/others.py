# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parts of the page about listeners that share a database with this one.

All of it is as of a while ago, and says so; what is too old to go by does not count in what is said
first. What may not be in this file: how it came here.
"""

from __future__ import annotations

from collections.abc import Iterable

from kdumpfence.daemon.formats import many
from kdumpfence.daemon.neighbours import Around
from kdumpfence.daemon.page.markup import MOST_LINE, fresh, moment, name, number, table, text
from kdumpfence.daemon.page.past import addresses
from kdumpfence.daemon.timeout_advice import duration
from kdumpfence.database.calls import GONE
from kdumpfence.database.overview import Overview
from kdumpfence.database.seen import ListenerState, Seen

#: Seconds that a clock may be off before it is worth a word.
_CLOCK = 1.0


def dumping(around: Around | None) -> int:
    """How many nodes only others hear, as far as that is known now."""
    known = _current(around)
    return 0 if known is None else known.dumping


def troubles(around: Around | None) -> Iterable[str]:
    """What is wrong with the others, a line each."""
    known = _current(around)
    if known is None or around is None:
        return
    for one in known.listeners:
        if one.state == "gone":
            age = duration(_age(one, around))
            yield f"{name(one.name)}: gone, it came to the database last {age} ago"
        elif one.state == "up" and one.trouble:
            yield f"{name(one.name)}: {text(one.trouble, MOST_LINE)}"


def listeners(around: Around | None) -> str:
    """The table of the others, below that of this one; "" if there is no database."""
    if around is None:
        return ""
    known = around.overview
    heads = ("Other listener", "Health", "Came last", "Dumping", "Waiting", "Clock behind",
             "Trouble", "Version")  # fmt: skip
    rows = [] if known is None else [_listener(one, around) for one in known.listeners]
    left = 0 if known is None else known.listening - len(known.listeners)
    more = f'<p class="note">and {number(left)} more</p>' if left > 0 else ""
    if known is not None and not rows:
        more = '<p class="note">No other listener has been seen in the last 30 days.</p>'
    return (
        fresh("others-as-of", f'<p class="note">{_as_of("Other listeners", around)}</p>')
        + table("others", "Health of the other listeners", heads, rows, (3, 4, 5))
        + fresh("others-more", more)
    )


def elsewhere(around: Around | None) -> str:
    """The table of nodes that only others hear; "" if there is no database."""
    if around is None:
        return ""
    known = around.overview
    heads = ("Node", "State", "Since (UTC)", "For", "Last known message", "Messages", "From",
             "Heard by")  # fmt: skip
    dumps = () if known is None else known.dumps
    rows = [] if known is None else [_dump(one, around.age, known) for one in dumps]
    note = ""
    if known is not None and known.dumping > 0:
        note = f'<p class="note">{_as_of("Heard by other listeners only", around)}</p>'
    left = 0 if known is None else known.dumping - len(dumps)
    more = f'<p class="note">and {number(left)} more</p>' if left > 0 else ""
    return (
        fresh("elsewhere-as-of", note)
        + table("elsewhere", "Nodes that only other listeners hear, newest first", heads, rows,
                (3, 5))
        + fresh("elsewhere-more", more)
    )  # fmt: skip


def found(dump: Seen, around: Around | None) -> str:
    """What is said of a node that only others hear."""
    by = ", ".join(name(one, 40) for one in dump.listeners[:4])
    state = "dumping" if dump.observed else "dumping, or was until its listeners were gone"
    when = "" if around is None else f", as of {duration(around.age)} ago"
    return f"is not heard here, and <strong>{state}</strong> by the word of {by}{when}"


def unsure(around: Around | None) -> str:
    """What is added where nobody is known to hear a node, and somebody may."""
    known = _current(around)
    if around is None or (known is not None and known.dumping <= len(known.dumps)):
        return ""
    return ". Other listeners may hear it: <code>kdumpfence status --database</code> says"


def _current(around: Around | None) -> Overview | None:
    """What may be said to be so."""
    return None if around is None or around.age > GONE else around.overview


def _as_of(what: str, around: Around) -> str:
    why = f": {text(around.trouble, MOST_LINE)}" if around.trouble else ""
    if around.overview is None:
        return f"{what}: <strong>nothing known yet</strong>{why}"
    age = f"as of {duration(around.age)} ago"
    if why or around.age > GONE:
        return f"{what}, <strong>{age}</strong>{why or ': the database has not answered since'}"
    return f"{what}, {age}, by the database"


def _age(one: ListenerState, around: Around) -> float:
    return max(0.0, one.age + around.age)


def _listener(one: ListenerState, around: Around) -> list[str]:
    health, key = {
        "gone": ("gone", "failed"),
        "stopped": ("stopped", "silent"),
    }.get(one.state, ("trouble", "failed") if one.trouble else ("well", "finished"))
    if _current(around) is None:
        health, key = f"not known, was {health}", "silent"
    return [
        name(one.name),
        f'<b class="key {key}"></b> {health}',
        f"{duration(_age(one, around))} ago",
        number(one.dumping),
        many(one.waiting, "event", "events"),
        "" if abs(one.clock_behind) < _CLOCK else f"{one.clock_behind:,.1f} s",
        text(one.trouble, MOST_LINE),
        text(one.version, 24),
    ]


def _dump(one: Seen, age: float, known: Overview) -> list[str]:
    state = "dumping" if one.observed else "not known: all who heard it are gone"
    return [
        name(one.node),
        f'<b class="key {"dumping" if one.observed else "late"}"></b> {state}',
        moment(one.since),
        duration(max(0.0, known.when - one.since + age)),
        f"{duration(max(0.0, known.when - one.last + age))} ago",
        number(one.messages),
        addresses(one.addresses),
        ", ".join(name(by, 40) for by in one.listeners[:4]),
    ]
