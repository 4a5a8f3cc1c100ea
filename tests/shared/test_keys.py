# SPDX-License-Identifier: LGPL-2.1-or-later
"""Key files: what is read, what is refused, and that no complaint gives a key away."""

from __future__ import annotations

import errno
import json
import os
import posix
from pathlib import Path

import pytest

from kdumpfence import keys
from kdumpfence.keys import KeyFileError, Keys, parse, read
from tests.core import vectors
from tests.support.programs import NOBODY

(FIRST, SECOND, _) = json.loads(vectors.FILE.read_text())["keys"]
NODE_KEY = FIRST["node_keys"]["node1"]
SIGNS = f"signs {FIRST['key_id']} {FIRST['cluster_key']}\n"
ACCEPTS = f"accepts {SECOND['key_id']} {SECOND['cluster_key']}\n"
OF_NODE = f"node node1\nsigns {FIRST['key_id']} {NODE_KEY}\n"

Slot = tuple[int, bytes]


def slot(vector: dict[str, str], key: str = "") -> Slot:
    return int(vector["key_id"], 16), bytes.fromhex(key or vector["cluster_key"])


def held(found: Keys) -> tuple[Slot, Slot | None, str]:
    return found.signs, found.accepts, found.node


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the test is the current one, for a long path would be shown in part."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(folder: None) -> Path:
    path = Path("key")
    path.write_text(SIGNS)
    path.chmod(0o600)
    return path


def refused(path: Path | str) -> str:
    """What is said of this file; one line that has no key in it."""
    with pytest.raises(KeyFileError) as caught:
        read(str(path))
    return checked(caught)


def checked(caught: pytest.ExceptionInfo[KeyFileError]) -> str:
    said = str(caught.value)
    assert said.isprintable()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    for key in (FIRST["cluster_key"], SECOND["cluster_key"], NODE_KEY):
        assert not [at for at in range(0, 56) if key[at : at + 8] in said.lower()]
    return said


def test_the_clusters_file_has_one_key_or_two() -> None:
    assert held(parse(SIGNS)) == (slot(FIRST), None, "")
    assert held(parse(ACCEPTS + SIGNS)) == (slot(FIRST), slot(SECOND), "")


def test_a_nodes_file_has_its_name_and_its_key() -> None:
    assert held(parse(OF_NODE)) == (slot(FIRST, NODE_KEY), None, "node1")


@pytest.mark.parametrize(
    "text",
    [
        f"\n# signs 1 2\n   #\n\t{SIGNS}\n",
        SIGNS.replace("\n", "\r\n"),
        SIGNS.rstrip(),
        SIGNS.replace(" ", " \t  "),
        SIGNS.replace(FIRST["cluster_key"], FIRST["cluster_key"].upper()),
    ],
)
def test_blanks_comments_and_capital_digits_do_not_matter(text: str) -> None:
    assert held(parse(text)) == (slot(FIRST), None, "")


@pytest.mark.parametrize(
    "found",
    [
        Keys(slot(FIRST)),
        Keys(slot(FIRST), slot(SECOND)),
        Keys(slot(FIRST, NODE_KEY), None, "node1"),
        Keys(slot(FIRST, NODE_KEY), slot(SECOND, SECOND["node_keys"]["node1"]), "node1"),
    ],
)
def test_what_is_written_is_read_again(found: Keys) -> None:
    assert held(parse(found.text())) == held(found)


NOT_A_LINE = "not 'signs ID KEY', 'accepts ID KEY' or 'node NAME'"
NOT_A_KEY = "not a key id of 8 and a key of 64 hexadecimal digits"
NUMBER, KEY = FIRST["key_id"], FIRST["cluster_key"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no line 'signs ID KEY'"),
        ("# empty\n", "no line 'signs ID KEY'"),
        (ACCEPTS, "no line 'signs ID KEY'"),
        ("node node1\n", "no line 'signs ID KEY'"),
        (SIGNS + SIGNS, "line 2: 'signs' for the second time"),
        (SIGNS + ACCEPTS + "\n" + ACCEPTS, "line 4: 'accepts' for the second time"),
        (OF_NODE + "node node2\n", "line 3: 'node' for the second time"),
        (SIGNS + f"{KEY}\n", f"line 2: {NOT_A_LINE}"),
        (f"{NUMBER} {KEY}\n", f"line 1: {NOT_A_LINE}"),
        (f"signs {KEY}\n", f"line 1: {NOT_A_LINE}"),
        (f"signs {NUMBER} {KEY} {KEY}\n", f"line 1: {NOT_A_LINE}"),
        (f"Signs {NUMBER} {KEY}\n", f"line 1: {NOT_A_LINE}"),
        (SIGNS + "\0", f"line 2: {NOT_A_LINE}"),
        (SIGNS + "node\n", f"line 2: {NOT_A_LINE}"),
        (SIGNS + "node a b\n", f"line 2: {NOT_A_LINE}"),
        (SIGNS + f"node {'n' * 65}\n", f"line 2: {NOT_A_LINE}"),
        (SIGNS + "node n\x7f\n", f"line 2: {NOT_A_LINE}"),
        (f"signs {NUMBER} {KEY[:-2]}\n", f"line 1: {NOT_A_KEY}"),
        (f"signs {NUMBER} {KEY}00\n", f"line 1: {NOT_A_KEY}"),
        (f"signs {NUMBER} {KEY[:-1]}g\n", f"line 1: {NOT_A_KEY}"),
        (f"signs {NUMBER} {KEY[:-1]}\n", f"line 1: {NOT_A_KEY}"),
        (f"signs {NUMBER[1:]} {KEY}\n", f"line 1: {NOT_A_KEY}"),
        (f"signs 00{NUMBER} {KEY}\n", f"line 1: {NOT_A_KEY}"),
        (f"signs 00000000 {KEY}\n", f"line 1: {NOT_A_KEY}"),
        (f"signs 0x123456 {KEY}\n", f"line 1: {NOT_A_KEY}"),
        (f"signs +1234567 {KEY}\n", f"line 1: {NOT_A_KEY}"),
        (f"signs 12_34567 {KEY}\n", f"line 1: {NOT_A_KEY}"),
        (f"signs {NUMBER} {KEY[:31]}_{KEY[:32]}\n", f"line 1: {NOT_A_KEY}"),
        (
            f"signs {SECOND['key_id']} {KEY}\n",
            "'signs': the id is not that of the key, one of them is mistyped",
        ),
        (
            SIGNS + f"accepts 00000001 {SECOND['cluster_key']}\n",
            "'accepts': the id is not that of the key, one of them is mistyped",
        ),
    ],
)
def test_what_is_no_key_file_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        parse(text)
    assert checked(caught) == complaint


def test_one_wrong_digit_in_a_cluster_key_is_noticed() -> None:
    at = SIGNS.index(KEY) + 5
    digit = "0" if SIGNS[at] != "0" else "1"
    with pytest.raises(KeyFileError, match="'signs': the id is not that of the key"):
        parse(SIGNS[:at] + digit + SIGNS[at + 1 :])


def test_the_keys_of_a_node_are_derived_from_both_of_the_clusters() -> None:
    of_node = parse(SIGNS + ACCEPTS).of("node1")
    assert of_node
    other = SECOND["node_keys"]["node1"]
    assert held(of_node) == (slot(FIRST, NODE_KEY), slot(SECOND, other), "node1")
    only = parse(SIGNS).of("x")
    assert only
    assert held(only) == (slot(FIRST, FIRST["node_keys"]["x"]), None, "x")


def test_a_nodes_keys_are_nobody_elses() -> None:
    own = parse(OF_NODE)
    assert own.of("node1") is own
    assert own.of("node2") is None
    assert own.of("NODE1") is None


@pytest.mark.parametrize("name", ["", "a b", "n" * 65, "n\u00f6de", "a\n"])
def test_a_name_that_no_packet_can_carry_has_no_key(name: str) -> None:
    with pytest.raises(ValueError, match="not 1 to 64 ASCII characters without blanks"):
        parse(SIGNS).of(name)


def test_the_id_says_which_key() -> None:
    both = parse(SIGNS + ACCEPTS)
    for vector in (FIRST, SECOND):
        assert both.by_id(int(vector["key_id"], 16)) == bytes.fromhex(vector["cluster_key"])
    for number in (0, 1, int(FIRST["key_id"], 16) ^ 1):
        assert both.by_id(number) is None
    assert parse(SIGNS).by_id(int(SECOND["key_id"], 16)) is None


def test_an_id_is_never_that_of_unsigned_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "mac", lambda _key, _data: bytes(32))
    assert keys.key_id(bytes(32)) == 1


def test_keys_are_not_shown_by_accident() -> None:
    found = parse(SIGNS)
    assert KEY[:8] not in repr(found) + str(found)
    assert not hasattr(found, "__dict__")


def test_a_file_is_read(file: Path) -> None:
    assert held(read(str(file))) == (slot(FIRST), None, "")


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_its_owner_may_have_any_right(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert read(str(file))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666])
def test_others_may_have_none(file: Path, mode: int) -> None:
    file.chmod(mode)
    said = f"mode {mode:04o}, others have rights to it: must be 0600"
    assert refused(file) == f"key file 'key': {said}"


def test_it_is_roots_or_that_of_whoever_runs(
    root: None, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(file, NOBODY, NOBODY)
    assert refused(file) == f"key file 'key': owned by user {NOBODY}, must be root's"
    monkeypatch.setattr(posix, "geteuid", lambda: NOBODY)
    assert read(str(file))
    os.chown(file, 0, 0)
    assert read(str(file))


def test_a_link_is_followed_to_a_file_that_is_judged_itself(file: Path) -> None:
    link = Path("link")
    link.symlink_to(file)
    assert read(str(link))
    file.chmod(0o644)
    assert "mode 0644" in refused(link)
    file.unlink()
    assert "No such file" in refused(link)


def test_a_fifo_holds_nobody_up(folder: None) -> None:
    os.mkfifo("fifo", 0o600)
    assert refused("fifo") == "key file 'fifo': not a regular file"


@pytest.mark.parametrize("path", [".", "/dev/zero"])
def test_neither_a_folder_nor_a_device_is_a_key_file(path: str) -> None:
    assert refused(path) == f"key file '{path}': not a regular file"


def test_a_missing_file_is_said_with_what_makes_one(folder: None) -> None:
    said = (
        "key file 'none': No such file or directory; copy it from another node, or make the first "
        "with 'kdumpfence key create'"
    )
    assert refused("none") == said


def test_what_the_system_says_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, length: int) -> bytes:
        raise OSError(errno.EIO, "told")

    assert refused("key/x") == "key file 'key/x': Not a directory"
    monkeypatch.setattr(posix, "read", fail)
    assert refused(file) == "key file 'key': Input/output error"


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_what_can_be_no_path_is_refused(path: str) -> None:
    assert refused(path).endswith(": no name of a file")


def test_a_file_has_a_most(file: Path) -> None:
    filler = "#" * 79 + "\n"
    file.write_text(SIGNS + filler * 800)
    assert file.stat().st_size < keys.MOST_BYTES
    assert read(str(file))
    file.write_text(SIGNS + filler * 820)
    assert refused(file) == f"key file 'key': more than {keys.MOST_BYTES} bytes"
    file.write_bytes(SIGNS.encode().ljust(keys.MOST_BYTES, b"\n"))
    assert read(str(file))


def test_what_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff" + bytes.fromhex(KEY))
    assert refused(file) == "key file 'key': not text"


def test_what_is_wrong_in_it_is_said_with_its_name(file: Path) -> None:
    file.write_text(f"\nsigns {KEY}\n")
    assert refused(file) == f"key file 'key': line 2: {NOT_A_LINE}"


def test_no_descriptor_is_left_open(file: Path) -> None:
    before = os.listdir("/proc/self/fd")
    read(str(file))
    file.chmod(0o644)
    for path in (file, "."):
        refused(path)
    assert os.listdir("/proc/self/fd") == before
