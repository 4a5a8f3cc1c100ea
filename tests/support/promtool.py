# SPDX-License-Identifier: LGPL-2.1-or-later
"""Prometheus' promtool: what it says of rules, and of metrics."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

from tests.conftest import cannot_run
from tests.support import debian


@functools.lru_cache
def find() -> str:
    """Debian's, which is not installed for that; from version 13 on in a package of its own."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    try:
        package = "promtool" if "promtool" in debian.known("prom") else "prometheus"
        return str(debian.unpacked(package) / "usr/bin/promtool")
    except debian.NotAvailable as error:
        cannot_run(str(error))


def run(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; all that it says is in `stdout`."""
    return subprocess.run(
        [find(), *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
