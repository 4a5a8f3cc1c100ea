# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the image has the drivers of the interfaces that lead to the nodes, and a network.

kdump-tools boots the machine's own root, which has both.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from kdumpfence import addresses
from kdumpfence.cmdline import OptionError
from kdumpfence.doctor.archive import Archive
from kdumpfence.doctor.finding import Finding, fails, ok
from kdumpfence.doctor.image import Boots, boots
from kdumpfence.doctor.machine import Machine
from kdumpfence.sender import options

_NET = "/sys/class/net"
#: Above an interface that leads to a node there may be others: a VLAN on a bond on a bridge.
_MOST_INTERFACES = 64
_CMDLINE = re.compile(r"/etc/cmdline(?:\.d/[^/]+)?|/etc/conf\.d/.*")
_CONNECTION = re.compile(
    r"/(?:etc|run|usr/lib)/NetworkManager/system-connections/[^/]+"
    r"|/(?:etc|run)/systemd/network/[^/]+\.network"
)


def drivers_inside(machine: Machine) -> Iterator[Finding]:
    """The modules of the network cards that lead to the nodes."""
    known = boots(machine)
    if known is None or not isinstance(known.contents, Archive) or not machine.runs:
        return
    names = _interfaces(machine, known)
    modules = {
        module.replace("-", "_"): name for name in names for module in _modules(machine, name)
    }
    inside = known.contents.modules()
    missing = [module for module in modules if module not in inside]
    if missing:
        text = ", ".join(f"{module} of {modules[module]}" for module in missing)
        yield fails("drivers inside", f"the image lacks {text}", _adding(known, missing))
    elif modules:
        yield ok("drivers inside", ", ".join(f"{one} of {modules[one]}" for one in modules))


def network_set_up(machine: Machine) -> Iterator[Finding]:
    """Somebody brings the network up in the image of a distribution's kdump.

    Of an image of one's own only the crash kernel's command line says it, which nobody can read.
    """
    known = boots(machine)
    if known is None or not isinstance(known.contents, Archive) or not known.sender:
        return
    if known.kdump.layout not in ("rhel", "suse"):
        return
    for path in known.contents.paths():
        if _CONNECTION.fullmatch(path):
            yield ok("network set up", path)
            return
        if _CMDLINE.fullmatch(path) and re.search(r"\b(ip=|rd\.neednet)", known.text(path)):
            yield ok("network set up", path)
            return
    line = machine.read("/etc/sysconfig/kdump") or ""
    if re.search(r"^KDUMP_COMMANDLINE(_APPEND)?=.*\bip=", line, re.MULTILINE):
        yield ok("network set up", "by ip= on the crash kernel's command line")
        return
    remedy = f"name the nodes in fence_kdump_nodes of /etc/kdump.conf, then {known.kdump.rebuild}"
    if known.kdump.layout == "suse":
        remedy = (
            f"write KDUMP_NETCONFIG='auto:force' into /etc/sysconfig/kdump, then "
            f"{known.kdump.rebuild}"
        )
    text = "nothing in the image sets up a network: nobody is told"
    yield fails("network set up", text, remedy)


def _adding(known: Boots, modules: list[str]) -> str:
    """How such a module gets into the image."""
    names = " ".join(modules)
    where = {
        "rhel": f"write 'extra_modules {names}' into /etc/kdump.conf",
        "suse": f"echo 'add_drivers+=\" {names} \"' >/etc/dracut.conf.d/kdumpfence-drivers.conf",
        "initramfs-tools": f"write {names} into /etc/initramfs-tools/modules, a line each",
        "dracut": f"add --add-drivers '{names}' to dracut's options",
    }[known.kdump.layout]
    return f"{where}, then {known.kdump.rebuild}"


def _interfaces(machine: Machine, known: Boots) -> list[str]:
    """Those that lead to the nodes, and what they are made of."""
    try:
        nodes = options.sender_from_argv(known.words()).nodes
    except OptionError:
        return []
    found: list[str] = []
    for node in nodes:
        try:
            if not addresses.literal(node, addresses.FAMILIES["auto"]):
                continue
        except addresses.LookUpError:
            continue
        said = machine.ask("ip", "-o", "route", "get", node)
        found += re.findall(r" dev (\S+)", said.stdout)
    waiting, found = [name for name in found if name != "lo"], []
    while waiting and len(found) < _MOST_INTERFACES:
        name = waiting.pop(0)
        if name not in found and "/" not in name:
            found.append(name)
            waiting += [
                one[6:] for one in machine.names(f"{_NET}/{name}") if one.startswith("lower_")
            ]
    return found


def _modules(machine: Machine, name: str) -> Iterator[str]:
    """The modules of an interface; none if they are built into the kernel."""
    module = machine.root.real_path(f"{_NET}/{name}/device/driver/module")
    if module is not None:
        yield posixpath.basename(module)
    if machine.exists(f"{_NET}/{name}/bonding"):
        yield from _loadable(machine, "bonding")
    if machine.exists(f"{_NET}/{name}/bridge"):
        yield from _loadable(machine, "bridge")
    if machine.exists(f"/proc/net/vlan/{name}"):
        yield from _loadable(machine, "8021q")


def _loadable(machine: Machine, module: str) -> list[str]:
    """The module, unless it is built in: only then it has no state."""
    return [module] if machine.exists(f"/sys/module/{module}/initstate") else []


CHECKS = (drivers_inside, network_set_up)
