# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether something in what the crash kernel boots starts the sender."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kdumpfence.doctor.archive import Archive
from kdumpfence.doctor.finding import Finding, fails, ok, warning
from kdumpfence.doctor.image import SENDER, Boots, boots, installing
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.layouts import HOME
from kdumpfence.install.sender_arguments import SUSE, SUSE_SCRIPTS, SUSE_SENDER

_STARTER = f"{HOME}/start-sender"
_UNIT = "kdumpfence-send.service"
_WANTS = f"/etc/systemd/system/kdump-tools-dump.service.wants/{_UNIT}"
_INIT_TOP = "/scripts/init-top"
_HOOK = re.compile(r".*/hooks/cmdline/00-kdumpfence\.sh")


def sender_started(machine: Machine) -> Iterator[Finding]:
    """Something starts it."""
    known = boots(machine)
    if known is None or not known.sender:
        return
    check, used, contents = "sender started", known.kdump, known.contents
    if not isinstance(contents, Archive):
        unit = machine.root.find(f"/etc/systemd/system/{_UNIT}")
        if unit is not None and unit.content == "/dev/null":
            text = f"{_UNIT} is masked"
            yield fails(check, text, f"systemctl unmask {_UNIT}, then kdumpfence install-sender")
        elif contents.real_path(_WANTS) is None:
            text = f"{_UNIT} is not enabled for kdump-tools-dump.service"
            yield fails(check, text, "kdumpfence install-sender")
        else:
            yield ok(check, f"{_UNIT} is wanted by kdump-tools-dump.service")
        return
    if known.sender != SENDER:
        yield from _started_by_others(known)
        return
    if used.layout == "initramfs-tools":
        place, names = f"{_INIT_TOP}/kdumpfence", [f"{_INIT_TOP}/kdumpfence"]
        order = contents.read(f"{_INIT_TOP}/ORDER")
        if order is not None and b"init-top/kdumpfence" not in order:
            names = []
    else:
        place, names = "hooks/cmdline/00-kdumpfence.sh", list(filter(_HOOK.match, contents.paths()))
    for path in (_STARTER, *names):
        if not (contents.mode(path) or 0) & 0o111:
            yield fails(check, f"{path} is missing or not executable in the image", used.rebuild)
            return
    if not names:
        yield fails(check, f"nothing in the image starts it: no {place}", installing(used))
        return
    yield ok(check, names[0])


def _started_by_others(known: Boots) -> Iterator[Finding]:
    check, used = "sender started", known.kdump
    if used.layout == "rhel":
        yield warning(
            check,
            "kdump-utils starts it when all networks are up and the dump's file system is mounted",
            installing(used),
        )
        return
    scripts = [
        name for name in SUSE_SCRIPTS if re.search(rf"^{name}=.*{SUSE_SENDER}", known.text(SUSE),
                                                   re.MULTILINE)
    ]  # fmt: skip
    if scripts:
        yield ok(check, f"by {scripts[0]} in {SUSE}")
    else:
        text = f"no script in the image's {SUSE} names {SUSE_SENDER}"
        yield fails(check, text, installing(used))


CHECKS = (sender_started,)
