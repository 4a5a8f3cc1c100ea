# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz target: any bytes, cut at NUL, as the command line of both programs."""

from __future__ import annotations

import os
import sys
from typing import Any

from rules import (
    agent_options,
    atheris,
    check_agent,
    check_sender,
    cmdline,
    require,
    sender_options,
)


@atheris.instrument_func  # type: ignore[untyped-decorator]
def planted(argv: list[str]) -> Any:
    """A fault for the test of the fuzzer: a node whose name ends with a z is lost."""
    sender = sender_from_argv(argv)
    if sender.nodes and sender.nodes[-1][-1:] == "z":
        sender.nodes = ()
    return sender


sender_from_argv = sender_options.sender_from_argv
if os.environ.get("KDUMPFENCE_FUZZ_PLANT") == "1":
    sender_options.sender_from_argv = planted


def check(data: bytes) -> None:
    """One input. Whatever it raises is a finding."""
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
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
