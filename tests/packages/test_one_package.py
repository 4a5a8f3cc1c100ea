# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the older Debian package, which had the library to itself, to the two of today, and back.

The older one is made of today's files: put where it had them, and with what its scripts did.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.packages import bare
from tests.packages.conftest import MODULES, library_of, run
from tests.packages.dpkg import KEPT, is_stock, library, ours, ours_gone, state, stock, version

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

THEN, NOW = "/usr/lib/kdumpfence/python", "/usr/lib/kdumpfence/modules"


@pytest.fixture
def older_deb(deb: Path, tmp_path: Path) -> Path:
    """Version 0.0.9, in one package."""
    tree = tmp_path / "older"
    run("dpkg-deb", "--raw-extract", deb, tree)
    run("dpkg-deb", "--extract", library_of(deb), tmp_path / "library")
    shutil.rmtree(tree / NOW[1:])
    (tree / THEN[1:]).mkdir()
    for folder in (tree, tmp_path / "library"):
        run("cp", "-a", folder / MODULES, tree / THEN[1:])
        shutil.rmtree(folder / "usr/lib/python3")
    for program in (tree / "usr/sbin").iterdir():
        program.write_text(program.read_text().replace(NOW, THEN))
    control = tree / "DEBIAN/control"
    text = re.sub(r"(?m)^Pre-Depends: .*\n", "", control.read_text())
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 0.0.9-1", text))
    for script, command in (
        ("postinst", f"py3compile -p kdumpfence {THEN}"),
        ("prerm", "py3clean -p kdumpfence"),
    ):
        path = tree / "DEBIAN" / script
        path.write_text(path.read_text().replace("set -e\n", f"set -e\n{command}\n", 1))
    run("dpkg-deb", "--build", "--root-owner-group", tree, tmp_path / "older.deb")
    return tmp_path / "older.deb"


def test_the_agent_stays_and_so_does_what_was_set_up(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path, older_deb: Path
) -> None:
    stock(machine, bare_debian)
    before = machine.files()
    machine.dpkg("-i", machine.put(older_deb))
    assert "compiled core" in version(machine)
    # Nor does an install-agent of today take that for a stock agent.
    assert "belongs to the kdumpfence package" in machine.try_("kdumpfence", "install-agent").stdout
    machine.run("kdumpfence", "install-sender", "--distribution", "debian")
    diversions = state(machine)[1]

    ours(machine, deb)
    assert "compiled core" in version(machine)
    assert not (machine.root / THEN[1:]).exists()
    assert state(machine)[1:] == (diversions, "")
    assert is_stock(machine, KEPT)
    assert (machine.root / "usr/lib/kdumpfence/fence_kdump_send").exists()

    machine.dpkg("-i", machine.put(older_deb))  # and back
    machine.dpkg("-P", "python3-kdumpfence")
    assert "compiled core" in version(machine)
    assert not (machine.root / NOW[1:]).exists()
    ours(machine, deb)
    ours_gone(machine)
    assert machine.files() == before


def test_apt_does_it_in_one_go(machine: bare.Machine, deb: Path, older_deb: Path) -> None:
    """The command of README.md."""
    machine.dpkg("-i", machine.put(older_deb))
    for folder in ("etc/apt/preferences.d", "var/cache/apt/archives/partial", "var/log/apt"):
        (machine.root / folder).mkdir(parents=True, exist_ok=True)
    (machine.root / "var/lib/apt/lists/partial").mkdir(parents=True, exist_ok=True)
    files = [machine.put(package) for package in (deb, library_of(deb))]
    settings = {
        "Dir": "ROOT/",
        "Dir::State::status": "ROOT/var/lib/dpkg/status",
        "DPkg::Chroot-Directory": "ROOT/",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    install = ("apt-get", *options, "--yes", "--no-install-recommends", "install")
    done = machine.outside(*install, *(f"ROOT{file}" for file in files))
    assert done.returncode == 0, done.stdout
    assert "compiled core" in version(machine)
    assert not (machine.root / THEN[1:]).exists()


def test_without_the_library_the_agent_stays_what_it_was(
    machine: bare.Machine, deb: Path, older_deb: Path, newer_deb: Path
) -> None:
    """Whoever forgets the other file must not lose the agent over it."""
    machine.dpkg("-i", machine.put(older_deb))
    for package in (deb, newer_deb):
        refused = machine.try_("dpkg", "-i", machine.put(package))
        assert refused.returncode != 0
        assert "pre-dependency problem" in refused.stdout
        assert "compiled core" in version(machine)
        ours(machine, deb)
    # The library goes first, and the agent uses it at once.
    library(machine, newer_deb)
    assert version(machine).startswith("fence_kdump 9 ")
    refused = machine.try_("dpkg", "-P", "python3-kdumpfence")
    assert refused.returncode != 0
    assert version(machine).startswith("fence_kdump 9 ")
