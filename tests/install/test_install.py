# SPDX-License-Identifier: LGPL-2.1-or-later
"""What install-agent and install-sender have in common, and where each distribution's sender goes.

The files are where others look for them, everybody may read them, and the way back is exact.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdumpfence.install import layouts
from tests.conftest import cannot_run
from tests.install import roots
from tests.install.conftest import OURS, Command

NAMES = list(layouts.LAYOUTS)
STOCKS = {"rhel": "rocky", "suse": "sles", "debian": "debian"}


@dataclass
class Case:
    """One thing to be installed, and a root for it."""

    command: Command
    root: Path
    options: tuple[str, ...]

    def install(self, *more: str) -> str:
        return self.command.ok(self.root, *self.options, *more)


@pytest.fixture(params=[*STOCKS, *(f"{name} in an empty root" for name in NAMES), "agent", "agent"
                        " in an empty root"])  # fmt: skip
def case(
    request: pytest.FixtureRequest, command: Command, agent: Command, root_directory: Path
) -> Case:
    """The sender of each distribution, and the agent, with something in the way or nothing."""
    name, _, empty = request.param.partition(" in ")
    if name == "agent":
        roots.with_python(root_directory)
        if not empty:
            roots.put(root_directory, roots.AGENT, roots.STOCK_AGENT, 0o755)
        return Case(agent, root_directory, ())
    if not empty:
        roots.make(root_directory, STOCKS[name])
        return Case(command, root_directory, ())
    return Case(command, root_directory, ("--distribution", name))


def test_removing_brings_exactly_back_what_was_there(case: Case) -> None:
    before = roots.snapshot(case.root)
    case.install()
    assert roots.snapshot(case.root) != before
    case.install("--remove")
    assert roots.snapshot(case.root) == before
    assert "nothing to do" in case.install("--remove")
    assert roots.snapshot(case.root) == before


def test_a_second_run_changes_nothing_and_says_so(case: Case) -> None:
    case.install()
    before = roots.snapshot(case.root)
    assert "nothing to do" in case.install()
    assert roots.snapshot(case.root) == before


@pytest.mark.parametrize("arguments", [(), ("--remove",)], ids=["install", "remove"])
def test_a_dry_run_says_what_a_real_one_does_and_does_nothing(
    case: Case, arguments: tuple[str, ...]
) -> None:
    if arguments:
        case.install()
    before = roots.snapshot(case.root)
    lines = case.install("--dry-run", *arguments).splitlines(keepends=True)
    assert roots.snapshot(case.root) == before
    lines.remove("dry run, nothing is changed; the steps would be:\n")
    assert case.install(*arguments) == "".join(lines)
    assert roots.snapshot(case.root) != before


def test_every_file_that_is_put_anywhere_is_named(case: Case) -> None:
    before = roots.snapshot(case.root)
    said = case.install()
    new = set(roots.snapshot(case.root)) - set(before)
    files = {path for path in new if not stat.S_ISDIR((case.root / path[1:]).lstat().st_mode)}
    unnamed = {path for path in files - {"/usr/lib/kdumpfence/installed"} if path not in said}
    assert all(path.split("/")[4].startswith("agent-") for path in unnamed)
    assert all("/".join(path.split("/")[:5]) in said for path in unnamed)


def test_everybody_may_read_and_run_it_whatever_the_umask(case: Case, built: str) -> None:
    before = set(roots.snapshot(case.root))
    run = (sys.executable, "-m", "kdumpfence.cli", case.command.name, "--root", str(case.root))
    script = ("sh", "-c", 'umask 077; exec "$@"', "sh", *run, *case.options)
    subprocess.run(script, check=True, timeout=60)
    for path in set(roots.snapshot(case.root)) - before:
        there = case.root / path[1:]
        if not there.is_symlink():
            program = there.is_dir() or there.suffix == ".so" or there.read_bytes()[:3] in (
                b"\x7fEL", b"#!/")  # fmt: skip
            assert there.stat().st_mode & 0o7777 == (0o755 if program else 0o644), path


@pytest.mark.parametrize("name", roots.OS_RELEASES)
def test_a_distribution_is_recognised_and_gets_the_sender(
    command: Command, root_directory: Path, name: str
) -> None:
    root = roots.make(root_directory, name)
    place = root / roots.PLACES[roots.OS_RELEASES[name][1]].lstrip("/")
    old = place.stat() if place.exists() else None
    command.ok(root)
    assert place.read_bytes() == OURS
    assert place.stat().st_mode & 0o7777 == 0o755
    kept = place.with_name(".fence_kdump_send.stock")
    assert kept.exists() == (old is not None)
    if old is not None:
        assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (old.st_ino, old.st_mtime_ns)


@pytest.mark.usefixtures("root")
def test_the_new_sender_has_the_selinux_label_of_the_old_one(
    command: Command, root_directory: Path
) -> None:
    place = roots.make(root_directory, "rocky") / roots.PLACES["rhel"][1:]
    try:
        os.setxattr(place, "security.selinux", b"system_u:object_r:bin_t:s0")
    except OSError as error:
        cannot_run(f"no label can be set here: {error}")
    command.ok(root_directory)
    assert place.read_bytes() == OURS
    assert os.getxattr(place, "security.selinux") == b"system_u:object_r:bin_t:s0"


def test_debians_own_sender_is_left_alone(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "debian")
    before = roots.snapshot(root)
    command.ok(root)
    after = roots.snapshot(root)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize(
    ("name", "order"),
    [("fedora", "kdumpctl rebuild"), ("leap", "mkdumprd -f"), ("ubuntu", layouts.NODES)],
)
def test_what_is_left_to_be_done_is_said(
    command: Command, root_directory: Path, name: str, order: str
) -> None:
    assert order in command.ok(roots.make(root_directory, name)).splitlines()[-1]


def test_a_machine_without_kdump_is_told_so(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "rocky")
    assert "/usr/bin/kdumpctl is missing" not in command.ok(root)
    (root / "usr/bin/kdumpctl").unlink()
    assert f"{root}/usr/bin/kdumpctl is missing" in command.ok(root)


def test_the_distribution_that_is_given_counts(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "debian")
    command.ok(root, "--distribution", "suse")
    assert (root / "usr/lib/fence_kdump_send").read_bytes() == OURS
    assert not (root / "etc/systemd").exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ID=gentoo\n", "gentoo"),
        ("ID=arch\nID_LIKE=archlinux\n", "arch, archlinux"),
        ("NAME=Nobody\n", "without an ID"),
        ('ID="debian\n', "without an ID"),
        ("\0\xff" * 100, "without an ID"),
        (None, "/etc/os-release is missing"),
    ],
)
def test_an_unknown_distribution_is_told_what_there_is(
    command: Command, root_directory: Path, text: str | None, named: str
) -> None:
    if text is not None:
        roots.put(root_directory, "/etc/os-release", text)
    before = roots.snapshot(root_directory)
    said = command.refused("--root", str(root_directory))
    assert f"{root_directory}/etc/os-release" in said
    assert named in said
    assert all(f"{name}: " in said for name in NAMES)
    assert "--distribution" in said
    assert roots.snapshot(root_directory) == before


def test_the_static_sender_takes_the_place_of_the_other(
    command: Command, root_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = tmp_path / "static"
    static.write_bytes(b"static")
    monkeypatch.setattr(
        "kdumpfence.install.native_sender.find",
        lambda static_=False: str(static if static_ else command.sender),
    )
    root = roots.make(root_directory, "rocky")
    before = roots.snapshot(root)
    place = root / "usr/libexec/fence_kdump_send"
    for option, content in ((), OURS), (("--static",), b"static"), ((), OURS):
        command.ok(root, *option)
        assert place.read_bytes() == content
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before
