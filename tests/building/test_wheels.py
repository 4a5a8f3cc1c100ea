# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is in the sdist and the wheels, and whether it works where nothing else is."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.conftest import cannot_run
from tests.support.sources import QUICKLY, ROOT, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

NOBODY = 65534


#: Of files that a wheel must have.
SUFFIXES = (".py", ".pyi", ".typed", ".css", ".js", ".svg")


def names(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        return archive.namelist()


def test_both_programs_work_from_the_wheel(python: Path, core: str) -> None:
    said = run(python, ROOT / "tools" / "selfcheck.py", core).stdout
    assert f"both programs work, on the {core} core" in said


@pytest.mark.parametrize("page", ["fence_kdump.8", "fence_kdump_send.8", "kdumpfence.8"])
def test_man_pages_are_installed_where_man_looks(python: Path, page: str) -> None:
    installed = python.parents[1] / "share" / "man" / "man8" / page
    assert installed.read_bytes() == (ROOT / "docs" / page).read_bytes()


def test_the_compiled_wheel_has_the_core_and_is_for_this_python(compiled_wheel: Path) -> None:
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert re.search(rf"-{tag}-{tag}t?-linux_\w+\.whl$", compiled_wheel.name)
    cores = [name for name in names(compiled_wheel) if name.endswith(".so")]
    assert cores == [f"kdumpfence/_kdumpwire{sysconfig.get_config_var('EXT_SUFFIX')}"]


def test_the_pure_wheel_has_no_core_and_is_for_every_python(pure_wheel: Path) -> None:
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in names(pure_wheel) if name.endswith(".so")]


def test_every_module_and_the_types_are_in_the_wheel(wheel: Path) -> None:
    package = ROOT / "src" / "kdumpfence"
    files = [path for path in package.rglob("*") if path.suffix in SUFFIXES]
    kept = {str(path.relative_to(package)) for path in files}
    assert {"agent/main.py", "_kdumpwire.pyi", "py.typed", "daemon/page/files/status.js"} <= kept
    assert {f"kdumpfence/{name}" for name in kept} <= set(names(wheel))


def test_the_wheel_needs_nothing_at_run_time(wheel: Path) -> None:
    (metadata,) = [name for name in names(wheel) if name.endswith(".dist-info/METADATA")]
    with ZipFile(wheel) as archive:
        fields = Parser().parsestr(archive.read(metadata).decode())
    needed = fields.get_all("Requires-Dist") or []
    assert needed, "the extras should be listed"
    assert not [line for line in needed if "extra ==" not in line]
    assert fields["Requires-Python"] == ">=3.9"


def test_the_sdist_made_without_a_compiler_has_the_core_and_no_leavings(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"src/_kdumpwire.pyx", "setup.py", "LICENSE", "docs/fence_kdump.8"} <= files
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("src/kdumpwire/**/*.*")} <= files
    assert not [name for name in files if name.endswith((".so", ".pyc"))]
    written = {"src/native/main.c", "src/native/musl.c", "fuzz/native.c"}
    assert {name for name in files if name.endswith(".c")} <= written


@pytest.mark.usefixtures("compiler")
def test_the_sdist_installs_with_nothing_but_pip(sdist: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path)
    python = tmp_path / "bin" / "python"
    run(
        python,
        "-m",
        "pip",
        "install",
        "-q",
        sdist,
        env={"KDUMPFENCE_COMPILE": "require", **QUICKLY},
    )
    said = run(python, "-c", "import kdumpfence; print(kdumpfence.IMPLEMENTATION)").stdout
    assert said == "compiled\n"


def test_a_type_checker_finds_the_types(compiled_wheel: Path, tmp_path: Path) -> None:
    """As a user of the package meets them: py.typed and the stub of the compiled core."""
    site = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "-q", "--target", site, compiled_wheel)
    user = tmp_path / "user.py"
    user.write_text(
        "import kdumpfence\n"
        "from kdumpfence import _kdumpwire\n"
        "reveal_type(kdumpfence.decode(b'').trailer)\n"
        "reveal_type(_kdumpwire.decode(b'').trailer)\n"
    )
    check = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "user.py")
    said = run(*check, cwd=tmp_path, env={"MYPYPATH": str(site)}).stdout
    assert said.count('Revealed type is "bytes"') + said.count('is "builtins.bytes"') == 2, said


@contextlib.contextmanager
def world_readable_folder() -> Iterator[Path]:
    """Pytest's own folders are closed to everybody else."""
    with tempfile.TemporaryDirectory(prefix="kdumpfence-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def pythons_for_everybody() -> list[Path]:
    """Interpreters that a user without rights can run, this one first."""

    def open_to_all(path: Path) -> bool:
        wanted = stat.S_IXOTH
        return all(place.stat().st_mode & wanted for place in (path, *path.parents))

    candidates = [Path(sys.executable).resolve(), Path("/usr/bin/python3").resolve()]
    return [path for path in candidates if path.exists() and open_to_all(path)]


def test_a_user_without_rights_can_use_it(compiled_wheel: Path) -> None:
    """Pacemaker asks for the metadata as hacluster."""
    pythons = pythons_for_everybody()
    if not pythons:
        cannot_run("no Python on this machine that everybody may run")
    python = pythons[0]
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    with world_readable_folder() as site:
        install = (sys.executable, "-m", "pip", "install", "-q", "--no-index", "--target", site)
        subprocess.run([*install, compiled_wheel], check=True, umask=0o022)
        command = (*(user if os.geteuid() == 0 else ()), python, "-m", "kdumpfence.agent")
        said = run(*command, "-o", "metadata", cwd=Path("/"), env={"PYTHONPATH": str(site)}).stdout
    assert said.startswith("<?xml")
    assert said.rstrip().endswith("</resource-agent>")
