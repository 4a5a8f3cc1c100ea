# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence key: what it leaves in files, what it says, and that a rotation excludes no node."""

from __future__ import annotations

import fcntl
import itertools
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kdumpfence import keys
from kdumpfence.cli import key as command
from kdumpfence.cli.main import main
from kdumpfence.install import layouts, this_node
from tests.cli.commands import COMMAND, ENVIRONMENT, complaint, ok
from tests.cli.terminal import Terminal
from tests.support.programs import as_user

pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the key is to be; nobody else may enter."""
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o700)
    return folder / "key"


@pytest.fixture
def made(file: Path) -> Path:
    """A key that is there."""
    ok("key", "create", "--file", str(file))
    return file


def secrets(*files: Path) -> set[str]:
    """The keys in these files, as they must never be shown."""
    slots = (keys.read(str(one)) for one in files)
    return {slot[1].hex() for one in slots for slot in (one.signs, one.accepts) if slot}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


# ------------------------------------------------------------------ one file


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_a_new_key_is_for_root_alone_and_says_what_it_is(file: Path, umask: str) -> None:
    script = f'umask {umask}; exec "$@" key create --file "$0"'
    subprocess.run(
        ["sh", "-c", script, file, *COMMAND], check=True, env={**os.environ, **ENVIRONMENT}
    )
    assert mode(file) == 0o600
    assert file.read_text().startswith("# The key of a cluster for kdumpfence")
    found = keys.read(str(file))
    assert (found.accepts, found.node) == (None, "")
    assert [path.name for path in file.parent.iterdir()] == ["key"]


def test_no_two_keys_are_alike(tmp_path: Path) -> None:
    for name in "abc":
        ok("key", "create", "--file", str(tmp_path / name))
    assert len(secrets(*(tmp_path / name for name in "abc"))) == 3


@pytest.mark.parametrize("there", ["a key", "nothing of ours", "", "a link"])
def test_what_is_there_is_not_overwritten(file: Path, there: str) -> None:
    if there == "a key":
        ok("key", "create", "--file", str(file))
    elif there == "a link":
        file.symlink_to("elsewhere")
        file.with_name("elsewhere").write_text("something")
    else:
        file.write_text(there)
    before = file.read_bytes()
    said = complaint("key", "create", "--file", str(file))
    assert "exists" in said
    assert "kdumpfence key rotate" in said
    assert file.read_bytes() == before


def test_two_that_make_one_at_once_wait_for_each_other(file: Path) -> None:
    lock = os.open(file.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    argv = [*COMMAND, "key", "create", "--file", str(file)]
    env = {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as waiting:
        inode = os.fstat(lock).st_ino
        while f":{inode} " not in "".join(
            line for line in Path("/proc/locks").read_text().splitlines(True) if "->" in line
        ):
            assert waiting.poll() is None, "it did not wait"
            time.sleep(0.02)
        file.write_text("the other's")
        os.close(lock)
        assert waiting.stderr is not None
        assert "exists" in waiting.stderr.read()
    assert waiting.returncode == 1
    assert file.read_text() == "the other's"


def test_keys_are_shown_by_their_ids_alone(made: Path) -> None:
    said = [ok("key", "rotate", "--file", str(made)), ok("key", "show", "--file", str(made))]
    found = keys.read(str(made))
    assert found.accepts is not None
    assert said[1] == f"signs    {found.signs[0]:08x}\naccepts  {found.accepts[0]:08x}\n"
    before = secrets(made)
    said.append(ok("key", "rotate", "--switch", "--file", str(made)))
    said.append(ok("key", "rotate", "--drop", "--file", str(made)))
    said.append(ok("key", "show", "--file", str(made)))
    node = made.with_name("node")
    said.append(ok("key", "derive", "--node", "node1", "--file", str(made), "--out", str(node)))
    said.append(ok("key", "show", "--file", str(node)))
    assert said[-1].startswith("node     node1\nsigns    ")
    for one in before | secrets(made, node):
        assert not any(one[:16] in text for text in said)


@pytest.mark.parametrize(
    ("content", "rights", "why"),
    [
        (None, 0o600, "No such file or directory"),
        ("", 0o600, "no line 'signs ID KEY'"),
        ("signs 00000001 11\n", 0o600, "line 1"),
        ("whole", 0o640, "mode 0640"),
        ("whole", 0o604, "mode 0604"),
        ("node node1\nwhole", 0o600, "the key of node 'node1'"),
    ],
)
def test_a_file_that_cannot_be_used_is_left_as_it_is(
    file: Path, content: str | None, rights: int, why: str
) -> None:
    if content is not None:
        slot = (1, bytes(32)) if "node" in content else (keys.key_id(bytes(32)), bytes(32))
        file.write_text(content.replace("whole", keys.Keys(slot).text()))
        file.chmod(rights)
    before = file.read_bytes() if file.exists() else None
    for arguments in (["rotate"], ["rotate", "--switch"], ["rotate", "--drop"],
                      ["derive", "--node", "node1", "--out", f"{file}.node"]):  # fmt: skip
        said = complaint("key", *arguments, "--file", str(file))
        assert str(file)[:40] in said  # a long path is cut
        assert why in said
    assert (file.read_bytes() if file.exists() else None) == before
    assert not Path(f"{file}.node").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no action: not one of create, show, rotate, derive; see kdumpfence key --help"),
        (["mak\ne"], "'mak\\x0ae': not one of"),
        (["create", "--switch"], "--switch: not an option of create"),
        (["show", "--drop"], "--drop: not an option of show"),
        (["rotate", "--node", "node1"], "--node: not an option of rotate"),
        (["show", "--out", "x"], "--out: not an option of show"),
        (["rotate", "--switch", "--drop"], "one at a time"),
        (["derive"], "no --node NAME"),
        (["create", "--file", "/nonexistent/key"], "/nonexistent: no such directory"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    assert said in complaint("key", *arguments)


def test_a_user_who_may_not_is_told_that_it_needs_root() -> None:
    file = Path("/etc/key-of-a-test")
    done = subprocess.run(
        [*as_user(), *COMMAND, "key", "create", "--file", str(file)],
        capture_output=True, text=True, check=False, env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"kdumpfence: {file}: Permission denied (needs root)\n"
    assert not file.exists()


def test_a_link_stays_a_link(made: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(made)
    ok("key", "rotate", "--file", str(link))
    assert link.is_symlink()
    assert keys.read(str(made)).accepts is not None


# ------------------------------------------------------------------ a node's key


def test_a_nodes_key_is_what_receivers_derive(made: Path) -> None:
    cluster = keys.read(str(made))
    for number, node in enumerate(("node1", "node2", "node1.example.com", "!" * 64)):
        out = made.with_name(f"node{number}")
        ok("key", "derive", "--node", node, "--file", str(made), "--out", str(out))
        assert mode(out) == 0o600
        assert out.read_text().startswith("# A node's key for kdumpfence")
        found, expected = keys.read(str(out)), cluster.of(node)
        assert expected is not None
        assert (found.node, found.signs, found.accepts) == (node, expected.signs, None)
        assert secrets(out) & secrets(made) == set()


@pytest.mark.parametrize("node", ["", "a b", "x" * 65, "nöde", "a\nb"])
def test_a_name_that_no_packet_can_carry(made: Path, node: str) -> None:
    out = made.with_name("out")
    said = complaint("key", "derive", "--node", node, "--file", str(made), "--out", str(out))
    assert "not 1 to 64 ASCII characters without blanks" in said
    assert not out.exists()


def test_a_nodes_key_goes_through_a_pipe(made: Path) -> None:
    out = made.with_name("out")
    arguments = ("key", "derive", "--node", "node1", "--file", str(made))
    piped = ok(*arguments)
    ok(*arguments, "--out", str(out))
    assert piped == out.read_text()


def test_no_key_is_written_on_a_terminal(made: Path) -> None:
    derive = ("key", "derive", "--node", "node1", "--file", str(made))
    with Terminal([*COMMAND, *derive], environment=ENVIRONMENT) as terminal:
        assert terminal.end() == 1
        assert "give --out PATH" in terminal.text
        assert "signs" not in terminal.text


@pytest.mark.parametrize("rights", [0o644, 0o600])
def test_no_key_is_written_into_a_file_for_all_to_read(made: Path, rights: int) -> None:
    out = made.with_name("out")
    out.touch(rights)
    with out.open("w") as stream:
        done = subprocess.run(
            [*COMMAND, "key", "derive", "--node", "node1", "--file", str(made)],
            stdout=stream, stderr=subprocess.PIPE, check=False, env={**os.environ, **ENVIRONMENT},
        )  # fmt: skip
    if rights == 0o600:
        assert done.returncode == 0
        assert keys.read(str(out)).node == "node1"
    else:
        assert done.returncode == 1
        assert b"--out PATH" in done.stderr
        assert out.read_bytes() == b""


def test_a_nodes_key_replaces_its_older_one_and_never_the_clusters(made: Path) -> None:
    out = made.with_name("out")
    arguments = ("key", "derive", "--node", "node1", "--file", str(made), "--out")
    ok(*arguments, str(out))
    before = secrets(out)
    ok("key", "rotate", "--file", str(made))
    ok("key", "rotate", "--switch", "--file", str(made))
    ok(*arguments, str(out))
    assert secrets(out) != before
    whole = made.read_bytes()
    assert "is a cluster's key: not overwritten" in complaint(*arguments, str(made))
    assert made.read_bytes() == whole
    out.write_text("something else\n")
    out.chmod(0o600)
    complaint(*arguments, str(out))
    assert out.read_text() == "something else\n"


# ------------------------------------------------------------------ rotation


def test_each_step_says_the_next(made: Path) -> None:
    file = str(made)
    first = keys.read(file).signs
    staged = ok("key", "rotate", "--file", file).splitlines()
    second = keys.read(file).accepts
    assert second is not None
    assert keys.read(file).signs == first
    assert staged[0] == f"{file}: {second[0]:08x} is accepted too, {first[0]:08x} still signs"
    assert staged[1] == "next: copy this file to every other node"
    assert staged[2].endswith(f"'kdumpfence key rotate --switch --file {file}'")

    switched = ok("key", "rotate", "--switch", "--file", file).splitlines()
    assert (keys.read(file).signs, keys.read(file).accepts) == (second, first)
    assert switched[1] == "next: copy this file to every other node"
    assert "kdumpfence install-sender" in switched[2]
    assert switched[3].endswith(f"'kdumpfence key rotate --drop --file {file}'")

    dropped = ok("key", "rotate", "--drop", "--file", file).splitlines()
    assert (keys.read(file).signs, keys.read(file).accepts) == (second, None)
    assert dropped == [
        f"{file}: {first[0]:08x} is no longer accepted",
        "next: copy this file to every other node",
    ]
    assert "nothing to do" in ok("key", "rotate", "--drop", "--file", file)


def test_a_second_key_is_not_replaced_unseen(made: Path) -> None:
    file = str(made)
    assert "no other key to sign with" in complaint("key", "rotate", "--switch", "--file", file)
    for step in ([], ["--switch"]):
        ok("key", "rotate", *step, "--file", file)
        before = made.read_bytes()
        said = complaint("key", "rotate", "--file", file)
        assert "a rotation is under way" in said
        assert "rotate --switch" in said
        assert "rotate --drop" in said
        assert made.read_bytes() == before


class Local:
    """The command in this process, on files that it takes for this node's own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self.node_key = folder / "key", folder / "node-key"
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self._capsys.readouterr()
        status = main(["key", *arguments])
        done = self._capsys.readouterr()
        return status, done.out + done.err

    def install(self, node: str = "node1") -> None:
        """As install-sender does."""
        self.node_key.write_bytes(this_node.key_file(keys.read(str(self.file)), node))
        self.node_key.chmod(0o600)


@pytest.fixture
def local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Local:
    made = Local(tmp_path, capsys)
    monkeypatch.setattr(command, "DEFAULT_PATH", str(made.file))
    monkeypatch.setattr(layouts, "NODE_KEY", str(made.node_key))
    assert made("create")[0] == 0
    return made


def test_what_this_nodes_crash_kernel_signs_with_is_shown(local: Local) -> None:
    assert local("show")[1].count("\n") == 1
    local.install()
    first = keys.read(str(local.file)).signs[0]
    assert local("show")[1] == f"signs    {first:08x}\nnode-key {first:08x} of node1\n"
    local("rotate")
    local("rotate", "--switch")
    lines = local("show")[1].splitlines()
    assert lines[1:3] == [f"accepts  {first:08x}", f"node-key {first:08x} of node1"]
    assert lines[3].startswith("next, on this node: kdumpfence install-sender")
    local.install()
    assert len(local("show")[1].splitlines()) == 3


@pytest.mark.parametrize("wrong", ["another cluster's", "the same id"])
def test_a_node_key_that_nobody_accepts_is_warned_of(local: Local, wrong: str) -> None:
    number, key = keys.read(str(local.file)).signs
    if wrong == "another cluster's":
        number, key = keys.key_id(bytes(32)), bytes(32)
    local.node_key.write_text(keys.Keys((number, key), node="node1").text())
    local.node_key.chmod(0o600)
    assert "warning: no node that has this file accepts" in local("show")[1]


def test_a_node_that_has_its_own_key_alone_shows_that(local: Local) -> None:
    local.install()
    signs = keys.read(str(local.file)).signs[0]
    local.file.unlink()
    status, said = local("show")
    assert status == 0
    assert said.splitlines()[0] == f"node-key {signs:08x} of node1"
    assert "cannot fence with auth=sha256" in said


@pytest.mark.parametrize("there", [True, False])
def test_a_clusters_key_in_place_of_the_nodes_is_said(local: Local, there: bool) -> None:
    local.node_key.write_bytes(local.file.read_bytes())
    local.node_key.chmod(0o600)
    if not there:
        local.file.unlink()
    status, said = local("show")
    assert status == 1
    assert "Traceback" not in said
    assert ("is a cluster's key: 'kdumpfence install-sender'" in said) == there


def test_the_key_that_this_nodes_crash_kernel_signs_with_is_not_dropped(local: Local) -> None:
    local.install()
    local("rotate")
    local("rotate", "--switch")
    before = local.file.read_bytes()
    status, said = local("rotate", "--drop")
    assert status == 1
    assert "this node's crash kernel still signs with" in said
    assert "install-sender" in said
    assert local.file.read_bytes() == before
    local.install()
    assert local("rotate", "--drop")[0] == 0


def test_a_rotation_can_be_given_up_before_the_switch(local: Local) -> None:
    local.install()
    before = keys.read(str(local.file)).signs
    local("rotate")
    assert local("rotate", "--drop")[0] == 0
    found = keys.read(str(local.file))
    assert (found.signs, found.accepts) == (before, None)


NODES = ("node1", "node2", "node3")


def versions(file: Path) -> list[keys.Keys]:
    """The cluster's key file before the rotation, and after each of its steps."""
    found = [keys.read(str(file))]
    for step in ([], ["--switch"], ["--drop"]):
        assert main(["key", "rotate", *step, "--file", str(file)]) == 0
        found.append(keys.read(str(file)))
    return found


def refused(
    found: Sequence[keys.Keys], files: Sequence[int], images: Sequence[int]
) -> list[tuple[str, str]]:
    """The nodes whose crash is not recognised, and by whom.

    Each node has that version of the file, and an image that was built with that one.
    """
    faults = []
    for crashed, version in zip(NODES, images):
        image = keys.parse(this_node.key_file(found[version], crashed).decode())
        for survivor, own in zip(NODES, files):
            accepted = found[own].of(crashed)
            assert accepted is not None
            if accepted.by_id(image.signs[0]) != image.signs[1]:
                faults.append((crashed, survivor))
    return faults


@pytest.mark.parametrize("step", range(3))
def test_at_each_step_each_node_accepts_what_any_image_signs(made: Path, step: int) -> None:
    """All have done the step before. An image may be built at any time, as after an update; the
    second step is done when all have been built since.
    """
    found = versions(made)
    tried = 0
    for files in itertools.product((step, step + 1), repeat=len(NODES)):
        for images in itertools.product(*(range(2 if step == 2 else 0, at + 1) for at in files)):
            assert refused(found, files, images) == [], (files, images)
            tried += 1
    assert tried == (27, 125, 27)[step]


def test_whoever_does_not_wait_for_all_nodes_is_not_recognised(made: Path) -> None:
    found = versions(made)
    assert refused(found, (0, 2, 2), (0, 2, 2)) == [("node2", "node1"), ("node3", "node1")]
    assert refused(found, (2, 3, 3), (1, 2, 2)) == [("node1", "node2"), ("node1", "node3")]


# ------------------------------------------------------------------ killed anywhere

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([__name__])
_CHANGING = ("open", "write", "rename", "unlink", "mkdir", "fchmod", "fsync", "close")


def killed_at(number: int, arguments: Sequence[str]) -> bool:
    """Run the command, and kill it before that many of its calls; whether it came to its end."""
    child = FORKED.Process(target=_killed, args=(number, arguments))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode == 0


def _killed(number: int, arguments: Sequence[str]) -> None:
    left = itertools.count(number, -1)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            if next(left) == 0:
                if real is write:
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **named)

        return call

    write = os.write
    for name in _CHANGING:
        setattr(os, name, counted(getattr(os, name)))
    assert main(arguments) == 0
    os._exit(0)


def moments(arguments: Sequence[str]) -> Iterator[int]:
    """After each moment at which it was killed, to the end."""
    for number in range(500):
        ended = killed_at(number, arguments)
        yield number
        if ended:
            assert number > 8, "nothing was counted: are other calls used now?"
            return
    pytest.fail("it never came to its end")


def test_whenever_it_is_killed_there_is_no_key_or_a_whole_one(file: Path) -> None:
    for _ in moments(["key", "create", "--file", str(file)]):
        assert all(mode(path) == 0o600 for path in file.parent.iterdir())
        if file.exists():
            keys.read(str(file))
            file.unlink()
    # What a killed run left is in nobody's way.
    ok("key", "create", "--file", str(file))
    assert [path.name for path in file.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("step", ["rotate", "rotate --switch", "rotate --drop"])
def test_whenever_a_rotation_is_killed_the_old_keys_are_there_or_the_new(
    made: Path, step: str
) -> None:
    if step != "rotate":
        ok("key", "rotate", "--file", str(made))
    before = made.read_bytes()
    (first, second) = (keys.read(str(made)).signs, keys.read(str(made)).accepts)
    for _ in moments(["key", *step.split(), "--file", str(made)]):
        assert all(mode(path) == 0o600 for path in made.parent.iterdir())
        if made.read_bytes() != before:
            found = keys.read(str(made))
            if step == "rotate":
                assert found.signs == first
                assert found.accepts is not None
            else:
                assert found.signs == (second if step == "rotate --switch" else first)
                assert found.accepts == (first if step == "rotate --switch" else None)
            made.write_bytes(before)


def test_whenever_it_is_killed_a_nodes_key_is_the_older_one_or_the_newer(made: Path) -> None:
    out = made.with_name("out")
    ok("key", "derive", "--node", "node1", "--file", str(made), "--out", str(out))
    before = out.read_bytes()
    for _ in moments(["key", "derive", "--node", "node2", "--file", str(made), "--out", str(out)]):
        assert all(mode(path) == 0o600 for path in made.parent.iterdir())
        assert keys.read(str(out)).node in ("node1", "node2")
        out.write_bytes(before)
