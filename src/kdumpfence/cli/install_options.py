# SPDX-License-Identifier: LGPL-2.1-or-later
"""What install-agent and install-sender have in common: options, the root, and how they talk."""

from __future__ import annotations

import argparse
import os

from kdumpfence.cli import CommandError
from kdumpfence.install.sysroot import Sysroot
from kdumpfence.text import one_line


def add_install_options(parser: argparse.ArgumentParser) -> None:
    """The options of both."""
    parser.add_argument("--remove", action="store_true", help="uninstall it")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the steps without taking them"
    )
    parser.add_argument(
        "--root", default="/", metavar="DIR", help="work on this root directory of an image"
    )


def open_root(given: argparse.Namespace) -> Sysroot:
    """The root to work on, to be closed by `with`."""
    if not given.root:
        raise CommandError("--root: no directory given")
    return Sysroot("/" if os.path.realpath(given.root) == "/" else os.path.abspath(given.root))


def say(text: str) -> None:
    """Tell a step or a remark."""
    print(one_line(text), flush=True)
