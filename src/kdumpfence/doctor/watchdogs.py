# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watchdogs that would reset the node while it dumps.

A hardware watchdog that sbd, systemd or another program has started goes on counting after a panic:
nobody feeds it until the crash kernel has loaded its driver, which then feeds it or stops it. The
software watchdog is a timer of the kernel that is gone. See sbd(8), systemd-system.conf(5), and
Documentation/ABI/testing/sysfs-class-watchdog in the kernel.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterator

from kdumpfence.daemon.timeout_advice import rounded_up
from kdumpfence.doctor import kdump, past_dumps
from kdumpfence.doctor.archive import Archive
from kdumpfence.doctor.finding import Finding, Unknown, ok, warning
from kdumpfence.doctor.kdump import Kdump, NoImage
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.settings import variables

_CLASS = "/sys/class/watchdog"
_SOFTWARE = "Software Watchdog"
_SBD = ("/etc/sysconfig/sbd", "/etc/default/sbd")
#: In their order of precedence: later ones win.
_SYSTEMD = ("/usr/lib/systemd", "/run/systemd", "/etc/systemd")


def watchdog_stopped(machine: Machine) -> Iterator[Finding]:
    """A watchdog that runs ends with the kernel, or the crash kernel takes it over."""
    running = False
    for name in machine.names(_CLASS):
        folder = f"{_CLASS}/{name}"
        if _line(machine, f"{folder}/state") != "active":
            continue
        running = True
        identity = _line(machine, f"{folder}/identity") or name
        if identity == _SOFTWARE:
            yield ok("watchdog", f"{name} ({identity}) ends with the kernel that panics")
            continue
        seconds = _line(machine, f"{folder}/timeout")
        within = f" within {seconds} s" if seconds else ""
        yield _hardware(machine, f"{name} ({identity})", within, _driver(machine, folder))
    if not running and not machine.exists(_CLASS):
        for who, within in _configured(machine):
            yield _hardware(machine, f"the hardware watchdog that {who} starts", within, "")


def _hardware(machine: Machine, name: str, within: str, driver: str) -> Finding:
    if driver and driver in _drivers_inside(machine):
        return ok("watchdog", f"{name}: the crash kernel's image has its driver {driver}")
    what = driver or "its driver"
    lacks = f"the crash kernel's image lacks {driver}" if driver else "the crash kernel drives it"
    unless = "" if driver else " unless "
    text = f"{name} goes on after a panic and resets the node{within}"
    text += f": {lacks}" if driver else f"{unless}{lacks}"
    remedy = {
        "rhel": f"write 'extra_modules {what}' into /etc/kdump.conf, then kdumpctl rebuild && "
        "kdumpctl reload",
        "suse": f"echo 'force_drivers+=\" {what} \"' >/etc/dracut.conf.d/kdumpfence-watchdog.conf, "
        "then mkdumprd -f && systemctl restart kdump",
        "debian": f"echo {what} >>/etc/initramfs-tools/modules, then "
        "/etc/kernel/postinst.d/kdump-tools $(uname -r) && systemctl restart kdump-tools",
    }.get(kdump.layout_of(machine), f"put {what} into the crash kernel's image, and load it there")
    return warning("watchdog", text, remedy)


def _driver(machine: Machine, folder: str) -> str:
    """The module that drives it, as files of modules are called; "" if there is none."""
    for path in (f"{folder}/device/driver/module", f"{folder}/device/driver"):
        real = machine.root.real_path(path)
        if real is not None:
            return posixpath.basename(real).replace("-", "_")
    return ""


def _drivers_inside(machine: Machine) -> set[str]:
    """The modules in the first image that the crash kernel has."""
    try:
        used = kdump.of(machine)
        image = _first_image(machine, used)
    except (Unknown, NoImage):
        return set()
    return image.modules() if image is not None else set()


def _first_image(machine: Machine, used: Kdump) -> Archive | None:
    if used.layout == "debian":
        given = variables(machine.read("/etc/default/kdump-tools")).get("KDUMP_INITRD")
        return kdump.read_image(machine, given or "/var/lib/kdump/initrd.img")
    found = kdump.contents(machine, used)
    return found if isinstance(found, Archive) else None


def _configured(machine: Machine) -> Iterator[tuple[str, str]]:
    """Who starts one, and its time, where no running kernel says it."""
    sbd = _sbd(machine)
    if sbd is not None and sbd.get("SBD_WATCHDOG_DEV") != "/dev/null":
        seconds = sbd.get("SBD_WATCHDOG_TIMEOUT") or "5"
        yield "sbd", f" within {seconds} s"
    value = _systemd(machine, "RuntimeWatchdogSec")
    if value and value not in ("0", "off", "infinity") and not re.fullmatch("0+[a-z]*", value):
        yield "systemd", f" within {value}{' s' if value.isdigit() else ''}"


def _sbd(machine: Machine) -> dict[str, str] | None:
    """Sbd's settings; None if it is not enabled."""
    if not machine.is_enabled("sbd.service"):
        return None
    return {key: value for path in _SBD for key, value in variables(machine.read(path)).items()}


def _systemd(machine: Machine, name: str) -> str:
    """A setting of system.conf and what comes after it; "" if nobody has set it."""
    paths = ["/etc/systemd/system.conf"]
    drop_ins = {
        one: f"{folder}/system.conf.d/{one}"
        for folder in _SYSTEMD
        for one in machine.names(f"{folder}/system.conf.d")
        if one.endswith(".conf")
    }
    paths += [drop_ins[one] for one in sorted(drop_ins)]
    found = [value for path in paths
             for value in re.findall(rf"^[ \t]*{name}[ \t]*=[ \t]*(\S*)", machine.read(path) or "",
                                     re.MULTILINE)]  # fmt: skip
    return found[-1] if found else ""


def sbd_crashdump(machine: Machine) -> Iterator[Finding]:
    """Sbd that is to crash a node gives it the time to dump."""
    sbd = _sbd(machine)
    if sbd is None:
        return
    action = sbd.get("SBD_TIMEOUT_ACTION", "")
    options = sbd.get("SBD_OPTS", "")
    if "crashdump" not in action:
        return
    time = re.findall(r"(?:^|\s)-C\s*([0-9]+)", options)
    dump = past_dumps.power(machine)
    if time and int(time[-1][:9]) and dump and int(time[-1][:9]) < dump:
        yield warning(
            "sbd crash dump",
            f"SBD_TIMEOUT_ACTION={action} with -C {time[-1]}: the watchdog resets the node while "
            f"it dumps; of the dumps recorded here one needed {rounded_up(dump)}",
            f"-C {math.ceil(dump)} or more in SBD_OPTS, then restart the cluster on this node",
        )
    elif time and not int(time[-1][:9]):
        yield warning(
            "sbd crash dump",
            f"SBD_TIMEOUT_ACTION={action} with -C 0: the watchdog resets the node while it dumps",
            "give -C the seconds of the longest dump in SBD_OPTS (kdumpfence history: POWER), then "
            "restart the cluster on this node",
        )
    else:
        text = f"-C {time[-1]}" if time else "sbd's own time"
        yield ok("sbd crash dump", f"SBD_TIMEOUT_ACTION={action}, {text} for the dump")


def _line(machine: Machine, path: str) -> str:
    return (machine.read(path) or "").strip()


CHECKS = (watchdog_stopped, sbd_crashdump)
