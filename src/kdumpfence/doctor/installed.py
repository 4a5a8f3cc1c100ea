# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether what install-sender put there is still there, and what it would say if it ran again."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from kdumpfence.doctor import kdump
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.kdump import Kdump
from kdumpfence.doctor.machine import Machine
from kdumpfence.install import InstallError, installer, native_sender
from kdumpfence.install.layouts import LAYOUTS
from kdumpfence.install.record import Record

_CHECK = "sender installed"
_AGAIN = "kdumpfence install-sender"
_STEP = re.compile(r"(?:put|update|keep|remove|restore) (.*)")
#: What kdump-utils starts by itself, of whatever package it is.
RHEL_SENDER = LAYOUTS["rhel"].items[0].path


def sender_installed(machine: Machine) -> Iterator[Finding]:
    """What `install-sender --dry-run` says."""
    used = kdump.of(machine)
    if not used.installed:
        if used.layout == "rhel" and machine.exists(RHEL_SENDER):
            yield warning(
                _CHECK,
                f"only {RHEL_SENDER}, which kdump-utils starts late, and not at all if the dump's "
                "file system is missing",
                _then(used),
            )
        else:
            yield fails(
                _CHECK,
                "nothing was installed by kdumpfence install-sender: the crash kernel has no "
                "sender that starts by itself",
                _then(used),
            )
        return
    for name in Record.load(machine.root).layouts:
        if name in LAYOUTS:
            yield from _dry_run(machine, Kdump(name, installed=True))


def _dry_run(machine: Machine, used: Kdump) -> Iterator[Finding]:
    layout, said = LAYOUTS[used.layout], list[str]()
    try:
        with open(native_sender.find(native_sender.is_static(machine.root, layout)), "rb") as file:
            sender = file.read()
        installer.install(machine.root, layout, sender, True, said.append)
    except native_sender.NotBuilt as error:
        raise Unknown(str(error)) from None
    except InstallError as error:
        if os.geteuid() and os.strerror(errno.EACCES) in str(error):
            raise Unknown(f"{error} (needs root)") from None
        yield fails(_CHECK, str(error), f"correct it, then {_then(used)}")
        return
    steps = [step[1].partition(" -> ")[0] for line in said for step in [_STEP.match(line)] if step]
    steps = [step for step in steps if not step.startswith("the existing file as ")]
    if steps:
        first = f"{steps[0]} and {len(steps) - 1} more" if steps[1:] else steps[0]
        yield warning(_CHECK, f"missing, changed or outdated: {first}", _then(used))
    else:
        yield ok(_CHECK, f"for {layout.title}")
    for line in said:
        if line.startswith("warning: "):
            yield warning("sender settings", line[9:], f"correct it, then {_then(used)}")
        elif "does not resolve now" in line:
            yield warning("nodes resolve", line, f"put it into /etc/hosts, then {_then(used)}")


def _then(used: Kdump) -> str:
    return _AGAIN if used.layout == "debian" else f"{_AGAIN} && {used.rebuild}"


CHECKS = (sender_installed,)
