# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced at its greatest size, for the tables of docs/scale.md.

    python -m tools.scale [--nodes N] [--rounds N] [--asked] [--print]

A hundred thousand nodes panic within a second and repeat for a minute, in two rhythms, with and
without a flood beside them; programs ask for nodes and follow events meanwhile; a day passes in
virtual time; kdumpfenced is killed a hundred times; and three of them share a database while all of
that is killed and cut off. With --asked only the second of these. Fourteen minutes; root, for a
deep queue. With --print the tables go to stdout and the page stays as it is. The exit status is 1
if anything was lost, or told too late.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from bench import machine
from tests.database import chaos
from tests.support.postgres_cluster import initdb
from tests.system.scale import asking, day
from tests.system.scale.play import Outcome, Plan, play, quantile
from tests.system.scale.test_day import hours
from tools import markedtable
from tools.markedtable import ROOT

PAGE = ROOT / "docs" / "scale.md"
KILLED = "tests/daemon/test_killed.py"
KILLS = 100

#: What happens to three listeners and their database; seconds that it is late, or hangs.
FAULTS = 20
LATE = 5.0

#: Seconds within which a status is to be answered.
PROMPT = 0.1

#: Seconds that an answer may be old. The daemon publishes one four times a second, if the disk
#: that has to confirm what is told is not busy.
STALE = 3.0

#: Seconds within which a node that began to dump is to be seen, and questions a second of which
#: 99 in 100 are to be answered within so many seconds.
VISIBLE = 0.5
RATE = 10_000
ANSWERED = 0.002

#: Nodes that begin to dump within a millisecond.
AT_ONCE = 2000

#: Nodes in the virtual day.
DAY_NODES = 1000


def plans(nodes: int, rounds: int) -> dict[str, Plan]:
    """What is played, by its title."""
    fast = Plan(nodes, rounds)
    slow = Plan(nodes, max(2, rounds // 10), interval=10.0, silence=25.0)
    return {
        "every second": fast,
        "every second, each message read": Plan(nodes, rounds, counting="user"),
        "every 10 s": slow,
        "every second, flood": Plan(nodes, rounds, flood=True),
        "every 10 s, flood": Plan(nodes, slow.rounds, interval=10.0, silence=25.0, flood=True),
        "every second, queue of 208 KiB": Plan(nodes, rounds // 3, queue="208K"),
    }


def _milliseconds(times: list[float]) -> str:
    if not times:
        return "none"
    return " / ".join(f"{1e3 * quantile(times, share):.1f}" for share in (0.5, 0.99, 1)) + " ms"


def _mebibytes(number: float) -> str:
    return f"{number / 2**20:.0f} MiB"


def _rejected(outcome: Outcome) -> int:
    return sum(
        number for name, number in outcome.counts.items() if name not in ("accepted", "unread")
    )


ROWS: dict[str, Callable[[Outcome], str]] = {
    "who counts repeated messages": lambda o: o.counting,
    "messages sent": lambda o: f"{o.sent:,}",
    "rubbish sent beside them": lambda o: f"{o.rubbish:,}" if o.plan.flood else "",
    "rubbish counted by reason": lambda o: f"{_rejected(o):,}" if o.plan.flood else "",
    "dropped by the kernel, as the daemon says": lambda o: f"{o.counts['unread']:,}",
    "messages lost": lambda o: f"{o.sent - o.counts['accepted']:,}",
    "**nodes that the history lacks**": lambda o: f"**{o.missing}**",
    "nodes twice in it, or with a wrong address": lambda o: f"{o.twice + o.elsewhere}",
    "dumps in it with a wrong number of messages": lambda o: f"{o.miscounted:,}",
    "the most that a status told of": lambda o: f"{o.reported:,}",
    "all told of, after the first message": lambda o: f"{o.reported_after:.1f} s",
    "told that all are silent, after the last one": lambda o: (
        f"{o.silent_after:.1f} s, of which {o.plan.silence:.0f} s are the setting"
    ),
    "questions for the status; without an answer": lambda o: (
        f"{len(o.answers) + o.unanswered}; {o.unanswered}"
    ),
    "**answer: median / 99 % / worst**": lambda o: f"**{_milliseconds(o.answers)}**",
    "how old an answer was, at most": lambda o: f"{max(o.ages):.1f} s",
    "beside it, a process that only answers": lambda o: _milliseconds(o.echoes),
    "a page of metrics, worst": lambda o: f"{1e3 * max(o.pages, default=0):.0f} ms",
    "memory before": lambda o: _mebibytes(o.memory_before),
    "memory 15 s after the first message": lambda o: _mebibytes(o.memory_wave),
    "memory at half time": lambda o: _mebibytes(o.memory_half),
    "memory at the last message": lambda o: _mebibytes(o.memory_last),
    "memory at worst": lambda o: _mebibytes(o.memory_peak),
    "memory when all are silent": lambda o: _mebibytes(o.memory_end),
    "processor, of one core": lambda o: f"{o.processor / o.seconds:.0%}",
    "processor, busiest second": lambda o: f"{o.busiest:.0%}",
    "the player was late by at most": lambda o: f"{o.late:.2f} s",
    "history on disk": lambda o: f"{o.disk / 2**20:.1f} MiB",
}


def faults(outcome: Outcome) -> list[str]:
    """What did not hold. What the kernel dropped is no fault of a queue that is too small."""
    found = []
    for what in ("missing", "twice", "elsewhere", "strangers", "not_over", "unanswered"):
        if getattr(outcome, what):
            found.append(f"{what}: {getattr(outcome, what):,}")
    deep = outcome.plan.queue == Plan.queue
    if deep and outcome.counts["accepted"] != outcome.sent:
        found.append(f"messages lost: {outcome.sent - outcome.counts['accepted']:,}")
    if outcome.recorded != outcome.counts["accepted"]:
        found.append(
            f"{outcome.recorded:,} messages recorded, {outcome.counts['accepted']:,} heard"
        )
    if deep and _rejected(outcome) != outcome.rubbish:
        found.append(f"rubbish counted: {_rejected(outcome):,} of {outcome.rubbish:,}")
    if max(outcome.answers, default=PROMPT) >= PROMPT:
        slow = sum(one >= PROMPT for one in outcome.answers)
        found.append(f"{slow} answers took {PROMPT:g} s or longer")
    if max(outcome.ages, default=STALE) >= STALE:
        found.append(f"an answer was {max(outcome.ages, default=0):.1f} s old")
    if outcome.exit_status:
        found.append(f"exit status {outcome.exit_status}")
    return found


def table(outcomes: dict[str, Outcome]) -> str:
    """All of it, a column for each play."""
    lines = ["| | " + " | ".join(outcomes) + " |", "|---|" + "---:|" * len(outcomes)]
    for title, show in ROWS.items():
        lines.append(f"| {title} | " + " | ".join(map(show, outcomes.values())) + " |")
    return "\n".join(lines)


def kills() -> tuple[str, bool]:
    """Kill it a hundred times: what came of it, and whether it is well."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", KILLED, "-k", "however_often"]
            + ["--timeout", "600", "--junitxml", str(report)],
            cwd=ROOT,
            env={**os.environ, "KDUMPFENCE_KILLS": str(KILLS)},
            stdout=sys.stderr,
            check=False,
        )
        found = {one.get("name"): one.get("value") for one in ET.parse(report).iter("property")}
    lost = "**the test failed**" if ran.returncode else "none"
    return (
        f"| killed with kill -9 | {found.get('kills', '?')} times |\n"
        f"| dumps whose beginning the log had told | {found.get('logged', '?')} |\n"
        f"| dumps whose end it had told | {found.get('ended', '?')} |\n"
        f"| dumps that a status had shown | {found.get('shown', '?')} |\n"
        f"| of all these, not in the history | {lost} |",
        ran.returncode == 0,
    )


def _seen(seen: asking.Seen) -> str:
    return f"{seen.nodes - seen.missing:,}; {_milliseconds(seen.delays)}"


def asked(nodes: int) -> tuple[str, bool]:
    """Who asks and who follows: what came of it, and whether it is well."""
    plays = {}
    for counting in ("kernel", "user"):
        with tempfile.TemporaryDirectory() as folder:
            plays[counting] = asking.questions(Path(folder), nodes, RATE, 5.0, counting)
    well = all(
        one.dumping == one.number and one.most < ANSWERED
        for play in plays.values()
        for one in play.values()
    )
    lines = [
        "| answers a second; median / 99 % / worst; the asker's own lateness, 99 % "
        "| the kernel counts | the daemon counts |",
        "|---|---:|---:|",
    ]
    for way in plays["user"]:
        cells = " | ".join(
            f"{one.number / one.took:,.0f}; {1e3 * one.median:.1f} / {1e3 * one.most:.1f} / "
            f"{1e3 * one.worst:.1f} ms; {1e3 * one.late:.1f} ms"
            for one in (play[way] for play in plays.values())
        )
        lines.append(f"| {way} | {cells} |")
    lines.append("")
    lines.append(f"| seen; median / 99 % / worst | {AT_ONCE:,} at once | {nodes:,} in a second |")
    lines.append("|---|---:|---:|")
    for way in ("control socket, lines", "TCP, HTTP"):
        bursts = []
        for number, within in ((AT_ONCE, 0.001), (nodes, 1.0)):
            with tempfile.TemporaryDirectory() as folder, asking.running(Path(folder)) as daemon:
                bursts.append(asking.burst(daemon, daemon.places()[way], number, within))
        well = well and all(not one.missing and max(one.delays) < VISIBLE for one in bursts)
        lines.append(f"| events, {way} | {' | '.join(map(_seen, bursts))} |")
    with tempfile.TemporaryDirectory() as folder, asking.running(Path(folder)) as daemon:
        one = asking.polled(daemon, f"unix:{daemon.control}", AT_ONCE, 0.001)
    well = well and not one.missing and max(one.delays) < VISIBLE
    lines.append(f"| each asked for, control socket, lines | {_seen(one)} | |")
    return "\n".join(lines), well


def several(nodes: int) -> tuple[str, bool]:
    """Three listeners and a database among faults: what came of it, and whether it is well."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        initdb(folder / "template")
        plan = chaos.Plan(nodes, FAULTS, late=LATE, swallows=LATE)
        found = chaos.play(plan, folder, folder / "template")
    kinds = ", ".join(f"{kind.replace('_', ' ')} {n}" for kind, n in sorted(found.faults.items()))
    rows = {
        f"nodes; heard by one, two and three listeners: {nodes // 2:,}, "
        f"{nodes // 4:,} and {nodes // 4:,}": f"{nodes:,}",
        f"faults: {kinds}": f"{sum(found.faults.values())}",
        "reports in the database": f"{found.reports:,}",
        "dumps": f"{found.dumps:,}",
        "events": f"{found.events:,}",
        "of what the listeners recorded, missing, twice or contradicted": "; ".join(found.wrong)
        or "none",
        "longest answer of a listener to a status": f"{found.status:.2f} s",
        f"from the last message until the database had it all (silence: {chaos.SILENCE} s)": (
            f"{found.caught_up:.0f} s"
        ),
    }
    lines = [f"| {title} | {figure} |" for title, figure in rows.items()]
    return "\n".join(["| | |", "|---|---:|", *lines]), not found.wrong


def one_day() -> tuple[str, bool]:
    """A day in virtual time: what came of it, and whether it is well."""
    with tempfile.TemporaryDirectory() as folder:
        told = hours(Path(folder), DAY_NODES)
    grown = day.grown(told)
    early, late = told[5], told[-1]
    rows = {
        "dumps": ("dumps", "{:,}"),
        "under way": ("dumping", "{:,}"),
        "blocks of memory in use": ("blocks", "{:,}"),
        "resident memory, KiB": ("resident", "{:,}"),
        "history on disk, KiB": ("disk", "{:,}"),
        "open descriptors": ("descriptors", "{:,}"),
    }
    lines = ["| | after 6 hours | after 24 hours |", "|---|---:|---:|"]
    for title, (key, form) in rows.items():
        unit = 1024 if "KiB" in title else 1
        cells = (form.format(one[key] // unit) for one in (early, late))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines.append(f"| what grew | | {'; '.join(grown) or 'nothing'} |")
    return "\n".join(lines), not grown


def main() -> int:
    parser = markedtable.parser(__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=60, help="seconds that they repeat")
    parser.add_argument("--asked", action="store_true", help="only who asks and who follows")
    options = parser.parse_args()
    about = machine.in_a_line(machine.machine())
    of_asked, well = asked(options.nodes)
    print(of_asked, file=sys.stderr, flush=True)
    text = {"scale-asked": f"{options.nodes:,} nodes. {about}.\n\n{of_asked}"}
    if options.asked:
        return markedtable.show(options, PAGE, text) or int(not well)
    outcomes = {}
    for title, plan in plans(options.nodes, options.rounds).items():
        with tempfile.TemporaryDirectory() as folder:
            outcomes[title] = play(plan, Path(folder))
        found = faults(outcomes[title])
        well = well and not found
        print(f"{title}: {'; '.join(found) or 'all is well'}", file=sys.stderr, flush=True)
        print(table({title: outcomes[title]}), file=sys.stderr, flush=True)
    of_day, day_well = one_day()
    print(of_day, file=sys.stderr, flush=True)
    of_kills, kills_well = kills()
    print(of_kills, file=sys.stderr, flush=True)
    of_several, several_well = several(options.nodes)
    print(of_several, file=sys.stderr, flush=True)
    text.update(
        {
            "scale": f"{options.nodes:,} nodes. {about}.\n\n{table(outcomes)}",
            "scale-day": of_day,
            "scale-kills": f"| | |\n|---|---:|\n{of_kills}",
            "scale-several": of_several,
        }
    )
    shown = markedtable.show(options, PAGE, text)
    return shown or int(not (well and day_well and kills_well and several_well))


if __name__ == "__main__":
    sys.exit(main())
