# SPDX-License-Identifier: LGPL-2.1-or-later
"""An sdist and wheels, built in copies of the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.support.once import once

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *(
        "src",
        "docs",
        "examples",
        "packaging",
        "setup.py",
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
    ),
    *("LICENSE", "LICENSE.libraries"),
)
#: For cores that are not built to be fast.
QUICKLY = {"CFLAGS": "-O0"}
# What was built before, by somebody else.
BUILT = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__", "_native")


def run(
    *command: str | Path,
    cwd: Path = ROOT,
    status: int | None = 0,
    env: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is one text, errors included."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KDUMPFENCE_", "PYTHON"))}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**kept, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,  # compilers on a busy machine
    )
    if status is not None and done.returncode != status:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done


def copy_sources(folder: Path) -> Path:
    """Put what an sdist is made of into a folder; the same folder."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=BUILT)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def build(kind: str, tree: Path, to: Path, choice: str, **env: str) -> Path:
    """Build an sdist or a wheel of what lies in `tree`, with the tools of this environment."""
    command = (sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "-o", to, tree)
    run(*command, env={"KDUMPFENCE_COMPILE": choice, **QUICKLY, **env})
    (made,) = to.iterdir()
    return made


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist there; the folder that it brought."""
    folder.mkdir(exist_ok=True)
    run("tar", "--extract", "--file", sdist, "--directory", folder)  # as users do
    (tree,) = folder.iterdir()
    return tree


def sdist_of(factory: pytest.TempPathFactory) -> Path:
    """The sdist, made where nothing can be compiled: it has to be complete all the same."""

    def make(folder: Path) -> None:
        build("sdist", copy_sources(factory.mktemp("sources")), folder, "no")

    (made,) = once(factory, "sdist", make).iterdir()
    return made
