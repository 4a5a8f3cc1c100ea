# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the dumps that kdumpfenced recorded on this machine say about the set-up.

As much as `kdumpfence history` says, and no more: how long dumps took and how they ended, not how
long the agent has to wait for a first message.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from kdumpfence.daemon import timeout_advice
from kdumpfence.daemon.timeout_advice import NOTICED, rounded_up
from kdumpfence.doctor import cib, corosync, kdump
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.fencing_time import delay
from kdumpfence.doctor.finding import Finding, Unknown, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.listener.dumps import length
from kdumpfence.text import shown

if TYPE_CHECKING:
    from kdumpfence.daemon.history_reading import Past

#: Dumps that are looked at: as many as `kdumpfence history` takes for its figures.
_MOST = 100_000

_read: WeakKeyDictionary[Machine, list[Past]] = WeakKeyDictionary()


def recorded(machine: Machine) -> list[Past]:
    """All dumps, the newest first, read once a machine; none without a history. Raises Unknown."""
    if machine not in _read:
        try:  # an image's Python, or a small one, may lack SQLite
            from kdumpfence.daemon.history import PATH, History, HistoryError
        except ImportError as error:
            raise Unknown(f"the history of dumps: {error}") from None
        if not machine.exists(PATH):
            return []
        path = machine.root.outside(machine.root.real_path(PATH) or PATH)
        try:
            with History(path, writable=False) as opened:
                _read[machine] = opened.past(most=_MOST)
        except HistoryError as error:
            raise Unknown(str(error)) from None
    return _read[machine]


def power(machine: Machine) -> float | None:
    """For how many seconds power has to stay on after a first message; None: nobody knows."""
    try:
        found = recorded(machine)
    except Unknown:
        return None  # said by `past_dumps`
    return timeout_advice.lengths(found).power


def past_dumps(machine: Machine) -> Iterator[Finding]:
    """The last dump of each node did not fail, and could be heard."""
    found = recorded(machine)
    if not found:
        return
    last: dict[str, Past] = {}
    for dump in found:
        last.setdefault(dump.node, dump)
    failed = [shown(node) for node, dump in last.items() if dump.end == "failed"]
    if failed:
        yield warning(
            "past dumps",
            f"the last dump failed, as the node said: {joined(failed)}",
            "look for the reason there: the dump's disk, its room, the memory of the crash kernel; "
            "then crash it once more",
        )
    # A single message without an end may have been a dry run's.
    real = [dump for dump in last.values() if dump.messages > 1 or dump.end == "finished"]
    waits = _longest_delay(machine)
    needed = max(NOTICED, corosync.noticed(machine) or 0.0) + waits
    short = [dump for dump in real if timeout_advice.quick([dump], needed) and dump.end != "failed"]
    if short:
        nodes = joined(f"{shown(dump.node)} {math.ceil(length(dump))} s" for dump in short)
        yield warning(
            "short dumps",
            f"the last dump was over so soon after its first message: {nodes}; the agent may be "
            f"started only {rounded_up(needed)} after a crash, and then hears nothing",
            _remedy(machine, math.ceil(needed), waits),
        )
    if not failed and not short:
        figures = timeout_advice.lengths(found)
        longest = rounded_up(figures.longest or 0.0)
        yield ok(
            "past dumps",
            f"{len(found):,} of {len(last):,} nodes; the longest took {longest} (the agent's "
            "timeout runs to the first message only)",
        )


def _longest_delay(machine: Machine) -> float:
    """Seconds that Pacemaker waits before it asks a device of fence_kdump, at most."""
    try:
        its = cib.read(machine)
    except Unknown:
        return 0.0
    return max((delay(one, node) for one in its.kdump for node in its.nodes), default=0.0)


def _remedy(machine: Machine, seconds: int, waits: float) -> str:
    if waits:
        its = cib.read(machine)
        device, name = next(
            (one, name)
            for one in its.kdump
            for name in ("pcmk_delay_max", "pcmk_delay_base")
            if name in one.parameters
        )
        return f"delay the power device instead: {its.shell.unset(device.name, name)}"
    again = kdump.REBUILD[kdump.layout_of(machine) or "debian"]
    return {
        "rhel": f"a script that sleeps {seconds} s as kdump_post in /etc/kdump.conf; then {again}",
        "suse": f"KDUMP_POSTSCRIPT='sleep {seconds}' in /etc/sysconfig/kdump; then {again}",
    }.get(
        kdump.layout_of(machine),
        f"let what saves the dump wait for {seconds} s before it reboots the node",
    )


CHECKS = (past_dumps,)
