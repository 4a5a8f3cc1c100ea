# SPDX-License-Identifier: LGPL-2.1-or-later
"""The native sender: in the wheel, by itself, and without a trace of Python in it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from kdumpfence import __version__
from tests.building.conftest import new_environment
from tests.conftest import cannot_run
from tests.support.sources import ROOT, copy_sources, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

NAME = "kdumpfence/_native/fence_kdump_send"
#: Bytes: what it may have in a crash kernel's image.
MOST = 64 * 1024
MOST_STATIC = 192 * 1024
WITH_PYTHON = re.compile(rb"Py[A-Z]\w+_\w+|libpython|__pyx_")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both variants from the sources alone, as `make native` does; their folder."""
    if not shutil.which("musl-gcc"):
        cannot_run("musl-gcc is missing; on Debian it is in musl-tools")
    tree = copy_sources(tmp_path_factory.mktemp("native"))
    folder = tree / "programs"
    script = tree / "src" / "native" / "build_sender.py"
    said = run(sys.executable, script, folder, "--static", "require", cwd=tree).stdout
    assert said.count("\n") == 3
    return folder


def test_the_wheel_has_it_and_the_command_finds_it(compiled_wheel: Path, tmp_path: Path) -> None:
    with ZipFile(compiled_wheel) as archive:
        assert archive.getinfo(NAME).external_attr >> 16 & 0o111 == 0o111
        assert archive.getinfo(NAME).file_size <= MOST
    python = new_environment(tmp_path, compiled_wheel)
    found = run(python.with_name("kdumpfence"), "native-sender").stdout.strip()
    assert Path(found).is_relative_to(tmp_path)
    said = run(found, "-V").stdout
    assert said == f"fence_kdump_send {__version__} (kdumpfence, native)\n"


def test_a_wheel_without_it_says_so(pure_wheel: Path, tmp_path: Path) -> None:
    with ZipFile(pure_wheel) as archive:
        assert not [name for name in archive.namelist() if "_native" in name]
    python = new_environment(tmp_path, pure_wheel)
    said = run(python.with_name("kdumpfence"), "native-sender", status=1).stdout
    assert "has no native sender" in said
    assert said.count("\n") == 1


def test_it_needs_libc_and_nothing_else(alone: Path) -> None:
    program = alone / "fence_kdump_send"
    assert program.stat().st_size <= MOST
    needed = re.findall(r"^\s*(\S+) ", run("ldd", program).stdout, re.MULTILINE)
    libc = re.compile(r"linux-vdso|libc\.|libpthread\.|/.*/ld-linux|ld-linux|/lib.*/ld")
    assert needed
    assert [name for name in needed if not libc.match(name)] == []


def test_the_static_one_needs_nothing_and_resolves_names(alone: Path) -> None:
    program = alone / "fence_kdump_send.static"
    assert program.stat().st_size <= MOST_STATIC
    assert "not a dynamic executable" in run("ldd", program, status=None).stdout
    said = run(program, "--check", "localhost").stdout
    assert "node 'localhost' (127.0.0.1): is this machine" in said


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    "flags",
    [
        "-O0 -g",
        "-O2",
        "-O3 -ftree-vectorize -ftree-slp-vectorize",
        "-O2 -flto=auto -g -fasynchronous-unwind-tables -fstack-clash-protection",
    ],
)
def test_flags_that_packagers_export_do_not_make_it_grow(flags: str, tmp_path: Path) -> None:
    script = ROOT / "src" / "native" / "build_sender.py"
    run(sys.executable, script, tmp_path, "--static", "no", env={"CFLAGS": flags})
    program = tmp_path / "fence_kdump_send"
    assert program.stat().st_size <= MOST
    assert not WITH_PYTHON.search(program.read_bytes())


@pytest.mark.parametrize("name", ["fence_kdump_send", "fence_kdump_send.static"])
def test_there_is_no_python_in_it(alone: Path, name: str) -> None:
    assert not WITH_PYTHON.search((alone / name).read_bytes())


def test_without_musl_the_static_one_takes_addresses_only(tmp_path: Path) -> None:
    script = ROOT / "src" / "native" / "build_sender.py"
    env = {"MUSL_CC": "/nonexistent/musl-gcc"}
    said = run(sys.executable, script, tmp_path, "--static", "require", env=env).stdout
    assert "understands addresses only" in said
    said = run(tmp_path / "fence_kdump_send.static", "--check", "127.0.0.1", "localhost",
               status=1).stdout  # fmt: skip
    assert "node '127.0.0.1' (127.0.0.1): is this machine" in said
    assert "node 'localhost': this build has no name service, and needs addresses" in said


def test_what_is_missing_is_said_in_a_line_or_two(tmp_path: Path) -> None:
    script = ROOT / "src" / "native" / "build_sender.py"
    env = {"CC": "/nonexistent/cc", "PATH": os.environ["PATH"]}
    said = run(sys.executable, script, tmp_path, status=1, env=env).stdout
    assert said == "/nonexistent/cc: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []
