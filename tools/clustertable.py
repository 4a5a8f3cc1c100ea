# SPDX-License-Identifier: LGPL-2.1-or-later
"""Play tests/system/cluster with both agents, for the table of docs/cluster-tests.md.

    python -m tools.clustertable [--print] [PLAN...]

Real Pacemaker clusters, a few at a time; six minutes. Two columns of the table are of this
system's Pacemaker and written anew, the others stay as they are; if plans are named, so do the
rows of all others. With --print the table goes to stdout and the page stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.support import debroot
from tests.support.debian import NotAvailable
from tests.system.cluster import debian_root, fence_agents, machine
from tests.system.cluster.pcs_and_crmsh import HowTo
from tests.system.cluster.plans import PLANS, Courses
from tests.system.cluster.scenarios import Failure, Outcome
from tools import markedtable

PAGE = markedtable.ROOT / "docs" / "cluster-tests.md"
AGENTS = {"stock": "stock", "ours": "kdumpfence"}
AT_ONCE = 5

#: Plan and scenario, with what the table calls it.
ROWS = {
    ("pcs", "pcs"): "one panics; the usual pcs commands, no level 2",
    ("crmsh", "crmsh"): "the same with crmsh",
    ("waits", "panic"): "one panics",
    ("waits", "silence"): "one dies in silence",
    ("harm", "leader"): "the DC panics",
    ("waits", "late"): "the message comes 7 s after the agent's start",
    ("waits", "just in time"): "it comes 1.5 s before the agent's end",
    ("five", "two, one device"): "two of five panic, one device, no limit",
    ("five", "two, one device, default limit"): "the same, `pcmk_action_limit` not set",
    ("five", "two, a device each"): "the same, a device a node",
    ("rings", "second ring"): "the first network is dead",
    ("harm", "busy"): "busy nodes, flooded port",
    ("mixed", "failed stop"): "a stop fails on a node that is alive",
    ("keys", "failed stop, key"): "the same, `auth=sha256`",
    ("keys", "names"): "one panics, names, `auth=sha256`",
    ("keys", "addresses"): "the same, addresses",
    ("keys", "rotation"): "the same, in a rotation",
    ("keys", "no key yet"): "signed messages, this device has `auth=none`",
    ("mixed", "other sender"): "one panics, the other pair's sender",
    ("lies", "spoofed"): "isolated but alive, messages with its address",
    ("lies", "spoofed, key"): "the same against `auth=sha256`",
    ("clocks", "killed"): "silence, Pacemaker kills the agent at 5 s",
    ("clocks", "after killed"): "one panics after that",
    ("clocks", "short stonith-timeout"): "`stonith-timeout` 4 s, `pcmk_off_timeout` 20 s",
    ("clocks", "stonith-timeout alone"): "silence, `stonith-timeout` 4 s alone",
}

PLAYED = list(dict.fromkeys(plan for plan, _ in ROWS))


def main() -> int:
    parser = markedtable.parser(__doc__)
    parser.add_argument("plans", nargs="*", metavar="PLAN", help=", ".join(PLAYED))
    options = parser.parse_args()
    if not set(options.plans) <= set(PLAYED):
        parser.error(f"plans are {', '.join(PLAYED)}")
    why = machine.why_not()
    if why is not None:
        print(why, file=sys.stderr)
        return 1
    try:
        debian_root.get()
        fence_agents.packages()
    except NotAvailable as reason:
        print(reason, file=sys.stderr)
        return 1
    return markedtable.show(options, PAGE, {"clustertable": table(options.plans or PLAYED)})


def table(plans: Sequence[str]) -> str:
    """Play these plans and write down what came of it, beside what is in the table of others."""
    said = debroot.run("chroot", str(debian_root.get()), "pacemakerd", "--version")
    version = said.split()[1]
    columns = {agent: f"{version}: {name}" for agent, name in AGENTS.items()}
    known = dict(_known())
    for agent, cells in _played(plans).items():
        known[columns[agent]] = known.get(columns[agent], {}) | cells
    order = sorted(known, key=lambda column: column.partition(":")[0])  # else as they came
    lines = [["", *order], ["---"] * (1 + len(order))]
    lines += [
        [title, *(known[column].get(title, "") for column in order)] for title in ROWS.values()
    ]
    return "\n".join(
        "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" for cells in lines
    )


def _known() -> list[tuple[str, dict[str, str]]]:
    """The columns that the page has, each with its cells by their rows' titles."""
    lines = markedtable.get(PAGE, "clustertable").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head, _, *rows = cells
    return [
        (column, {row[0]: row[number] for row in rows})
        for number, column in enumerate(head)
        if column
    ]


def _played(plans: Sequence[str]) -> dict[str, dict[str, str]]:
    """Each agent's cells, by their rows' titles."""
    courses = Courses([(plan, agent) for plan in plans for agent in PLANS[plan].agents], AT_ONCE)
    cells: dict[str, dict[str, str]] = {agent: {} for agent in AGENTS}
    try:
        for (plan, scenario), title in ROWS.items():
            for agent in PLANS[plan].agents if plan in plans else ():
                print(f"{agent}: {title}", file=sys.stderr)
                try:
                    cells[agent][title] = cell(courses.result(plan, agent, scenario))
                except Failure as failure:
                    print(failure, file=sys.stderr)
                    cells[agent][title] = "could not be played"
    finally:
        courses.stop()
    return cells


def cell(result: HowTo | Outcome) -> str:
    """By what each victim was fenced, and when; how often the power device was used."""
    outcome = result.word_for_word if isinstance(result, HowTo) else result
    assert outcome is not None
    ways = []
    for victim, seconds in sorted(outcome.seconds.items(), key=lambda item: item[1]):
        succeeded = [one for one in outcome.tried[victim] if one.endswith(": 0")]
        way = "power" if any(one.startswith("power") for one in succeeded) else "kdump"
        ways.append(f"{way if succeeded else 'nobody'}, {seconds:.0f} s")
    by_power = sum(way.startswith("power") for way in ways)
    used = sum(outcome.power.values())
    return "; ".join(ways) + (f" (power used {used} times)" if used != by_power else "")


if __name__ == "__main__":
    sys.exit(main())
