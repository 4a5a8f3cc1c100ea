# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page of a view: what is said first, who is dumping, and how the listeners are.

A plain function: the same view makes the same bytes. The rest of the page is in `past`,
`messages` and `others`. What may not be in this file: where a view comes from, HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from kdumpfence.daemon.formats import many
from kdumpfence.daemon.page import others
from kdumpfence.daemon.page.markup import (
    MOST_LINE,
    fresh,
    moment,
    name,
    number,
    table,
    text,
)
from kdumpfence.daemon.page.messages import HEARD, messages, rejected
from kdumpfence.daemon.page.past import ENDS, addresses, lengths, one_by_one
from kdumpfence.daemon.page.view import ROWS, Found, Heard, Row, View
from kdumpfence.daemon.timeout_advice import PAUSE, duration
from kdumpfence.listener.events import length

#: Behind a time where no heading says it.
UTC = " UTC"

#: Seconds after which a status is old; it is published four times a second.
OLD = 10.0

#: Seconds without a message after which a sender that repeats every PAUSE seconds is late.
LATE = 1.5 * PAUSE

#: Troubles, names that do not resolve and listeners that are shown, at most.
_TROUBLES, _UNRESOLVED, _LISTENERS = 12, 12, 64

#: Seconds after which a browser without scripts loads the page again.
RELOAD = 10


def page(view: View) -> bytes:
    """The whole page."""
    where = " and ".join(text(one.name, 40) for one in view.listeners[:2])
    if len(view.listeners) > 2:
        where = f"{len(view.listeners)} machines"
    query = f"?skip={view.skipped}" if view.skipped else ""
    if view.found is not None:
        query = f"?node={quote(view.found.node.encode('utf-8', 'replace'), safe='')}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{number(view.dumping + others.dumping(view.around))} dumping: kdumpfenced on {where}</title>
<link rel="icon" href="icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="status.css">
<script src="status.js" defer></script>
<noscript><meta http-equiv="refresh" content="{RELOAD}"></noscript>
</head>
<body>
<header>
<h1>kdumpfenced <span>on {where}</span></h1>
<p><span id="as-of" data-fresh>As of {moment(view.when, UTC)}</span>
<span id="live"></span> <a href="./{text(query, 4000)}">Reload</a></p>
</header>
<main>
{_first(view)}{_now(view)}{lengths(view.past, view.oldest)}{_listeners(view)}\
{messages(view.listeners)}{one_by_one(view.past)}</main>
<footer>
<p><a href="metrics">Metrics</a> <a href="health">Health</a>
<span>In a terminal: <code>kdumpfence status</code>, <code>watch</code> and
<code>history</code></span></p>
</footer>
</body>
</html>
""".encode()


# What is said first


def _first(view: View) -> str:
    elsewhere = others.dumping(view.around)
    count = view.dumping + elsewhere
    if count:
        said = f"{many(count, 'node is', 'nodes are')} dumping"
        said += f", {number(elsewhere)} heard by other listeners only" if elsewhere else ""
    else:
        said = "No node is dumping"
    headline = fresh(
        "headline",
        f'<p class="{"dumping" if count else "calm"}">{said}</p>',
        ' class="headline" aria-live="polite"',
    )
    lines = [*_troubles(view.listeners), *others.troubles(view.around)]
    shown = "".join(f"<li>{line}</li>" for line in lines[:_TROUBLES])
    if len(lines) > _TROUBLES:
        shown += f"<li>and {number(len(lines) - _TROUBLES)} more</li>"
    health = f'<ul class="troubles">{shown}</ul>' if lines else '<p class="well">Listening well</p>'
    return headline + fresh("troubles", health, ' aria-live="polite"')


def _troubles(listeners: Sequence[Heard]) -> Iterable[str]:
    """All that is wrong, with the listener's name where there are several."""
    for one in listeners:
        prefix = f"{name(one.name)}: " if len(listeners) > 1 else ""
        for line in one.troubles:
            yield prefix + text(line, MOST_LINE)
        if one.status is None:
            yield f"{prefix}nothing was heard of this listener yet"
        elif one.status.age > OLD and not one.trouble:
            yield f"{prefix}nothing was heard of this listener for {duration(one.status.age)}"
        if one.status is not None and one.status.unresolved:
            names = ", ".join(name(node) for node in one.status.unresolved[:_UNRESOLVED])
            left = max(one.status.unresolved_nodes, len(one.status.unresolved)) - _UNRESOLVED
            names += f" and {number(left)} more" if left > 0 else ""
            yield f"{prefix}names without an address: {names}"


# Who is dumping


_FORM = """<form role="search" action="./">
<label for="node">Node</label> <input id="node" name="node" maxlength="253" autocomplete="off"
spellcheck="false"> <button>Look up</button></form>
"""


def _now(view: View) -> str:
    several = len(view.listeners) > 1
    silence = {one.name: one.silence for one in view.listeners}
    parts = ['<section id="now"><div class="head"><h2>Dumping now</h2>\n', _FORM, "</div>\n"]
    parts.append(
        fresh("found", _found(view.found, view) if view.found else "", ' aria-live="polite"')
    )
    heads = ["Node", "State", "Since (UTC)", "For", "Last message", "Messages", "From"]
    heads += ["Heard by"] * several
    rows = [_row(row, silence, several) for row in view.rows]
    parts.append(table("dumping", "Nodes that are dumping, newest first", heads, rows, (3, 5)))
    parts.append(fresh("pages", _pages(view)))
    parts.append(others.elsewhere(view.around))
    parts.append("</section>\n")
    return "".join(parts)


def _row(row: Row, silence: dict[str, float], several: bool) -> list[str]:
    dump, by = row
    age = dump.age
    state = "dumping"
    if age >= LATE:
        over = max((silence[one] for one in by if one in silence), default=0.0)
        state = f"late: over after {duration(over)} of silence" if over else "late"
    cells = [
        name(dump.node),
        f'<b class="key {"late" if age >= LATE else "dumping"}"></b> {state}',
        moment(dump.since),
        duration(length(dump) + age),
        f"{duration(age)} ago",
        number(dump.messages),
        addresses(dump.addresses) + (f" port {dump.port}" if dump.port else ""),
    ]
    if several:
        cells.append(", ".join(name(one, 40) for one in by[:4]))
    return cells


def _pages(view: View) -> str:
    """Where the dumps are that are not shown."""
    first, last = view.skipped + 1, view.skipped + len(view.rows)
    left = view.dumping - last
    if not view.skipped and left <= 0:
        return ""
    links = []
    if view.skipped:
        newer = max(0, view.skipped - ROWS)
        links.append(f'<a href="./{f"?skip={newer}" if newer else ""}" rel="prev">Newer</a>')
    if left > 0:
        links.append(f'<a href="./?skip={last}" rel="next">and {number(left)} more</a>')
    where = f"{number(first)} to {number(last)} of {number(view.dumping)}, newest first. "
    if not view.rows:
        where = "No more. "
    return f'<nav aria-label="Pages of dumps"><p class="note">{where}{" ".join(links)}</p></nav>'


def _found(found: Found, view: View) -> str:
    """The answer about one node, in a sentence."""
    who = name(found.node)
    if found.row is not None:
        dump = found.row.dump
        said = (
            f"is <strong>dumping</strong> since {moment(dump.since, UTC)}, for "
            f"{duration(length(dump) + dump.age)}, last heard {duration(dump.age)} ago"
        )
    elif found.elsewhere is not None:
        said = others.found(found.elsewhere, view.around)
    elif found.ended is not None:
        end = found.ended
        said = (
            f"is <strong>not dumping</strong>. Its last dump began {moment(end.since, UTC)}, took "
            f"{duration(length(end))} and ended {moment(end.when, UTC)}: {ENDS[end.kind]}"
        )
    elif found.known:
        said = "is <strong>not dumping</strong>, and no end of a dump is known since the start"
    else:
        said = "is <strong>not a node</strong> that is listened for here: names count, exactly"
    if found.row is None and found.elsewhere is None:
        said += others.unsure(view.around)
    return f'<p class="found">{who} {said}. <a href="./">All nodes</a></p>'


# The listeners


def _listeners(view: View) -> str:
    listeners = view.listeners
    rows = [_listener(one) for one in listeners[:_LISTENERS]]
    heads = ("Listener", "Health", "As of", "Running for", "Nodes", "Dumping", "Heard",
             "Rejected", "Counting", "Version")  # fmt: skip
    left = len(listeners) - _LISTENERS
    more = f'<p class="note">and {number(left)} more</p>' if left > 0 else ""
    return (
        '<section id="health"><h2>Listeners</h2>\n'
        + table("listeners", "Health of each listener", heads, rows, (3, 4, 5, 6, 7))
        + fresh("listeners-more", more)
        + others.listeners(view.around)
        + "</section>\n"
    )


def _listener(one: Heard) -> list[str]:
    status = one.status
    if status is None:
        return [name(one.name), '<b class="key failed"></b> never heard', *[""] * 8]
    bad = bool(one.troubles) or status.age > OLD
    return [
        name(one.name),
        f'<b class="key {"failed" if bad else "finished"}"></b> {"trouble" if bad else "well"}',
        f"{duration(status.age)} ago",
        duration(status.up),
        number(status.nodes),
        number(status.dumping),
        number(status.counts.get(HEARD, 0)),
        number(sum(rejected(status.counts).values())),
        {"kernel": "by the kernel", "user": "by the daemon"}.get(status.counting, ""),
        text(status.version, 24),
    ]
