# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the programs can say: the fixed texts in their source."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"


def _constants(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


@functools.lru_cache
def python() -> frozenset[str]:
    """Every fixed piece of text in the Python source."""
    files = (SOURCE / "kdumpfence").rglob("*.py")
    return frozenset(text for file in files for text in _constants(ast.parse(file.read_text())))


@functools.lru_cache
def native() -> frozenset[str]:
    """Every fixed piece of text in the native sender's source."""
    sources = [(file, r'b"((?:[^"\\]|\\.)+)"') for file in (SOURCE / "native").glob("*.p[yx]*")]
    sources.append((SOURCE / "native" / "options.h", r'"((?:[^"\\]|\\.)+)"'))
    literals = [text for file, form in sources for text in re.findall(form, file.read_text())]
    # Without conversions, and apart where there is more than one blank.
    pieces = (re.split(r"%(?:s|c|d|lld|02x)|\\n|  +|; ", text) for text in literals)
    return frozenset(piece for found in pieces for piece in found if piece)


def can_be_said(piece: str) -> bool:
    """Whether the source has this text, in one piece or put together from two."""
    texts = python() | native()
    words = piece.split(" ")
    cuts = [(" ".join(words[:at]), " ".join(words[at:])) for at in range(len(words))]
    return any(
        all(any(part.strip(" '():;,") in text for text in texts) for part in cut) for cut in cuts
    )
