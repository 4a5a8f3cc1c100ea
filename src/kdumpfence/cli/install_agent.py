# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence install-agent: the agent where Pacemaker looks for it."""

from __future__ import annotations

import argparse

from kdumpfence.cli import CommandError
from kdumpfence.cli.install_options import add_install_options, open_root, say
from kdumpfence.install import agent_files, installer, system_python

HELP = f"put the agent at {agent_files.AGENT}, for the system's Python"

add_arguments = add_install_options


def run(given: argparse.Namespace) -> int:
    """Install or remove it."""
    with open_root(given) as root:
        if given.remove:
            installer.remove(root, agent_files.layout(None), given.dry_run, say)
            return 0
        if agent_files.is_packaged(root):
            raise CommandError(
                f"{root.outside(agent_files.AGENT)} belongs to the kdumpfence package: "
                "update the package, or remove it first"
            )
        layout = agent_files.layout(system_python.of(root), say)
        installer.install(root, layout, b"", given.dry_run, say)
    return 0
