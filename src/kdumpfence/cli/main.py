# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program `kdumpfence`: the table of its subcommands, and how each failure is reported."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from kdumpfence._version import __version__
from kdumpfence.cli import (
    CommandError,
    database,
    doctor,
    events,
    history,
    install_agent,
    install_sender,
    key,
    native_sender,
    status,
    storm,
    watch,
)
from kdumpfence.install import InstallError
from kdumpfence.text import one_line

COMMANDS = {
    "native-sender": native_sender,
    "install-agent": install_agent,
    "install-sender": install_sender,
    "doctor": doctor,
    "key": key,
    "status": status,
    "watch": watch,
    "history": history,
    "events": events,
    "database": database,
    "storm": storm,
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and whose help has the right way."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse what a subcommand does not know here, where its name is known."""
        given, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return given, rest

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message}; see {self.prog} --help")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="kdumpfence",
        description="Install the agent and the crash kernel's sender; keep the cluster's key; show "
        "what kdumpfenced has heard; simulate dumping nodes.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"kdumpfence {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.HELP))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status, or 1 (rarely another) after one line on stderr."""
    try:
        given = make_parser().parse_args(arguments)
        status: int = COMMANDS[given.command].run(given)
        sys.stdout.flush()
        return status
    except CommandError as error:
        return _complain(str(error), error.status)
    except InstallError as error:
        return _complain(str(error))
    except BrokenPipeError:
        return 1  # a pager that was left early
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        hint = ""
        if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
            hint = " (needs root)"
        return _complain(f"{where}{error.strerror or error}{hint}")


def script() -> None:
    """The program."""
    if sys.stdout is None:  # closed by whoever started it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (to the end)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(AttributeError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    os.umask(0o022)
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    # What could not be written was complained of; Python would say so once more.
    os._exit(status)


def _complain(text: str, status: int = 1) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(f"kdumpfence: {one_line(text)}", file=sys.stderr, flush=True)
    return status
