# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package and the stock one, in every order; installations that are refused or killed.

What is looked at is also dpkg's own state: a package that stays half-installed, or a diversion that
nobody removes, is in the way of every later installation.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.packages import bare
from tests.packages.conftest import install_agent, run
from tests.packages.dpkg import (
    AGENT,
    KEPT,
    PAGES,
    agents,
    everything,
    is_stock,
    library,
    ours,
    ours_gone,
    state,
    stock,
    version,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]


def made_up(folder: Path, name: str, control: str, content: Path | None = None) -> Path:
    """A package with these lines in its control file, and what lies in that folder."""
    tree = folder / name
    if content is None:
        tree.mkdir()
    else:
        run("cp", "-a", content, tree)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Architecture: amd64\nMaintainer: nobody <n@example.org>\n{control}"
        "Description: made up for a test\n"
    )
    run("dpkg-deb", "--build", "--root-owner-group", tree, folder / f"{name}.deb")
    return folder / f"{name}.deb"


@pytest.mark.parametrize("first", ["stock", "ours"])
def test_it_gets_along_with_the_stock_package(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path, first: str
) -> None:
    pristine = machine.files()
    package = bare_debian.stock_package
    if first == "stock":
        stock(machine, bare_debian)
        ours(machine, deb)
    else:
        ours(machine, deb)
        stock(machine, bare_debian)
    assert "compiled core" in version(machine)
    assert is_stock(machine, KEPT)
    assert agents(machine) == ["fence_kdump"]
    for page in PAGES:
        assert (machine.root / f"usr/share/man/man8/{page}.stock.8.gz").exists()
    assert machine.run("dpkg", "--verify", "kdumpfence", package) == ""
    assert machine.run("dpkg", "-S", AGENT).count("diversion by kdumpfence") == 2

    stock(machine, bare_debian)  # an update of that package
    assert "compiled core" in version(machine)
    ours_gone(machine)
    assert is_stock(machine)
    assert machine.run("dpkg", "--verify", package) == ""
    assert machine.run("dpkg-divert", "--list", "*kdump*") == ""
    ours(machine, deb)
    machine.dpkg("-P", package)
    assert "compiled core" in version(machine)
    assert agents(machine) == ["fence_kdump"]
    ours_gone(machine)
    left = {line.split()[0] for line in machine.files() ^ pristine}
    assert not [path for path in left if "kdump" in path or path.startswith("/usr/sbin/")], left


def test_an_upgrade_keeps_the_stock_files_where_they_are(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path, newer_deb: Path
) -> None:
    stock(machine, bare_debian)
    before = machine.files()
    ours(machine, deb)
    diversions = machine.run("dpkg-divert", "--list", "*kdump*")
    ours(machine, newer_deb)
    assert version(machine).startswith("fence_kdump 9 ")
    assert machine.run("dpkg-divert", "--list", "*kdump*") == diversions
    assert is_stock(machine, KEPT)
    ours(machine, deb)  # and back
    assert version(machine).startswith("fence_kdump 0.")
    ours_gone(machine)
    assert machine.files() == before


def test_an_installation_that_fails_leaves_the_stock_agent(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path, tmp_path: Path
) -> None:
    stock(machine, bare_debian)
    library(machine, deb)
    content = tmp_path / "content"
    (content / "usr/sbin").mkdir(parents=True)
    (content / "usr/sbin/kdumpfence").touch()
    other = made_up(tmp_path, "other", "Package: other\nVersion: 1\n", content)
    machine.dpkg("-i", machine.put(other))
    before = everything(machine)
    failed = machine.try_("dpkg", "-i", machine.put(deb))
    assert failed.returncode != 0
    assert "trying to overwrite '/usr/sbin/kdumpfence'" in failed.stdout
    assert everything(machine) == before
    assert is_stock(machine)


def refused(machine: bare.Machine, deb: Path) -> str:
    """Try to install ours, which leaves no trace; what was said."""
    before = everything(machine)
    failed = machine.try_("dpkg", "-i", machine.put(deb))
    assert failed.returncode != 0
    assert everything(machine) == before
    assert state(machine)[-1] == ""
    return failed.stdout


@pytest.mark.parametrize("path", [AGENT, "/usr/share/man/man8/fence_kdump_send.8.gz"])
def test_a_diversion_of_somebody_else_is_not_touched(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path, path: str
) -> None:
    stock(machine, bare_debian)
    library(machine, deb)
    before = everything(machine)
    divert = ("dpkg-divert", "--local", "--rename", "--divert", f"{path}.theirs")
    machine.run(*divert, "--add", path)
    (machine.root / path[1:]).write_text("#!/bin/sh\necho mine\n")
    said = refused(machine, deb)
    assert f"{path} is already diverted (by LOCAL); remove that diversion first: " in said

    (machine.root / path[1:]).unlink()
    machine.run(*divert, "--remove", path)
    ours(machine, deb)
    assert "compiled core" in version(machine)
    machine.dpkg("-P", "kdumpfence")
    assert everything(machine) == before


def test_install_agents_agent_is_not_run_over(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path
) -> None:
    stock(machine, bare_debian)
    before = state(machine)
    # Once ours was here, and what is left is its settings.
    ours(machine, deb)
    machine.dpkg("-r", "kdumpfence")
    install_agent(machine)
    said = version(machine)
    assert "first: kdumpfence install-agent --remove" in refused(machine, deb)
    assert version(machine) == said
    stock(machine, bare_debian)  # an update, which brings the stock agent back
    assert "first: kdumpfence install-agent --remove" in refused(machine, deb)

    install_agent(machine, "--remove")
    ours(machine, deb)
    assert "compiled core" in version(machine)
    assert is_stock(machine, KEPT)
    run("rm", "-r", machine.root / "home/somebody")
    ours_gone(machine)
    assert is_stock(machine)
    assert state(machine) == before


def test_what_lies_where_the_stock_agent_is_to_be_kept_is_not_lost(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path
) -> None:
    stock(machine, bare_debian)
    library(machine, deb)
    (machine.root / KEPT[1:]).write_text("an older agent\n")
    assert f"{KEPT}, where {AGENT} is to be kept, is there already" in refused(machine, deb)
    assert is_stock(machine)


# ------------------------------------------------------------------ killed

#: In place of dpkg-divert: kills dpkg in the middle of one of its diversions.
KILLING = """#!/bin/sh
echo >>/tmp/calls
if [ "$(wc -l </tmp/calls)" = "{number}" ]; then
    # Half of what dpkg-divert does. It first writes down what it adds and then moves the file;
    # what it removes, it moves first.
    case "$*" in
    *--add*) /usr/bin/dpkg-divert $(echo "$@" | sed s/--rename/--no-rename/) ;;
    *--remove*)
        for path; do :; done
        mv "$(/usr/bin/dpkg-divert --truename $path)" $path
        ;;
    esac
    read -r _ _ _ dpkg _ </proc/$PPID/stat
    kill -KILL $dpkg $PPID
    exit
fi
exec /usr/bin/dpkg-divert "$@"
"""
PATH_WITH_IT = {"PATH": "/tmp/killing:/usr/sbin:/usr/bin:/sbin:/bin"}


def killed_in(machine: bare.Machine, number: int, *command: str) -> None:
    """Run dpkg, which is killed in that call of dpkg-divert."""
    killing = machine.root / "tmp/killing/dpkg-divert"
    killing.parent.mkdir(exist_ok=True)
    killing.write_text(KILLING.format(number=number))
    killing.chmod(0o755)
    (machine.root / "tmp/calls").unlink(missing_ok=True)
    assert machine.try_("dpkg", *command, env=PATH_WITH_IT).returncode == -9
    assert "kdumpfence" in machine.run("dpkg", "--audit")


def divert_calls(machine: bare.Machine, *command: str) -> list[int]:
    """Numbers of dpkg's calls of dpkg-divert that change something, in an undisturbed run."""
    counting = machine.root / "tmp/killing/dpkg-divert"
    counting.parent.mkdir(exist_ok=True)
    counting.write_text('#!/bin/sh\necho "$@" >>/tmp/calls\nexec /usr/bin/dpkg-divert "$@"\n')
    counting.chmod(0o755)
    machine.run("dpkg", *command, env=PATH_WITH_IT)
    calls = (machine.root / "tmp/calls").read_text().splitlines()
    return [n for n, call in enumerate(calls, 1) if re.search("--(add|remove) ", call)]


def test_a_killed_installation_is_made_up_for_by_the_next(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path
) -> None:
    stock(machine, bare_debian)
    library(machine, deb)
    before = everything(machine)
    package = machine.put(deb)
    calls = divert_calls(machine, "-i", package)
    assert len(calls) == 3
    machine.dpkg("-P", "kdumpfence")
    assert everything(machine) == before
    for number in calls:
        killed_in(machine, number, "-i", package)
        machine.dpkg("-i", package)
        assert state(machine)[-1] == ""
        assert "compiled core" in version(machine)
        assert is_stock(machine, KEPT)
        machine.dpkg("-P", "kdumpfence")
        assert everything(machine) == before


def test_a_killed_removal_is_made_up_for_by_the_next(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path
) -> None:
    stock(machine, bare_debian)
    library(machine, deb)
    before = everything(machine)
    ours(machine, deb)
    calls = divert_calls(machine, "-r", "kdumpfence")
    assert len(calls) == 3
    for number in calls:
        machine.dpkg("-i", machine.put(deb))
        killed_in(machine, number, "-r", "kdumpfence")
        machine.dpkg("-P", "kdumpfence")
        assert everything(machine) == before


# ------------------------------------------------------------------ generations of fence-agents

#: What Debian 13's packages say of Debian 12's.
_NEWER_THAN_ALL = "fence-agents (<< 4.12.1-2~exp1)"
_SPLIT = f"Version: 4.16.0-3\nReplaces: {_NEWER_THAN_ALL}\nBreaks: {_NEWER_THAN_ALL}\n"


def generations(folder: Path, debian: bare.Debian) -> tuple[Path, list[Path]]:
    """Debian 12's package and Debian 13's, with the files of the one that is at hand."""
    content = folder / "content"
    run("dpkg-deb", "--extract", debian.fence_agents, content)
    older = made_up(folder, "older", "Package: fence-agents\nVersion: 4.12.1-1\n", content)
    kdump = made_up(folder, "kdump", f"Package: fence-agents-kdump\n{_SPLIT}", content)
    empty = made_up(folder, "empty", "Package: fence-agents\nVersion: 4.16.0-3\n")
    return older, [kdump, empty]


@pytest.mark.parametrize("order", list(itertools.combinations(range(4), 2)))
def test_fence_agents_is_split_up_at_any_time(
    machine: bare.Machine,
    bare_debian: bare.Debian,
    deb: Path,
    tmp_path: Path,
    order: tuple[int, int],
) -> None:
    """Ours comes and goes at two of the moments before, between and after both generations."""
    older, newer = generations(tmp_path, bare_debian)
    diversions = state(machine)[1]
    steps = [[older], newer, []]
    for moment in range(4):
        if moment == order[0]:
            ours(machine, deb)
        if moment == order[1]:
            ours_gone(machine)
        if moment < 3 and steps[moment]:
            machine.dpkg("-iB", *map(machine.put, steps[moment]))
        there = order[0] <= moment < order[1]
        if there:
            assert "compiled core" in version(machine)
        assert is_stock(machine, KEPT if there else AGENT)
        assert agents(machine) == ["fence_kdump"]
    assert state(machine)[1:] == (diversions, "")
    assert machine.run("dpkg", "--verify", "fence-agents", "fence-agents-kdump") == ""
    machine.dpkg("-P", "fence-agents", "fence-agents-kdump")
    assert agents(machine) == []
