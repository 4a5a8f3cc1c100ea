# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz target: any bytes on the agent's stdin are valid options, or an error in one line."""

from __future__ import annotations

import os
import sys
from typing import Any

from rules import agent_options, atheris, check_agent, cmdline, require


@atheris.instrument_func  # type: ignore[untyped-decorator]
def planted(data: bytes) -> Any:
    """A fault for the test of the fuzzer: names that end with a z end the wait."""
    agent = agent_from_stdin(data)
    if agent.names and agent.names[-1][-1:] == "z":
        agent.timeout = 0
    return agent


agent_from_stdin = agent_options.agent_from_stdin
if os.environ.get("KDUMPFENCE_FUZZ_PLANT") == "1":
    agent_options.agent_from_stdin = planted


def check(data: bytes) -> None:
    """One input. Whatever it raises is a finding."""
    try:
        check_agent(agent_options.agent_from_stdin(data))
    except cmdline.OptionError as error:
        require(str(error).isprintable() and bool(str(error)), "unfit to be shown", str(error))


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
