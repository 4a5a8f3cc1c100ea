# SPDX-License-Identifier: LGPL-2.1-or-later
"""The packages, made once, and machines to install them on."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.packages import bare
from tests.support import debian, sources
from tests.support.once import once
from tests.support.sources import ROOT


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command that has to succeed; what it says."""
    return sources.run(*command, cwd=cwd).stdout


def needs(*programs: str) -> None:
    """Skip without these programs."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        cannot_run(f"not on this machine: {', '.join(missing)}")


def make_deb(sdist: Path, folder: Path) -> Path:
    """Make the Debian package."""
    needs("dpkg-buildpackage", "dh", "gcc")
    run("sh", "packaging/deb.sh", sys.executable, folder, sdist)
    (made,) = folder.iterdir()
    return made


def make_rpm(sdist: Path, folder: Path) -> Path:
    """Make the package for rpm systems."""
    needs("rpmbuild", "rpm", "gcc")
    (folder / "rpmbuild/SOURCES").mkdir(parents=True)
    shutil.copy(sdist, folder / "rpmbuild/SOURCES")
    spec = ROOT / "packaging/rpm/kdumpfence.spec"
    return rpmbuild(spec, folder, "--define", f"builder {sys.executable}")


def rpmbuild(spec: Path, folder: Path, *arguments: str) -> Path:
    """Make the one package that the spec is about."""
    where = ("--define", f"_topdir {folder / 'rpmbuild'}")
    # Debian's rpm knows nothing of what is installed here.
    run("rpmbuild", "-bb", "--nodeps", *where, *arguments, spec, cwd=folder)
    return the_rpm(folder)


def the_rpm(folder: Path) -> Path:
    """The one package that rpmbuild has made there."""
    (made,) = (folder / "rpmbuild/RPMS").rglob("*.rpm")
    return made


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package."""
    sdist = sources.sdist_of(tmp_path_factory)
    (made,) = once(tmp_path_factory, "deb", lambda folder: make_deb(sdist, folder)).iterdir()
    return made


@pytest.fixture(scope="session")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package for rpm systems."""
    sdist = sources.sdist_of(tmp_path_factory)
    folder = once(tmp_path_factory, "rpm", lambda folder: make_rpm(sdist, folder))
    return the_rpm(folder)


@pytest.fixture(scope="session")
def newer_deb(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as version 9, with another native sender."""
    folder = tmp_path_factory.mktemp("newer")
    content = folder / "content"
    run("dpkg-deb", "--raw-extract", deb, content)
    control = content / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 9-1", control.read_text()))
    modules = content / "usr/lib/kdumpfence/python/kdumpfence"
    (modules / "_version.py").write_text('__version__ = "9"\n')
    for sender in (modules / "_native").iterdir():
        sender.write_bytes(sender.read_bytes() + b"\nversion 9\n")
    run("dpkg-deb", "--build", "--root-owner-group", content, folder / "kdumpfence_9-1.deb")
    return folder / "kdumpfence_9-1.deb"


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
