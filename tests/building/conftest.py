# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds what is looked at, once a session, in copies of the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.conftest import cannot_run

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *("src", "docs", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md"),
    *("LICENSE", "LICENSE.libraries"),
)
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
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=BUILT)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def build(kind: str, tree: Path, to: Path, choice: str, **env: str) -> Path:
    """Build an sdist or a wheel of what lies in `tree`, with the tools of this environment."""
    command = (sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "-o", to, tree)
    run(*command, env={"KDUMPFENCE_COMPILE": choice, **env})
    (made,) = to.iterdir()
    return made


def unpack(sdist: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    run("tar", "--extract", "--file", sdist, "--directory", folder)  # as users do
    (tree,) = folder.iterdir()
    return tree


def new_environment(folder: Path, wheel: Path) -> Path:
    """Install a wheel, and nothing else, into a new environment; the path of its Python."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-index", wheel)
    return python


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the sdist where nothing can be compiled: it has to be complete all the same."""
    tree = copy_sources(tmp_path_factory.mktemp("sources"))
    return build("sdist", tree, tmp_path_factory.mktemp("sdist"), "no")


@pytest.fixture(scope="session")
def compiler() -> None:
    """Ask for a C compiler."""
    if not (shutil.which("gcc") or shutil.which("cc")):
        cannot_run("there is no C compiler")


@pytest.fixture(scope="session")
def compiled_wheel(compiler: None, sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = unpack(sdist, tmp_path_factory.mktemp("unpacked"))
    to = tmp_path_factory.mktemp("compiled")
    return build("wheel", tree, to, "require")


@pytest.fixture(scope="session")
def pure_wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = unpack(sdist, tmp_path_factory.mktemp("unpacked"))
    return build("wheel", tree, tmp_path_factory.mktemp("pure"), "no")


@pytest.fixture(scope="session", params=["compiled", "pure"])
def core(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def wheel(request: pytest.FixtureRequest, core: str) -> Path:
    """Give each of both wheels."""
    path: Path = request.getfixturevalue(f"{core}_wheel")
    return path


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Python of a new environment with that wheel in it."""
    return new_environment(tmp_path_factory.mktemp("environment"), wheel)
