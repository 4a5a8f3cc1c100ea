# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether an image was made after the last change of what went into it.

Where the image has a copy of a file, the copy decides; else the times of the files do.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdumpfence.doctor import kdump
from kdumpfence.doctor.archive import Archive
from kdumpfence.doctor.finding import Finding, Unknown, ok, warning
from kdumpfence.doctor.image import Boots, boots
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.layouts import HOME, NODE_KEY, NODES, THIS_NODE
from kdumpfence.install.sender_arguments import KDUMP_CONF, SUSE

_FILES = (
    *(f"{HOME}/{name}" for name in ("fence_kdump_send", "start-sender", "tell-end")),
    *(NODES, THIS_NODE, NODE_KEY, "/etc/hosts"),
)
#: What else each kdump puts into its image.
_MORE = {"rhel": (KDUMP_CONF, "/etc/sysconfig/fence_kdump"), "suse": (SUSE,)}
_NETWORK = (
    "/etc/NetworkManager/system-connections",
    "/etc/sysconfig/network",
    "/etc/sysconfig/network-scripts",
    "/etc/systemd/network",
    "/etc/wicked/ifconfig",
)
_SHOWN = 3


def image_current(machine: Machine) -> Iterator[Finding]:
    """Nothing of it was changed since."""
    known = boots(machine)
    if known is None or not isinstance(known.contents, Archive) or not known.sender:
        return
    made = machine.changed(kdump.image_path(machine, known.kdump))
    newer = [path for path in _paths(machine, known) if _is_newer(machine, known, path, made)]
    if not newer:
        yield ok("image current", "newer than what it was made from")
        return
    more = f" and {len(newer) - _SHOWN} more" if newer[_SHOWN:] else ""
    yield warning(
        "image current",
        f"older than {', '.join(newer[:_SHOWN])}{more}",
        known.kdump.rebuild,
    )


def _paths(machine: Machine, known: Boots) -> Iterator[str]:
    yield from (*_FILES, *_MORE.get(known.kdump.layout, ()))
    if known.kdump.layout != "initramfs-tools":  # which takes in no network but that of ip=
        for folder in _NETWORK:
            for name in machine.names(folder):
                yield f"{folder}/{name}"


def _is_newer(machine: Machine, known: Boots, path: str, made: float | None) -> bool:
    changed = machine.changed(path)
    if changed is None or made is None or changed <= made:
        return False
    inside = known.contents.read(path)
    try:
        return inside is None or inside != machine.bytes_of(path)
    except Unknown:  # what only root may read
        return True


def loaded_image(machine: Machine) -> Iterator[Finding]:
    """The crash kernel was loaded after its image was made."""
    known = boots(machine)
    service = known.kdump.service if known else ""
    if known is None or not service or not machine.runs or machine.image:
        return
    path = _loaded_from(machine, known)
    made = machine.changed(path) if path else None
    loaded = _started(machine, service)
    if made is None or loaded is None:
        return
    check = "image loaded"
    if made <= loaded:
        yield ok(check, f"{service} was started after {path} was made")
    else:
        yield warning(
            check,
            f"{path} is newer than the start of {service}: the crash kernel in memory has the "
            "image before, unless it was loaded by hand since",
            f"systemctl restart {service}",
        )


def _loaded_from(machine: Machine, known: Boots) -> str:
    if known.kdump.layout != "debian":
        return kdump.image_path(machine, known.kdump)
    path = "/var/lib/kdump/initrd.img"
    return path if machine.exists(path) else ""


def _started(machine: Machine, service: str) -> float | None:
    """When the service was started (Unix time); None if it is not known."""
    said = machine.ask("systemctl", "show", "-p", "ActiveEnterTimestampMonotonic", service)
    number = said.stdout.strip().partition("=")[2]
    boot = [
        line.split()[1]
        for line in (machine.read("/proc/stat") or "").splitlines()
        if line.startswith("btime ")
    ]
    if not (number.isdigit() and int(number) and boot):
        return None
    return int(boot[0]) + int(number) / 1e6


CHECKS = (image_current, loaded_image)
