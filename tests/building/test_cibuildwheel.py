# SPDX-License-Identifier: LGPL-2.1-or-later
"""The wheels that a release would have, as far as that can be told without containers."""

from __future__ import annotations

import itertools
import sys

import pytest

from tests.support.sources import ROOT, run

PYTHONS = ("cp39", "cp310", "cp311", "cp312", "cp313", "cp314", "cp315")
SYSTEMS = ("manylinux", "musllinux")
PROCESSORS = ("x86_64", "aarch64", "ppc64le", "s390x")


def test_a_release_has_a_wheel_for_each_python_libc_and_processor() -> None:
    pytest.importorskip("cibuildwheel")
    command = (sys.executable, "-m", "cibuildwheel", "--print-build-identifiers")
    said = run(*command, "--platform", "linux", ROOT)
    wanted = {
        f"{python}-{system}_{processor}"
        for python, system, processor in itertools.product(PYTHONS, SYSTEMS, PROCESSORS)
    }
    assert set(said.stdout.split()) == wanted


def test_a_release_cannot_have_a_wheel_without_the_core_or_signing() -> None:
    """A failed compile has to end the build, and each wheel has to show its core at work."""
    tomllib = pytest.importorskip("tomllib")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    environment = settings["environment"]
    assert environment["KDUMPFENCE_COMPILE"] == environment["KDUMPFENCE_SIGNING"] == "require"
    shell, maker, folder = settings["before-all"].split()
    assert (shell, folder) == ("sh", environment["KDUMPFENCE_BEARSSL"])
    assert (ROOT / maker.removeprefix("{package}/")).exists()
    program, script, core = settings["test-command"].split()
    assert (program, core) == ("python", "compiled")
    assert script.startswith("{package}/")
    assert (ROOT / script.partition("/")[2]).exists()
