# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds what is looked at, once a session, in copies of the sources."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.support.once import once
from tests.support.sources import build, run, sdist_of, unpack


def new_environment(folder: Path, wheel: Path) -> Path:
    """Install a wheel, and nothing else, into a new environment; the path of its Python."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-index", wheel)
    return python


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, complete although nothing could be compiled."""
    return sdist_of(tmp_path_factory)


def wheel_of(factory: pytest.TempPathFactory, core: str, choice: str) -> Path:
    """The wheel with that core, built of the sdist."""

    def make(folder: Path) -> None:
        build("wheel", unpack(sdist_of(factory), factory.mktemp("unpacked")), folder, choice)

    (made,) = once(factory, f"{core}-wheel", make).iterdir()
    return made


@pytest.fixture(scope="session")
def compiler() -> None:
    """Ask for a C compiler."""
    if not (shutil.which("gcc") or shutil.which("cc")):
        cannot_run("there is no C compiler")


@pytest.fixture(scope="session")
def compiled_wheel(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(tmp_path_factory, "compiled", "require")


@pytest.fixture(scope="session")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(tmp_path_factory, "pure", "no")


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
