# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether all devices believe the same, and can check it.

docs/operations.md, section 10.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdumpfence import keys
from kdumpfence.cmdline import OptionError
from kdumpfence.doctor.cluster import configured, joined, options
from kdumpfence.doctor.finding import Finding, fails, ok
from kdumpfence.doctor.machine import Machine
from kdumpfence.text import shown


def authentication(machine: Machine) -> Iterator[Finding]:
    """All devices believe the same, and those that want signatures have the key."""
    its, devices = configured(machine)
    ways: dict[tuple[str, str], list[str]] = {}
    for device in devices:
        try:
            asked = options(device, "node", "node")
        except OptionError:
            continue  # said by `waits`
        way = (asked.auth, asked.key_file if asked.auth != "none" else "")
        ways.setdefault(way, []).append(device.name)
    if len(ways) > 1:
        best = max(ways)
        texts = [f"{' '.join(way).strip()} ({joined(ways[way])})" for way in ways]
        way, (device_name, *_) = next((way, those) for way, those in ways.items() if way != best)
        at = 0 if way[0] != best[0] else 1
        yield fails(
            "authentication",
            f"devices differ: {joined(texts)}",
            its.shell.set(device_name, ("auth", "key_file")[at], best[at]),
        )
    unsound = False
    for auth, path in ways:
        why = _key_fault(machine, path) if auth != "none" else ""
        if why:
            unsound = True
            yield fails(
                "key file",
                f"{why}: with auth={auth} the agent fails at once here",
                "copy the file from a node where kdumpfence key show shows the cluster's key, with "
                "mode 0600; if none has it, kdumpfence key create on one",
            )
    if len(ways) == 1 and not unsound:
        ((auth, path),) = ways
        yield ok("authentication", f"auth={auth} {path}".strip())


def _key_fault(machine: Machine, path: str) -> str:
    """Why the agent cannot use this key file; "" if it can. Raises Unknown."""
    real = machine.root.real_path(path)
    if real is None:
        return f"no key file {shown(path)}"
    machine.bytes_of(path)  # Unknown, if this user may not read it
    try:
        found = keys.read(machine.root.outside(real))
    except keys.KeyFileError as error:
        return str(error)
    if found.node:
        return f"key file {shown(path)} is that of node {shown(found.node)}, not the cluster's"
    return ""


CHECKS = (authentication,)
