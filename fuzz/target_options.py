# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz target: any bytes as the agent's stdin and, cut at NUL, as both programs' argv.

    python fuzz/target_options.py [libFuzzer options] [corpus directories or one input]

Each must give options that are valid throughout, or an OptionError.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["kdumpfence.options"]):
    options: Any = importlib.import_module("kdumpfence.options")
one_line: Any = importlib.import_module("kdumpfence.report").one_line


class Finding(Exception):
    """What must not be."""


def require(condition: bool, what: str, given: object) -> None:
    if not condition:
        raise Finding(f"{what}: {given!r}")


def check_names(names: tuple[str, ...]) -> None:
    require(len(set(names)) == len(names), "a name twice", names)
    for name in names:
        good = name.isprintable() and not name.isspace() and 0 < len(name) <= 1024
        require(good, "no name", name)


def check_agent(agent: Any) -> None:
    check_names(agent.names)
    require(1 <= agent.ipport <= 65535, "no port", agent.ipport)
    require(agent.family in options.FAMILIES, "no family", agent.family)
    require(
        agent.action in (*options.ACTIONS, "help", "version") and agent.action != "reboot",
        "no action",
        agent.action,
    )
    require(1 <= agent.timeout <= options.MOST_SECONDS, "no timeout", agent.timeout)
    require(agent.verbose >= 0, "no level", agent.verbose)
    require(bool(agent.names) or agent.action != "off", "no node", agent.names)


def check_sender(sender: Any) -> None:
    check_names(sender.nodes)
    require(1 <= sender.ipport <= 65535, "no port", sender.ipport)
    require(sender.family in options.FAMILIES, "no family", sender.family)
    require(0 <= sender.count <= options.MOST_MESSAGES, "no count", sender.count)
    require(1 <= sender.interval <= options.MOST_SECONDS, "no interval", sender.interval)
    require(sender.verbose >= 0, "no level", sender.verbose)
    require(bool(sender.nodes) or sender.action != "send", "no node", sender.nodes)


@atheris.instrument_func  # type: ignore[untyped-decorator]
def planted(data: bytes) -> Any:
    """A fault for the test of the fuzzer: nodes with a third name of one kind never end."""
    agent = agent_from_stdin(data)
    if len(agent.names) == 3 and agent.names[2][:1] == "z":
        agent.timeout = 0
    return agent


agent_from_stdin = options.agent_from_stdin
if os.environ.get("KDUMPFENCE_FUZZ_PLANT") == "1":
    options.agent_from_stdin = planted


def check(data: bytes) -> None:
    """One input. Whatever it raises is a finding."""
    try:
        check_agent(options.agent_from_stdin(data))
    except options.OptionError as error:
        require(str(error).isprintable() and bool(str(error)), "unfit to be shown", str(error))
    argv = [os.fsdecode(word) for word in data.split(b"\0")]
    for parse, look in (
        (options.agent_from_argv, check_agent),
        (options.sender_from_argv, check_sender),
    ):
        try:
            look(parse(argv))
        except options.OptionError as error:
            require(one_line(str(error)).isprintable(), "unfit to be shown", str(error))


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
