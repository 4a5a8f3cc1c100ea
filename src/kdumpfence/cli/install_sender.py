# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence install-sender: the native sender where the distribution's kdump looks for it."""

from __future__ import annotations

import argparse

from kdumpfence.cli import CommandError
from kdumpfence.cli.install_options import add_install_options, open_root, say
from kdumpfence.install import installer, layouts, native_sender
from kdumpfence.install.layouts import LAYOUTS, Layout
from kdumpfence.install.record import Record
from kdumpfence.install.sysroot import Sysroot

HELP = "put the native sender where this distribution's kdump looks for it"

INSTALLED = "installed"  # instead of the name of a distribution


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_install_options(parser)
    parser.add_argument(
        "--distribution",
        metavar="NAME",
        help=f"{', '.join(LAYOUTS)} (default: from /etc/os-release), "
        f"or {INSTALLED}: every one it was installed for before",
    )
    parser.add_argument(
        "--node",
        default="",
        metavar="NAME",
        help="what the cluster calls this node (default: as before, or found out)",
    )
    parser.add_argument(
        "--static", action="store_true", help="the static sender, which needs no libc"
    )


def run(given: argparse.Namespace) -> int:
    """Install or remove it."""
    with open_root(given) as root:
        if given.distribution != INSTALLED:
            _install_or_remove(given, root, _layout(given.distribution, root), given.static)
            return 0
        # Those of a run before, for the scripts of packages; static or not, as it was then.
        names = [name for name in Record.load(root).layouts if name in LAYOUTS]
        for name in names:
            static = given.static or native_sender.is_static(root, LAYOUTS[name])
            _install_or_remove(given, root, LAYOUTS[name], static)
        if not names:
            say("nothing to do: nothing was installed by this program")
    return 0


def _install_or_remove(
    given: argparse.Namespace, root: Sysroot, layout: Layout, static: bool
) -> None:
    if given.remove:
        installer.remove(root, layout, given.dry_run, say)
        return
    with open(native_sender.find(static), "rb") as sender:
        content = sender.read()
    installer.install(root, layout, content, given.dry_run, say, given.node)


def _layout(name: str | None, root: Sysroot) -> Layout:
    choices = "; ".join(f"{one.name}: {one.title}" for one in LAYOUTS.values())
    if name is not None:
        if name not in LAYOUTS:
            raise CommandError(f"--distribution {name!r}: not among {choices}")
        return LAYOUTS[name]
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        content = root.read(path)
        if content is not None:
            break
    else:
        raise CommandError(
            f"{root.outside('/etc/os-release')} is missing: give --distribution ({choices})"
        )
    found = layouts.recognise(content)
    if found is None:
        what = ", ".join(layouts.named_in(content)) or "without an ID"
        raise CommandError(
            f"{root.outside(path)}: unknown distribution {what}: give --distribution ({choices})"
        )
    return found
