# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence native-sender: where the sender without Python is."""

from __future__ import annotations

import argparse

from kdumpfence.install import native_sender

HELP = "print the path of the native sender"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--static", action="store_true", help="of the static one, which needs no libc"
    )


def run(given: argparse.Namespace) -> int:
    """Print it."""
    print(native_sender.find(given.static))
    return 0
