# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever cannot be done is said in one line, and nothing has changed then."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence.cli.main import COMMANDS
from kdumpfence.install import layouts, native_sender
from tests.install import roots
from tests.install.conftest import REAL_FIND, Command
from tests.support.programs import as_user

pytestmark = pytest.mark.slow

PROGRAM = (sys.executable, "-m", "kdumpfence.cli")
PLACE = "usr/libexec/fence_kdump_send"


def run(*command: str, stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["nonsense"], "'nonsense'"),
        (["native-sender", "extra"], "extra"),
        (["install-sender", "--root"], "--root"),
        (["install-sender", "--root", ""], "--root"),
        (["install-sender", "--root", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["install-sender", "--root", "/etc/passwd"], "/etc/passwd: Not a directory"),
        (["install-sender", "--distribution", "amiga"], "'amiga'"),
        (["install-sender", "--root", "/non\nexistent"], "/non\\nexistent"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    done = run(*PROGRAM, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("kdumpfence: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_not_understood_points_to_the_help_that_says_it(name: str) -> None:
    said = "kdumpfence: unrecognized arguments: --wrong; see {} --help\n"
    assert run(*PROGRAM, name, "--wrong").stderr == said.format(f"kdumpfence {name}")
    assert run(*PROGRAM, "--wrong", name).stderr == said.format("kdumpfence")


@pytest.mark.parametrize("arguments", [["--help"], ["install-sender", "--help"], ["--version"]])
def test_help_and_version(arguments: list[str]) -> None:
    done = run(*PROGRAM, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kdumpfence" in done.stdout


def test_the_path_of_the_native_sender(built: str) -> None:
    done = run(*PROGRAM, "native-sender")
    assert (done.returncode, done.stdout, done.stderr) == (0, built + "\n", "")
    static = run(*PROGRAM, "native-sender", "--static")
    assert static.stdout == built + ".static\n"


def test_a_native_sender_that_was_not_built(
    command: Command, tmp_path: Path, root_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots.make(root_directory, "rocky")
    before = roots.snapshot(root_directory)
    monkeypatch.setattr(native_sender, "find", REAL_FIND)
    monkeypatch.setattr(native_sender, "FOLDER", str(tmp_path))
    assert "make native" in command.refused("--root", str(root_directory))
    command.name = "native-sender"
    assert "make native" in command.refused()
    assert roots.snapshot(root_directory) == before


def test_without_a_native_sender_it_can_still_be_removed(
    command: Command, root_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = roots.make(root_directory, "rocky")
    before = roots.snapshot(root)
    command.ok(root)
    command.sender.unlink()
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


def test_stdout_that_is_full(built: str) -> None:
    with open("/dev/full", "w") as full:
        done = run(*PROGRAM, "native-sender", stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, "kdumpfence: No space left on device\n")


#: With setpriv: able to read what only root may, pytest's directories.
READS_ALL = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
READ_ONLY = (
    *("unshare", "--mount", "sh", "-c"),
    'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("arguments", [[], ["--remove"]], ids=["install", "remove"])
@pytest.mark.parametrize("by", ["nobody", "read-only"])
def test_a_root_that_must_not_be_written_to(
    command: Command, root_directory: Path, built: str, by: str, arguments: list[str]
) -> None:
    root = roots.make(root_directory, "rocky")
    if arguments:
        command.ok(root)
    before = roots.snapshot(root)
    wrapper = (*as_user(), *READS_ALL) if by == "nobody" else (*READ_ONLY, str(root))
    done = run(*wrapper, *PROGRAM, "install-sender", "--root", str(root), *arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"kdumpfence: {root}/" in done.stderr
    assert "/.:" not in done.stderr
    why = "Permission denied (needs root)" if by == "nobody" else "Read-only file system"
    assert why in done.stderr
    assert roots.snapshot(root) == before


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_neither_a_file_nor_a_link_in_the_place_of_the_sender(
    command: Command, root_directory: Path, make: Callable[[Path], None]
) -> None:
    root = roots.make(root_directory, "rocky")
    (root / PLACE).unlink()
    make(root / PLACE)
    said = command.refused("--root", str(root))
    assert said == f"{root}/{PLACE} is neither a file nor a link\n"


def test_a_file_in_the_place_of_a_directory(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "rocky")
    shutil.rmtree(root / "usr/libexec")
    roots.put(root, "/usr/libexec", "a file")
    assert f"{root}/usr/libexec" in command.refused("--root", str(root))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node2 node3\n", "line 1"),
        ('NODES="node2"\nOTHER=1\n', "line 2"),
        ("NODES=node2 node3\n", "quotes"),
        ('NODES="node2 $(reboot)"\n', "letters, digits"),
        ('NODES="node2"; touch /tmp/x\n', "line 1"),
        ("NODES='node2 `id`'\n", "letters, digits"),
        ('NODES="-v node2"\n', "ARGS"),
        ('ARGS="-p 7411\n', "quotes"),
    ],
)
def test_nodes_that_make_no_sense(
    command: Command, root_directory: Path, text: str, said: str
) -> None:
    root = roots.make(root_directory, "debian")
    roots.put(root, layouts.NODES, text)
    before = roots.snapshot(root)
    told = command.refused("--root", str(root))
    assert told.startswith(f"{root}{layouts.NODES}: ")
    assert said in told
    after = roots.snapshot(root)
    assert set(after) - set(before) <= {"/usr/lib/kdumpfence"}  # the lock
    assert {path: after[path] for path in before} == before


def test_the_disk_is_full(
    command: Command, root_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = roots.make(root_directory, "rocky")
    before = roots.whats(root)
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if b"our sender" in bytes(data):
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        said = command.refused("--root", str(root))
    assert said == f"{root}/{PLACE}: No space left on device\n"
    assert (root / PLACE).read_bytes() == roots.STOCK
    command.ok(root, "--remove")
    assert roots.whats(root) == before


def test_two_runs_at_once_wait_for_each_other(
    command: Command, root_directory: Path, built: str
) -> None:
    root = roots.make(root_directory, "rocky")
    command.ok(root)
    lock = os.open(root / "usr/lib/kdumpfence", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with subprocess.Popen(
        [*PROGRAM, "install-sender", "--root", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as waiting:
        assert waiting.stdout is not None
        _wait_until_it_waits(waiting, lock)
        os.close(lock)
        said = waiting.stdout.read()
    assert waiting.returncode == 0
    assert "update /" in said


def _wait_until_it_waits(waiting: subprocess.Popen[str], lock: int) -> None:
    """Until the kernel says that this process waits for that lock."""
    inode = os.fstat(lock).st_ino
    while waiting.poll() is None:
        with open("/proc/locks") as locks:
            for line in locks:
                fields = line.split()
                if fields[1] == "->" and fields[6].endswith(f":{inode}"):
                    return
        time.sleep(0.02)
    pytest.fail("it did not wait")
