# SPDX-License-Identifier: LGPL-2.1-or-later
"""All checks, by the part of the set-up that they look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kdumpfence.doctor import (
    agent,
    authentication,
    believed,
    cluster,
    confinement,
    crash_kernel,
    elsewhere,
    fencing_time,
    image,
    image_age,
    image_key,
    image_network,
    image_start,
    installed,
    levels,
    listeners,
    node_names,
    nodes,
    past_dumps,
    waits,
    watchdogs,
    way,
)
from kdumpfence.doctor.finding import Finding, Unknown, unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.text import one_line

Check = Callable[[Machine], Iterable[Finding]]

#: The parts in the order of their table, and what is looked at there.
PARTS: dict[str, tuple[Check, ...]] = {
    "crash kernel": (*crash_kernel.CHECKS, *watchdogs.CHECKS),
    "image": (
        *installed.CHECKS,
        *image.CHECKS,
        *image_start.CHECKS,
        *image_key.CHECKS,
        *image_age.CHECKS,
        *image_network.CHECKS,
    ),
    "nodes": (*nodes.CHECKS, *node_names.CHECKS, *believed.CHECKS),
    "way": way.CHECKS,
    "cluster": (
        *cluster.CHECKS,
        *levels.CHECKS,
        *waits.CHECKS,
        *fencing_time.CHECKS,
        *past_dumps.CHECKS,
        *authentication.CHECKS,
        *listeners.CHECKS,
        *elsewhere.CLUSTER_CHECKS,
    ),
    "agent": (*agent.CHECKS, *confinement.CHECKS, *elsewhere.AGENT_CHECKS),
}


#: What is said of a check that fails for no reason of the machine.
FAULT = "a fault in this program, please report it"


def examine(machine: Machine, parts: Iterable[str] = tuple(PARTS)) -> dict[str, list[Finding]]:
    """What all checks of these parts find. A check that fails costs no other one."""
    return {part: [one for check in PARTS[part] for one in _run(check, machine)] for part in parts}


def _run(check: Check, machine: Machine) -> list[Finding]:
    found: list[Finding] = []
    name = check.__name__.lstrip("_").replace("_", " ")
    try:
        for one in check(machine):
            found.append(one)
    except Unknown as error:
        found.append(unknown(name, str(error)))
    except OSError as error:
        found.append(unknown(name, f"{error.filename or ''} {error.strerror or error}".strip()))
    except Exception as error:  # a fault of ours, which is not to cost what the others find
        what = one_line(f"{type(error).__name__}: {error}")
        found.append(unknown(name, f"{FAULT}: {what}"))
    return found
