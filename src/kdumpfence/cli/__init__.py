# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command `kdumpfence`: a file for each of its subcommands, and the table of them in main.py.

A subcommand's file has HELP, its line in `kdumpfence --help`; add_arguments(parser); and
run(arguments), which does it and returns the exit status.
"""


class CommandError(Exception):
    """Why a command cannot do what it was asked for; the text is one line for people."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status  #: the exit status
