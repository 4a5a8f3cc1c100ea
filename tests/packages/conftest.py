# SPDX-License-Identifier: LGPL-2.1-or-later
"""The packages, made once, and machines to install them on."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.packages import bare
from tests.support import debian, sources
from tests.support.once import once
from tests.support.sources import ROOT

#: Where the Debian packages have the modules.
MODULES = "usr/lib/python3/dist-packages/kdumpfence"


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command that has to succeed; what it says."""
    return sources.run(*command, cwd=cwd).stdout


def needs(*programs: str) -> None:
    """Skip without these programs."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        cannot_run(f"not on this machine: {', '.join(missing)}")


def make_deb(sdist: Path, folder: Path) -> Path:
    """Make the Debian packages; that of the programs."""
    needs("dpkg-buildpackage", "dh", "gcc")
    run("sh", "packaging/deb.sh", sys.executable, folder, sdist)
    return the_programs(folder.glob("*.deb"))


def make_rpm(sdist: Path, folder: Path) -> Path:
    """Make the packages for rpm systems; that of the programs."""
    needs("rpmbuild", "rpm", "gcc")
    (folder / "rpmbuild/SOURCES").mkdir(parents=True)
    shutil.copy(sdist, folder / "rpmbuild/SOURCES")
    spec = ROOT / "packaging/rpm/kdumpfence.spec"
    return rpmbuild(spec, folder, "--define", f"builder {sys.executable}")


def rpmbuild(spec: Path, folder: Path, *arguments: str) -> Path:
    """Make the package that the spec is about."""
    where = ("--define", f"_topdir {folder / 'rpmbuild'}")
    # Debian's rpm knows nothing of what is installed here.
    run("rpmbuild", "-bb", "--nodeps", *where, *arguments, spec, cwd=folder)
    return the_rpm(folder)


def the_rpm(folder: Path) -> Path:
    """The package that rpmbuild has made there."""
    return the_programs((folder / "rpmbuild/RPMS").rglob("*.rpm"))


def the_programs(made: Iterable[Path]) -> Path:
    """Of these packages, the one that is not the library."""
    (programs,) = [package for package in made if not package.name.startswith("python3-")]
    return programs


def library_of(programs: Path) -> Path:
    """The package with the library, which lies beside that with the programs."""
    library = programs.with_name(f"python3-{programs.name}")
    assert library.exists()
    return library


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of the programs; `library_of` it is the other one."""
    sdist = sources.sdist_of(tmp_path_factory)
    folder = once(tmp_path_factory, "deb", lambda folder: make_deb(sdist, folder))
    return the_programs(folder.glob("*.deb"))


@pytest.fixture(scope="session")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for rpm systems."""
    sdist = sources.sdist_of(tmp_path_factory)
    folder = once(tmp_path_factory, "rpm", lambda folder: make_rpm(sdist, folder))
    return the_rpm(folder)


@pytest.fixture(scope="session")
def newer_deb(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as version 9, with another native sender."""
    folder = tmp_path_factory.mktemp("newer")
    programs, library = (Path("kdumpfence"), Path("python3-kdumpfence"))
    for package, file in ((programs, deb), (library, library_of(deb))):
        run("dpkg-deb", "--raw-extract", file, folder / package)
        control = folder / package / "DEBIAN/control"
        numbered = re.sub(r"(?m)^Version: .*$", "Version: 9-1", control.read_text())
        control.write_text(re.sub(r"(?<=python3-kdumpfence )\(= .*?\)", "(= 9-1)", numbered))
    (folder / library / MODULES / "_version.py").write_text('__version__ = "9"\n')
    for sender in (folder / programs / MODULES / "_native").iterdir():
        sender.write_bytes(sender.read_bytes() + b"\nversion 9\n")
    for package in (programs, library):
        built = folder / f"{package}_9-1.deb"
        run("dpkg-deb", "--build", "--root-owner-group", folder / package, built)
    return folder / f"{programs}_9-1.deb"


@pytest.fixture(scope="session")
def bare_debian() -> bare.Debian:
    """A bare Debian, which is not written to."""
    try:
        return bare.get()
    except debian.NotAvailable as error:
        cannot_run(str(error))
        raise


@pytest.fixture
def machine(bare_debian: bare.Debian, tmp_path: Path) -> Iterator[bare.Machine]:
    """A machine of it, for this test alone."""
    try:
        with bare.machine(bare_debian, tmp_path / "machine") as made:
            yield made
    except debian.NotAvailable as error:
        cannot_run(str(error))


HOME = "/home/somebody/.venv"


def install_agent(machine: bare.Machine, *arguments: str) -> str:
    """Run `kdumpfence install-agent` out of an environment that only root can read."""
    modules = machine.root / HOME[1:] / "kdumpfence"
    if not modules.exists():
        shutil.copytree(ROOT / "src/kdumpfence", modules)
        (machine.root / HOME[1:]).parent.chmod(0o700)
    script = f"import sys; sys.path.insert(0, {HOME!r}); from kdumpfence.cli.main import script"
    program = ("/usr/bin/python3", "-Bc", f"{script}; script()")
    return machine.run(
        "sh", "-c", 'umask 077; exec "$@"', "sh", *program, "install-agent", *arguments
    )


TRAPS = "/tmp/traps"


def lay_traps(machine: bare.Machine) -> dict[str, str]:
    """Modules in TRAPS that end whoever imports them; the environment that leads to them."""
    for folder in ("traps", "traps/site"):
        (machine.root / "tmp" / folder).mkdir(parents=True, exist_ok=True)
        for name in ("socket", "_socket", "os", "struct", "sitecustomize", "kdumpfence"):
            trap = machine.root / "tmp" / folder / f"{name}.py"
            trap.write_text("raise SystemExit('a trap')\n")
    env = {"PYTHONPATH": f"{TRAPS}/site"}
    assert "a trap" in machine.try_("python3", "-c", "import socket", env=env).stdout
    return {**env, "PYTHONHOME": TRAPS, "PYTHONSTARTUP": "/x"}
