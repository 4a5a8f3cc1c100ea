# SPDX-License-Identifier: GPL-2.0-or-later
"""What the programs can say, taken from their source: the fixed parts of their texts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "kdumpfence"
NATIVE = SOURCE.parent / "native" / "fence_kdump_send.pyx"

#: Calls that say something, and exceptions whose text is said in the end.
_SAYING = {"error", "warning", "debug", "_complain"}
_SAYING |= {"OptionError", "UsageError", "LookUpError", "PortError"}


#: Attributes that hold what is said later.
_SAID_LATER = {"obstacle"}


def _constants(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for name, value in ast.iter_fields(node):
        if name != "format_spec":
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    yield from _constants(part)


def _is_for_developers(call: ast.Call) -> bool:
    """Whether it is said at a higher -v level only."""
    return any(keyword.arg == "level" for keyword in call.keywords)


def everything(*modules: str) -> set[str]:
    """Return every fixed piece of text in these modules, doc strings and all."""
    return {
        text for module in modules for text in _constants(ast.parse((SOURCE / module).read_text()))
    }


def native() -> set[str]:
    """Return the pieces of text in the native sender's source."""
    return set(re.findall(r'b"((?:[^"\\]|\\.)+)"', NATIVE.read_text()))


def lines(module: str, calls: set[str] = _SAYING) -> set[str]:
    """Return the fixed pieces of what this module says."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((SOURCE / module).read_text())):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(one, ast.Attribute) and one.attr in _SAID_LATER for one in targets):
                found.update(_constants(node.value))
        if not isinstance(node, ast.Call) or _is_for_developers(node):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name in calls:
            found.update(text for argument in node.args for text in _constants(argument))
    return found
