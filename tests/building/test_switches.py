# SPDX-License-Identifier: GPL-2.0-or-later
"""KDUMPFENCE_COMPILE: nobody gets a slow install, or a broken one, without being told."""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.building.conftest import build, copy_sources, run, unpack

NO_COMPILER = {"CC": "/bin/false"}


def test_a_value_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    tree = copy_sources(tmp_path)
    setup = (sys.executable, "setup.py", "--version")
    done = run(*setup, cwd=tree, status=1, env={"KDUMPFENCE_COMPILE": "maybe"})
    assert done.stdout == "KDUMPFENCE_COMPILE='maybe': not one of auto, require, no\n"


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["auto", ""])
def test_without_a_compiler_the_install_is_a_pure_one_that_says_so(
    choice: str, sdist: Path, pure_wheel: Path, tmp_path: Path
) -> None:
    tree, to = unpack(sdist, tmp_path / "tree"), tmp_path / "wheel"
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", to, tree)
    said = run(*command, env={"KDUMPFENCE_COMPILE": choice, **NO_COMPILER}).stdout
    assert "kdumpfence: the compiled core is NOT built" in said
    (wheel,) = to.iterdir()
    assert wheel.name == pure_wheel.name
    with ZipFile(wheel) as made, ZipFile(pure_wheel) as wanted:
        assert sorted(made.namelist()) == sorted(wanted.namelist())


@pytest.mark.slow
def test_where_the_core_is_required_a_failed_compile_is_an_error_that_says_why(
    sdist: Path, tmp_path: Path
) -> None:
    tree = unpack(sdist, tmp_path / "tree")
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", tree)
    done = run(*command, status=1, env={"KDUMPFENCE_COMPILE": "require", **NO_COMPILER})
    assert "kdumpfence: the compiled core could not be built: " in done.stdout
    assert "Traceback" not in done.stdout.partition("kdumpfence: the compiled core could not")[2]
    assert not list(tree.glob("dist/*.whl"))


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_an_older_builds_core_does_not_get_into_a_pure_wheel(sdist: Path, tmp_path: Path) -> None:
    tree = unpack(sdist, tmp_path / "tree")
    build("wheel", tree, tmp_path / "first", "require")
    with (tree / "src" / "_kdumpwire.pyx").open("a") as core:
        core.write("\n# changed\n")
    second = build("wheel", tree, tmp_path / "second", "auto", **NO_COMPILER)
    assert second.name.endswith("-py3-none-any.whl")
    with ZipFile(second) as wheel:
        assert not [name for name in wheel.namelist() if name.endswith(".so") or "_native" in name]
