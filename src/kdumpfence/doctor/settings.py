# SPDX-License-Identifier: LGPL-2.1-or-later
"""Variables in files that shells and systemd read, as far as they say what they mean."""

from __future__ import annotations

import re

_VARIABLE = re.compile(
    r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)="
    r"""(?:"([^"\n]*)"|'([^'\n]*)'|([^\s"'#;]*))""",
    re.MULTILINE,
)


def variables(text: str | None) -> dict[str, str]:
    """What is set in it, each variable with its last value; nothing if there is no such file."""
    return {
        found[1]: found[2] or found[3] or found[4] or "" for found in _VARIABLE.finditer(text or "")
    }
