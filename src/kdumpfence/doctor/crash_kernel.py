# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a crash, or a hang, would lead to a crash kernel: now, and after the next boot.

What the settings mean is in the kernel's Documentation/admin-guide/sysctl/kernel.rst and
kernel-parameters.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kdumpfence.crashkernel import CrashKernel
from kdumpfence.doctor import kdump
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.settings import variables
from kdumpfence.install.layouts import LAYOUTS

_SYSCTL = "/etc/sysctl.d/90-kdump.conf"
_KDUMP_TOOLS = "/etc/default/kdump-tools"

_RESERVE = {
    "rhel": "kdumpctl reset-crashkernel, and reboot",
    "debian": "update-grub (kdump-tools adds crashkernel=), and reboot",
}
_RESERVE_ELSEWHERE = "give the kernel crashkernel=SIZE on its command line, and reboot"
_INSTALL = {
    "rhel": "dnf install kdump-utils (RHEL 9: kexec-tools)",
    "suse": "zypper install kdump",
    "debian": "apt-get install kdump-tools",
}


def crash_kernel_loaded(machine: Machine) -> Iterator[Finding]:
    """Memory is reserved, and a crash kernel in it: as the agent's monitor sees it."""
    if not machine.exists("/sys/kernel"):
        raise Unknown(f"{machine.root.outside('/sys')} is not that of a running system")
    seen = CrashKernel(machine.root.root)
    text = "; ".join(seen.lines)
    if seen.ready:
        yield ok("crash kernel loaded", text)
    elif "cannot load a crash kernel" in text:
        remedy = "boot a kernel that was built with CONFIG_CRASH_DUMP"
        yield fails("crash kernel loaded", text, remedy)
    elif "no memory is reserved" in text:
        remedy = _RESERVE.get(kdump.layout_of(machine), _RESERVE_ELSEWHERE)
        if "although" in text:
            remedy = "dmesg | grep -i crashkernel says why; a smaller SIZE, or SIZE,high, may fit"
        yield fails("crash kernel loaded", text, remedy)
    elif _number(machine, "kexec_load_disabled"):
        text += "; kernel.kexec_load_disabled forbids to load one until the next boot"
        remedy = "take kernel.kexec_load_disabled=1 out of /etc/sysctl.d, and reboot"
        yield fails("crash kernel loaded", text, remedy)
    else:
        service = kdump.SERVICES.get(kdump.layout_of(machine), "")
        remedy = f"systemctl restart {service}" if service else "load it by kexec -p"
        yield fails("crash kernel loaded", text, remedy)


def kdump_enabled(machine: Machine) -> Iterator[Finding]:
    """There will be a crash kernel after the next boot too."""
    layout = kdump.layout_of(machine)
    service = kdump.SERVICES.get(layout, "")
    if not service:
        return
    check, program = "kdump enabled", LAYOUTS[layout].kdump
    if not machine.exists(program):
        text = f"kdump is not installed: {machine.root.outside(program)} is missing"
        yield fails(check, text, _INSTALL[layout])
        return
    if service == "kdump-tools.service":
        settings = machine.read(_KDUMP_TOOLS)
        if settings is not None and variables(settings).get("USE_KDUMP", "0") in ("", "0"):
            yield fails(
                check,
                f"USE_KDUMP in {machine.root.outside(_KDUMP_TOOLS)} is not 1",
                f"write USE_KDUMP=1 into {_KDUMP_TOOLS}, and systemctl restart kdump-tools",
            )
            return
    if machine.is_enabled(service):
        yield ok(check, f"{service} is started at boot")
    else:
        text = f"{service} is not enabled: after the next boot there is no crash kernel"
        yield fails(check, text, f"systemctl enable {service}")


def panic_undisturbed(machine: Machine) -> Iterator[Finding]:
    """Nothing comes between a panic and the crash kernel."""
    name = "crash_kexec_post_notifiers"
    path = f"/sys/module/kernel/parameters/{name}"
    line = machine.read("/proc/cmdline") or ""
    found = re.findall(rf"(?:^|\s)(?:kernel\.)?{name}(?:=(\S*))?(?=\s|$)", line)
    asked = bool(found) and found[-1] not in ("0", "n", "N", "off")
    now = machine.read(path)
    check = "panic undisturbed"
    if (asked and now is None) or (now is not None and now.strip() == "Y"):
        if asked:
            yield warning(
                check,
                f"{name}: panic notifiers run before the crash kernel, and one that hangs costs "
                "the dump",
                f"take {name} off the kernel command line, and reboot",
            )
        else:
            yield ok(check, f"{name} was set by the kernel itself, as on Hyper-V")
    elif now is not None:
        yield ok(check, "the crash kernel comes first")


def oops_panics(machine: Machine) -> Iterator[Finding]:
    """A kernel that has failed does not go on."""
    if machine.read("/proc/sys/kernel/panic_on_oops") is None:
        return
    if _number(machine, "panic_on_oops"):
        yield ok("oops panics", "kernel.panic_on_oops=1")
    else:
        yield warning(
            "oops panics",
            "kernel.panic_on_oops=0: after an oops the node goes on half dead, without a dump",
            _set("kernel.panic_on_oops=1"),
        )


def hang_panics(machine: Machine) -> Iterator[Finding]:
    """A kernel that hangs panics before the cluster cuts its power."""
    names = ("hardlockup_panic", "softlockup_panic", "unknown_nmi_panic")
    if all(machine.read(f"/proc/sys/kernel/{name}") is None for name in names):
        return
    check = "hang panics"
    watched = _number(machine, "nmi_watchdog")
    hard = _number(machine, "hardlockup_panic")
    ways = [f"kernel.{name}=1" for name in names[1:] if _number(machine, name)]
    if hard and watched:
        ways.insert(0, "kernel.hardlockup_panic=1")
    if ways:
        yield ok(check, ", ".join(ways))
    elif watched:
        yield warning(
            check,
            "kernel.hardlockup_panic=0: a processor that hangs is reported, but nothing panics, "
            "and the power is cut without a dump",
            _set("kernel.hardlockup_panic=1"),
        )
    else:
        yield warning(
            check,
            "kernel.nmi_watchdog=0, and neither kernel.softlockup_panic nor "
            "kernel.unknown_nmi_panic is set: no hang is ever a panic",
            f"{_set('kernel.nmi_watchdog=1 kernel.hardlockup_panic=1')}; in a virtual machine "
            "without NMI watchdog kernel.softlockup_panic=1",
        )


def _number(machine: Machine, name: str) -> int:
    """A setting of the kernel, 0 if it is not there."""
    text = (machine.read(f"/proc/sys/kernel/{name}") or "").strip()
    return int(text) if re.fullmatch("-?[0-9]{1,9}", text) else 0


def _set(settings: str) -> str:
    """How to set them, now and after each boot."""
    lines = settings.replace(" ", "\\n")
    return f"printf '{lines}\\n' >>{_SYSCTL} && sysctl -p {_SYSCTL}"


CHECKS = (crash_kernel_loaded, kdump_enabled, panic_undisturbed, oops_panics, hang_panics)
