# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fuzz target: any bytes on the agent's stdin are valid options, or an error in one line."""

from __future__ import annotations

from typing import Any

from frame import plant, require, run
from rules import agent_options, check_agent, cmdline


@plant(agent_options, "agent_from_stdin")
def _(parse: Any, data: bytes) -> Any:
    """Names that end with a z end the wait."""
    agent = parse(data)
    if agent.names and agent.names[-1][-1:] == "z":
        agent.timeout = 0
    return agent


def check(data: bytes) -> None:
    try:
        check_agent(agent_options.agent_from_stdin(data))
    except cmdline.OptionError as error:
        require(str(error).isprintable() and bool(str(error)), "unfit to be shown", str(error))


if __name__ == "__main__":
    run(check)
