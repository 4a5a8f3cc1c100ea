# SPDX-License-Identifier: LGPL-2.1-or-later
"""Both cores side by side: what one sees of a call, the other must see as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Cores(NamedTuple):
    """Both cores."""

    compiled: Any
    pure: Any

    def do(self, action: Callable[[Any], object]) -> object:
        """What `action` gives on both, described; they must agree on every bit of it."""
        compiled, pure = (describe(core, action) for core in self)
        assert compiled == pure
        return compiled


def describe(core: Any, action: Callable[[Any], object]) -> object:
    """A result or an exception with all that a caller can see of it."""
    try:
        result = action(core)
    except Exception as error:
        return type(error).__name__, str(error), error.args, getattr(error, "reason", None)
    if isinstance(result, core.Message):
        return repr(result), str(result), hash(result), type(result).__name__
    return result
