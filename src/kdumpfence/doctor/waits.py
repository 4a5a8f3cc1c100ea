# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the agent is given its time, once and for all nodes together.

docs/operations.md, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdumpfence.cmdline import OptionError
from kdumpfence.doctor import cib
from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.cluster import configured, joined, names, options
from kdumpfence.doctor.finding import Finding, fails, ok, warning
from kdumpfence.doctor.machine import Machine

#: Seconds that Pacemaker waits unless it is told otherwise.
_DEFAULT_WAIT = 60

#: Seconds by which the agent has to be earlier than that.
_MARGIN = 5

#: Nodes from which on two can crash together and be fenced by the others.
_SEVERAL = 3

#: Attempts that Pacemaker makes unless it is told otherwise.
_DEFAULT_RETRIES = "2"


def default_wait(its: Cib) -> float:
    """Seconds that Pacemaker gives a device that has no time of its own."""
    return cib.seconds(its.property_of("stonith-timeout") or "") or _DEFAULT_WAIT


def waits(machine: Machine) -> Iterator[Finding]:
    """The agent says no before Pacemaker kills it, and is not asked again."""
    its, devices = configured(machine)
    name = its.called("stonith-timeout")
    cluster_wide = default_wait(its)
    fine = []
    for device in devices:
        parameters = device.parameters
        given = parameters.get("pcmk_off_timeout")
        limit = cluster_wide if given is None else cib.seconds(given)
        where = f"pcmk_off_timeout={given}" if given else f"{name}={cluster_wide:g}"
        try:
            timeout = options(device, "node", "node").timeout
        except OptionError as error:
            yield fails(
                "agent options",
                f"{device.name}: the agent refuses {error}",
                f"{its.shell.set(device.name, 'NAME', 'VALUE')}, as fence_kdump(8) allows it",
            )
            continue
        faults = []
        if limit is None:
            faults.append(f"pcmk_off_timeout={given} is no time")
        elif timeout > limit - _MARGIN:
            why = f"timeout={timeout}, and after {limit:g} s ({where}) Pacemaker kills the agent"
            faults.append(f"{why}, which could not say no by itself")
        if faults:
            yield warning(
                "agent timeout",
                f"{device.name}: {faults[0]}",
                its.shell.set(device.name, "pcmk_off_timeout", f"{timeout + 10}s"),
            )
        retries = parameters.get("pcmk_off_retries", _DEFAULT_RETRIES)
        if retries.strip() != "1":
            yield warning(
                "agent retries",
                f"{device.name}: pcmk_off_retries={retries}: Pacemaker may run a failed agent "
                f"again, {timeout} s more until the power is cut",
                its.shell.set(device.name, "pcmk_off_retries", "1"),
            )
        elif not faults and limit is not None:
            fine.append(f"{device.name} {timeout} s of {limit:g} s")
    if fine:
        yield ok("agent timeout", joined(fine))


def at_once(machine: Machine) -> Iterator[Finding]:
    """Nodes that crash together are fenced together."""
    its, devices = configured(machine)
    nodes = names(machine, its)
    if not devices or len(nodes) < _SEVERAL:
        return
    found = []
    value = its.property_of("concurrent-fencing")
    if its.version < (3,) and not cib.is_true(value or "false"):
        found.append(
            warning(
                "fencing at once",
                f"concurrent-fencing={value or 'false'}: nodes that crash together are fenced one "
                "after the other",
                its.shell.set_property("concurrent-fencing", "true"),
            )
        )
    elif value is not None and not cib.is_true(value):
        found.append(
            warning(
                "fencing at once",
                f"concurrent-fencing={value}: nodes that crash together are fenced one after the "
                "other",
                its.shell.set_property("concurrent-fencing", "") + " # its default is true",
            )
        )
    for device in devices:
        several = [node for node in nodes if device.calls(node, its.version)]
        limit = device.parameters.get("pcmk_action_limit", "1")
        if len(several) > 1 and limit.strip() in ("0", "1"):
            found.append(
                warning(
                    "fencing at once",
                    f"{device.name}: pcmk_action_limit={limit}: it serves one of its "
                    f"{len(several)} nodes at a time",
                    its.shell.set(device.name, "pcmk_action_limit", "-1"),
                )
            )
    yield from found or [ok("fencing at once", "nodes that crash together do not wait")]


CHECKS = (
    waits,
    at_once,
)
