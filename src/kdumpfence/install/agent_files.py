# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of this package is the agent, and where it is put so that a cluster can run it.

The modules are copied, since this package may live in an environment that hacluster cannot
read, or that is gone tomorrow. Their directory is named after their content, and the script
names the directory: it alone decides, in one moment, whether the old agent runs or the new one.
The core in plain Python is always among them, so the agent outlives the arrival of a newer Python.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from kdumpfence.install import layouts
from kdumpfence.install.layouts import HOME, Item, Layout
from kdumpfence.install.sysroot import Sysroot
from kdumpfence.install.system_python import SystemPython

AGENT = "/usr/sbin/fence_kdump"
#: Where packages have the modules; an agent that uses these belongs to a package.
PACKAGED = f"{HOME}/modules"
#: Where those of 0.1.0 had them.
_EARLIER = f"{HOME}/python"
TEMPLATE = "common/fence_kdump"

MODULES = (
    *("__init__", "_purewire", "_version", "addresses", "cmdline", "crashkernel", "filters"),
    *("keys", "links", "log", "own_addresses", "signals", "sockets", "text", "unpatched"),
    *("wire", "agent/__init__", "agent/asking", "agent/daemon_link", "agent/daemon_wait"),
    *("agent/daemon_word", "agent/decision", "agent/main", "agent/metadata", "agent/options"),
    *("agent/signed", "agent/sockets", "agent/validate"),
)
CORE = "_kdumpwire"

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_AFTERWARDS = (
    "now check that the cluster can use it: runuser -u hacluster -- fence_kdump -o metadata; and "
    "run this again after each update of fence-agents, which puts the stock agent back"
)


def is_packaged(root: Sysroot) -> bool:
    """Whether the agent there is that of a package of this project."""
    script = root.read(AGENT) or b""
    return any(f'"{place}"'.encode() in script for place in (PACKAGED, _EARLIER))


def layout(python: SystemPython | None, say: Callable[[str], None] = lambda _: None) -> Layout:
    """What is put where for that Python; without one, nothing, which does for a removal."""
    items = [] if python is None else _items(python, say)
    return Layout("agent", "the agent", tuple(items), "", _AFTERWARDS)


def _items(python: SystemPython, say: Callable[[str], None]) -> list[Item]:
    files = {f"{name}.py": read_module(f"{name}.py") for name in MODULES}
    core = _core(python, say)
    digest = hashlib.sha256(python.tag.encode())
    for name, content in sorted({**files, **core}.items()):
        digest.update(b"%s %d\n" % (name.encode(), len(content)) + content)
    folder = f"{HOME}/agent-{digest.hexdigest()[:12]}"
    sources = {f"{folder}/kdumpfence/{name}": content for name, content in files.items()}
    script = layouts.data(TEMPLATE).replace(PACKAGED.encode(), folder.encode())
    return [
        *(Item(path, content=content) for path, content in sources.items()),
        *(Item(f"{folder}/kdumpfence/{name}", mode=0o755, content=core[name]) for name in core),
        # Python does not promise to compile to the same bytes twice.
        *(
            Item(path, only_if_missing=True, content=content)
            for path, content in python.bytecode(sources).items()
        ),
        Item(AGENT, mode=0o755, content=script),
    ]


def _core(python: SystemPython, say: Callable[[str], None]) -> dict[str, bytes]:
    """The compiled core, if there is one for that Python."""
    names = [name for name in os.listdir(_PACKAGE) if name.startswith(f"{CORE}.")]
    cores = {name: read_module(name) for name in sorted(names) if name.endswith(".so")}
    fitting = {name: cores[name] for name in cores if python.fits(name, cores[name])}
    if fitting:
        say(f"with the compiled core, for Python {python.version[0]}.{python.version[1]}")
        return fitting
    has = f"is for {', '.join(cores)}" if cores else "was not built"
    say(
        f"with the pure core (same behaviour, slower): the system has Python {python.tag}, "
        f"and this installation's compiled core {has}"
    )
    return {}


def read_module(name: str) -> bytes:
    """A file of this package."""
    with open(os.path.join(_PACKAGE, name), "rb") as file:
        return file.read()
