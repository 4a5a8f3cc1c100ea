# SPDX-License-Identifier: LGPL-2.1-or-later
"""No warning when Python compiles the source, whichever Python it is."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("folder", ["src", "tests", "tools", "bench", "examples", "fuzz"])
def test_no_file_makes_python_warn(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in files:
            compile(file.read_bytes(), file, "exec", dont_inherit=True)


def test_what_is_deprecated_is_an_error_in_tests() -> None:
    with pytest.raises(DeprecationWarning, match="soon gone"):
        warnings.warn("soon gone", DeprecationWarning, stacklevel=1)
