# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent that Pacemaker would run on this node, and who else wants its port."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kdumpfence._version import __version__
from kdumpfence.addresses import is_meant_as_address
from kdumpfence.doctor import cib, listeners
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.agent_files import AGENT, CORE
from kdumpfence.listener import sock_diag
from kdumpfence.text import one_line
from kdumpfence.wire import PORT

_INSTALL = "kdumpfence install-agent"


def agent(machine: Machine) -> Iterator[Finding]:
    """It is this project's, of this version, with the compiled core."""
    program = machine.bytes_of(AGENT)
    if program is None:
        yield fails("agent", f"no {AGENT}: Pacemaker cannot ask whether a node dumps", _INSTALL)
        return
    if b"kdumpfence" not in program:
        yield from _stock(machine)
        return
    version, core = _asked(machine) if machine.runs else _read(machine, program)
    if version != __version__:
        yield warning(
            "agent version",
            f"{AGENT} is kdumpfence {version or 'of an unknown version'}, this is {__version__}",
            _INSTALL,
        )
    if core != "compiled":
        yield warning(
            "agent core",
            f"{AGENT} runs on the pure core, more slowly: its compiled one is not for the "
            "system's Python",
            f"install the package, or the wheel, for the system's Python; then {_INSTALL}",
        )
    if version == __version__ and core == "compiled":
        yield ok("agent", f"kdumpfence {version}, compiled core")


def _asked(machine: Machine) -> tuple[str, str]:
    """Version and core, as it says them. Raises Unknown."""
    done = machine.ask(AGENT, "-V")
    found = re.search(r"fence_kdump (\S+) \(kdumpfence, (\w+) core\)", done.stdout)
    if found is None:
        last = (done.stderr or done.stdout).strip().split("\n")[-1]
        raise Unknown(f"{AGENT} -V says {one_line(last)[:200] or 'nothing'}")
    return found[1], found[2]


def _read(machine: Machine, program: bytes) -> tuple[str, str]:
    """The same, as its files have it."""
    found = re.search(rb'sys\.path\.insert\(0, "([^"]+)"\)', program)
    folder = f"{found[1].decode(errors='replace')}/kdumpfence" if found else ""
    text = machine.read(f"{folder}/_version.py") or "" if found else ""
    version = re.search(r'__version__ = "([^"]+)"', text)
    has_core = found and any(name.startswith(f"{CORE}.") for name in machine.names(folder))
    return version[1] if version else "", "compiled" if has_core else "pure"


def _stock(machine: Machine) -> Iterator[Finding]:
    """What the stock agent cannot do of what the cluster asks of it."""
    impossible = []
    try:
        its = cib.read(machine)
    except Unknown:
        its = None
    for device in its.kdump if its else ():
        parameters = device.parameters
        if parameters.get("auth", "none").strip().lower() != "none":
            impossible.append(f"{device.name} has auth={parameters['auth']}")
        if listeners.place(device):
            impossible.append(f"{device.name} has listener={listeners.place(device)}")
        aliases = device.aliases(its.version) if its else {}
        in_map = [part for text in aliases.values() for part in text.split(",")]
        if any(map(is_meant_as_address, in_map)):
            impossible.append(f"{device.name} has addresses in pcmk_host_map")
    if impossible:
        yield fails(
            "agent",
            f"{AGENT} is the stock agent, which ignores that {joined(impossible)}",
            _INSTALL,
        )
    else:
        yield warning(
            "agent",
            f"{AGENT} is the stock agent: it hears one node at a time, and asks nobody",
            _INSTALL,
        )


def port(machine: Machine) -> Iterator[Finding]:
    """Nobody else holds the port, if somebody listens here."""
    if not machine.runs or listeners.only_elsewhere(machine):
        return
    found = sock_diag.holders(PORT)
    named = sock_diag.processes({one.inode for one in found})
    strangers = set()
    for one in found:
        its = named.get(one.inode, [])
        if not any(map(_is_ours, its)):
            strangers.add(its[0].text if its else f"a process of user {one.uid}")
    if strangers:
        yield warning(
            "port",
            f"{joined(sorted(strangers))} holds {PORT}/udp: neither kdumpfenced nor a "
            "stock agent can listen beside it",
            f"stop that program, or give it another port; ss -ulpn 'sport = {PORT}'",
        )
    else:
        yield ok("port", f"{PORT}/udp is {'kdumpfence' if found else 'nobody'}'s")


def _is_ours(process: sock_diag.Process) -> bool:
    """Whether it belongs to this project, or is the service manager, with kdumpfenced's socket.

    A stock agent is no program of Python. A folder may be called like this project.
    """
    words = [word.rpartition(b"/")[2] for word in process.command.split(b"\0")]
    by_python = b"python" in words[0]
    return process.number == 1 or any(
        word.startswith(b"kdumpfence") or (by_python and word.startswith(b"fence_kdump"))
        for word in words
    )


CHECKS = (agent, port)
