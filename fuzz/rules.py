# SPDX-License-Identifier: LGPL-2.1-or-later
"""What both targets of the options hold against them: valid throughout, or an OptionError."""

from __future__ import annotations

import importlib
from typing import Any

from frame import atheris, require

_MODULES = ("kdumpfence.cmdline", "kdumpfence.agent.options", "kdumpfence.sender.options")
with atheris.instrument_imports(include=list(_MODULES)):
    cmdline, agent_options, sender_options = map(importlib.import_module, _MODULES)


def check_names(names: tuple[str, ...]) -> None:
    require(len(set(names)) == len(names), "a name twice", names)
    for name in names:
        good = name.isprintable() and not name.isspace() and 0 < len(name) <= 1024
        require(good, "no name", name)


def check_complaints(complaints: list[str]) -> None:
    for text in complaints:
        require(bool(text) and text.isprintable(), "unfit to be shown", text)


def check_agent(agent: Any) -> None:
    check_names(agent.names)
    check_complaints(agent.complaints)
    require(1 <= agent.ipport <= 65535, "no port", agent.ipport)
    require(agent.family in agent_options.FAMILIES, "no family", agent.family)
    require(
        agent.action in (*agent_options.ACTIONS, "help", "version") and agent.action != "reboot",
        "no action",
        agent.action,
    )
    require(1 <= agent.timeout <= cmdline.MOST_SECONDS, "no timeout", agent.timeout)
    require(agent.verbose >= 0, "no level", agent.verbose)
    require(agent.auth in agent_options.AUTHS, "no auth", agent.auth)
    require(bool(agent.key_file) and "\0" not in agent.key_file, "no file", agent.key_file)
    require(-1 <= agent.alive_grace <= cmdline.MOST_SECONDS, "no grace", agent.alive_grace)
    place = agent.listener
    require(not place or place.startswith(("unix:/", "http://")), "no place", place)
    check_names(agent.called)
    require(bool(agent.names) or agent.action != "off", "no node", agent.names)


def check_sender(sender: Any) -> None:
    # Whatever they are: what can be no name is told when the others are sent for.
    require(all(sender.nodes), "an empty name", sender.nodes)
    require(len(set(sender.nodes)) == len(sender.nodes), "a name twice", sender.nodes)
    check_complaints(sender.complaints)
    require(1 <= sender.ipport <= 65535, "no port", sender.ipport)
    require(sender.family in agent_options.FAMILIES, "no family", sender.family)
    require(0 <= sender.count <= sender_options.MOST_MESSAGES, "no count", sender.count)
    require(1 <= sender.interval <= cmdline.MOST_SECONDS, "no interval", sender.interval)
    require(sender.verbose >= 0, "no level", sender.verbose)
    require(bool(sender.nodes) or sender.action != "send", "no node", sender.nodes)
