# SPDX-License-Identifier: LGPL-2.1-or-later
"""How figures are told: what is demanded of them, and the tables in Markdown."""

from __future__ import annotations

from bench.paired import Figure

#: How the bare loop waits beside which the kernel counts.
_LOOPS = ("sleeps", "rests", "turns")

#: What is demanded, by group, and the figures that each group must have to be complete.
DEMANDED = {
    "1 receive": (
        "Receiving",
        {"receive-1", "receive-1000", "receive-100000", "receive-cost"},
    ),
    "2 flood": ("The agent in a flood", {"flood-most", "flood-50000", "flood-10000"}),
    "3 validate": ("Validating", {"validate-valid"}),
    "4 send": ("Sending", {"send-10000", "send-sockets-native", "send-sockets-python"}),
    "5 latency": ("Start and answer of the agent", {"answer", "start", "start-signed"}),
    "6 memory": ("Memory", {"memory-100000", "memory-worst", "peak-waiting", "peak-flooded"}),
    "7 pure": (
        "Without the compiled core",
        {"compiled-1", "pure-1", "compiled-1000", "pure-1000"},
    ),
    "8 signed": ("Signed messages", {"signed-1", "signed-1000", "signed-100000"}),
    "9 kernel": (
        "Counting in the kernel",
        {
            *(f"kernel-{count}-{way}" for count in (1000, 100_000) for way in _LOOPS),
            *("kernel-counted-deep", "kernel-counted-default", "kernel-daemon"),
            *("kernel-first", "kernel-first-99", "kernel-first-busy"),
            *("kernel-memory", "kernel-memory-worst"),
        },
    ),
}


def missing(figures: list[Figure]) -> list[str]:
    """What is demanded and not among these."""
    groups = {one.group for one in figures if one.wanted}
    keys = {one.key for one in figures}
    found = [f"group {group!r}" for group in DEMANDED if group not in groups]
    for _, wanted in DEMANDED.values():
        found += sorted(wanted - keys)
    return found


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 0
    while abs(value) < 100 and digits < 4:
        value *= 10
        digits += 1
    return f"{round(value) / 10**digits:,.{digits}f}"


def quantity(value: float, unit: str) -> str:
    if unit.endswith("/s") and value >= 1e6:
        return f"{number(value / 1e6)} M"
    return number(value)


def target(one: Figure) -> str:
    """What is wanted of it, in words."""
    if not one.wanted:
        return ""
    if one.of == "ratio":
        return f"{one.wanted} {number(one.bound)}"
    more = " more" if one.of == "difference" else ""
    return f"{one.wanted} {number(one.bound)} {one.unit}{more}"


def verdict(one: Figure) -> str:
    """Whether it holds, and if not, by how much it falls short."""
    if one.holds is None:
        return ""
    if one.holds:
        return "holds"
    instead = f"{one.judged:.3g}" if one.of != "ratio" else f"{one.judged:.3f}"
    return f"**falls short**: {instead} instead of {number(one.bound)}"


def last_word(figures: list[Figure]) -> str:
    """Which fall short, a line each, and how many hold."""
    judged = [one for one in figures if one.holds is not None]
    short = [one for one in judged if not one.holds]
    lines = [f"{one.title}: {verdict(one).replace('*', '')}" for one in short]
    return "\n".join([*lines, f"{len(judged) - len(short)} of {len(judged)} hold"])


def table(figures: list[Figure]) -> str:
    """All of them, in the order of their groups, with their notes below."""
    lines = [
        "| | ours | its peer | ratio (quartiles) | wanted | |",
        "|---|---:|---:|---|---|---|",
    ]
    notes: list[str] = []
    group = ""
    for one in figures:
        if one.group != group:
            group = one.group
            title, _ = DEMANDED.get(group, (group[2:].capitalize(), set()))
            lines.append(f"| **{group[0]}. {title}** | | | | | |")
        mark = ""
        if one.note:
            notes.append(one.note)
            mark = f" <sup>{len(notes)}</sup>"
        lines.append(
            f"| {one.title}{mark} "
            f"| {quantity(one.ours.median, one.unit)} {one.unit} "
            f"| {quantity(one.peer.median, one.unit)}: {one.peer_name} "
            f"| {one.ratio.median:.3f} ({one.ratio.lower:.3f} to {one.ratio.upper:.3f}) "
            f"| {target(one)} | {verdict(one)} |"
        )
    lines += [""] * bool(notes)
    lines += [f"{at}. {note}" for at, note in enumerate(notes, 1)]
    return "\n".join(lines)


def titled(tables: dict[str, str]) -> str:
    """Further tables, each below its title."""
    return "\n\n".join(f"{title}:\n\n{body.strip()}" for title, body in tables.items())


def described(machine: dict[str, str]) -> str:
    """The machine, and whatever else a reader must know."""
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {machine[key]} |" for key in machine)])
