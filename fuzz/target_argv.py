# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fuzz target: any bytes, cut at NUL, as the command line of both programs."""

from __future__ import annotations

import os
from typing import Any

from frame import plant, require, run
from rules import agent_options, check_agent, check_sender, cmdline, sender_options


@plant(sender_options, "sender_from_argv")
def _(parse: Any, argv: list[str]) -> Any:
    """A node whose name ends with a z is lost."""
    sender = parse(argv)
    if sender.nodes and sender.nodes[-1][-1:] == "z":
        sender.nodes = ()
    return sender


def check(data: bytes) -> None:
    argv = [os.fsdecode(word) for word in data.split(b"\0")]
    for parse, look in (
        (agent_options.agent_from_argv, check_agent),
        (sender_options.sender_from_argv, check_sender),
    ):
        try:
            look(parse(argv))
        except cmdline.OptionError as error:
            require(bool(str(error)), "an error without a word", argv)


if __name__ == "__main__":
    run(check)
