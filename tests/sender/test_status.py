# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the sender says with --key-file, --node and --state, in each of its forms."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kdumpfence.keys import Keys
from kdumpfence.wire import OWN_MESSAGE, packet_fits
from tests.conftest import udp
from tests.sender.conftest import (
    CLUSTER_KEY,
    CLUSTER_KEYS,
    KEY_ID,
    key_of,
    packet_of,
    run,
    written,
)
from tests.support.programs import environment, sender, unwarned

HOST = os.uname().nodename
ID = f"{KEY_ID:08x}"
KEY = CLUSTER_KEY.hex()
A_NAME = "not 1 to 64 ASCII characters without blanks"
NOT_THE_NODES = (
    "the cluster's key does not belong in a crash image; 'kdumpfence key derive' makes the "
    "node's own"
)


@pytest.mark.parametrize(
    ("argv", "name", "state"),
    [
        (["--state", "finished"], HOST, "finished"),
        (["--node", "n1"], "n1", "dumping"),
        (["--node", "n1", "--state=FAILED"], "n1", "failed"),
        (["--state", "started"], HOST, "started"),
        # However it is given.
        (["--state=?"], HOST, "dumping"),
        (["--node="], HOST, "dumping"),
        (["--key-file", "/nowhere"], HOST, "dumping"),
        (["--key-file", "-i", "10"], HOST, "dumping"),
    ],
)
def test_with_one_of_its_options_the_message_is_a_packet(
    form: str, sock: socket.socket, port: str, argv: list[str], name: str, state: str
) -> None:
    done = run(form, *argv, "-p", port, "-c", "1", "127.0.0.1")
    assert done.returncode == 0
    data = sock.recv(1000)
    assert data[:8] == OWN_MESSAGE  # in the byte order of this machine
    packet = packet_of(data)
    assert (packet.kind, packet.name, packet.state) == ("status", name, state)
    assert (packet.key_id, packet.nonce, packet.sequence) == (0, bytes(16), 1)
    assert packet.interval == 10_000
    assert packet.session != 0


def test_a_packet_is_signed_with_the_nodes_key_and_has_its_name(
    form: str, sock: socket.socket, port: str, key_file: str
) -> None:
    done = run(form, "--key-file", key_file, "-v", "-p", port, "-c", "1", "127.0.0.1")
    assert unwarned(done.stderr) == ""
    assert f"[debug]: node 'node1': dumping, signed with key {ID}\n" in done.stdout
    data = sock.recv(1000)
    assert (packet_of(data).name, packet_of(data).key_id) == ("node1", KEY_ID)
    assert packet_fits(data, key_of("node1"))


@pytest.mark.slow
def test_sequences_rise_within_a_session_and_sessions_differ(
    form: str, sock: socket.socket, port: str
) -> None:
    for _ in range(2):
        run(form, "--node", "n1", "-p", port, "-c", "3", "-i", "1", "127.0.0.1")
    packets = [packet_of(sock.recv(1000)) for _ in range(6)]
    assert [packet.sequence for packet in packets] == [1, 2, 3, 1, 2, 3]
    first, second = packets[:3], packets[3:]
    assert {packet.interval for packet in packets} == {1000}
    assert len({packet.session for packet in first}) == 1
    assert len({packet.session for packet in second}) == 1
    assert first[0].session != second[0].session


def test_all_that_is_sent_at_a_time_is_one_packet(
    form: str, sock: socket.socket, port: str
) -> None:
    others = [udp(host, int(port)) for host in ("127.0.0.2", "127.0.0.3", "::1")]
    hosts = [other.getsockname()[0] for other in (sock, *others)]
    run(form, "--node", "n1", "-p", port, "-c", "1", *hosts)
    assert len({other.recv(1000) for other in (sock, *others)}) == 1
    for other in others:
        other.close()


def test_an_interval_that_is_too_long_for_a_packet_is_as_long_as_can_be(
    form: str, sock: socket.socket, port: str
) -> None:
    run(form, "--node", "n1", "-p", port, "-c", "1", "-i", "2147483647", "127.0.0.1")
    assert packet_of(sock.recv(1000)).interval == 2**32 - 1


# --------------------------------------------------------------------- names and keys


def check(form: str, *argv: str) -> tuple[int, list[str], str]:
    """The status, what is said of the packets, and the complaints."""
    done = run(form, "--check", "-v", *argv, "127.0.0.1")
    said = [line for line in done.stdout.splitlines() if "signed" in line]
    return done.returncode, said, done.stderr


def says(name: str, signed: bool = True) -> list[str]:
    how = f"signed with key {ID}" if signed else "not signed"
    return [f"[debug]: node '{name}': dumping, {how}"]


def test_a_check_tells_of_the_packets_and_is_satisfied(form: str, key_file: str) -> None:
    assert check(form, "--key-file", key_file) == (0, says("node1"), "")
    assert check(form, "--key-file", key_file, "--node", "node1") == (0, says("node1"), "")
    assert check(form, "--node", "it's") == (0, says("it\\x27s", signed=False), "")
    assert check(form) == (0, [], "")


def test_the_keys_node_counts_more_than_another_name(
    form: str, sock: socket.socket, port: str, key_file: str
) -> None:
    argv = ("--node", "node2", "--key-file", key_file)
    complaint = "[warning]: node 'node2': the key is that of node 'node1'; using 'node1'\n"
    assert check(form, *argv) == (1, says("node1"), complaint)
    done = run(form, *argv, "-p", port, "-c", "1", "127.0.0.1")
    assert unwarned(done.stderr) == complaint
    assert packet_fits(sock.recv(1000), key_of("node1"))


@pytest.mark.parametrize("name", ["", "node7"])
def test_with_the_clusters_key_the_nodes_own_is_derived(
    form: str, sock: socket.socket, port: str, tmp_path: Path, name: str
) -> None:
    path = written(tmp_path, CLUSTER_KEYS.text())
    argv = ["--key-file", path] + (["--node", name] if name else [])
    complaint = f"[warning]: key file '{path}': {NOT_THE_NODES}\n"
    assert check(form, *argv) == (1, says(name or HOST), complaint)
    done = run(form, *argv, "-p", port, "-c", "1", "127.0.0.1")
    assert unwarned(done.stderr) == complaint
    data = sock.recv(1000)
    assert packet_of(data).name == (name or HOST)
    assert packet_fits(data, key_of(name or HOST))


OTHER = bytes(32)
LINE = "not 'signs ID KEY', 'accepts ID KEY' or 'node NAME'"
SLOT = "not a key id of 8 and a key of 64 hexadecimal digits"
MISTYPED = "the id is not that of the key, one of them is mistyped"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no line 'signs ID KEY'"),
        ("# signs\n\nnode n1\n", "no line 'signs ID KEY'"),
        (f"accepts {ID} {KEY}", "no line 'signs ID KEY'"),
        (b"\xff", "not text"),
        ("#" * 65537, "more than 65536 bytes"),
        (f"\nsigns {ID}", f"line 2: {LINE}"),
        (f"signs {ID} {KEY} x", f"line 1: {LINE}"),
        (f"Signs {ID} {KEY}", f"line 1: {LINE}"),
        (f"signs {ID} {KEY}\nnode", f"line 2: {LINE}"),
        (f"signs {ID} {KEY}\nnode n1 n2", f"line 2: {LINE}"),
        (f"signs {ID} {KEY}\nnode {'x' * 65}", f"line 2: {LINE}"),
        (f"signs {ID} {KEY}\nnode n\x01", f"line 2: {LINE}"),
        (f"signs\0 {ID} {KEY}", f"line 1: {LINE}"),
        (f"signs {ID[1:]} {KEY}", f"line 1: {SLOT}"),
        (f"signs {ID} {KEY}0", f"line 1: {SLOT}"),
        (f"signs {ID} {KEY[1:]}g", f"line 1: {SLOT}"),
        (f"node n1\nsigns 00000000 {KEY}", f"line 2: {SLOT}"),
        (f"node n1\nsigns -1234567 {KEY}", f"line 2: {SLOT}"),
        (f"node n1\nsigns 0x123456 {KEY}", f"line 2: {SLOT}"),
        (f"node n1\nsigns 12_34567 {KEY}", f"line 2: {SLOT}"),
        (f"signs {ID} {KEY}\naccepts {ID} x", f"line 2: {SLOT}"),
        (f"signs {ID} {KEY}\nsigns x", "line 2: 'signs' for the second time"),
        (f"accepts {ID} {KEY}\naccepts", "line 2: 'accepts' for the second time"),
        ("node n1\nnode", "line 2: 'node' for the second time"),
        (f"signs {ID} {OTHER.hex()}", f"'signs': {MISTYPED}"),
        (f"accepts {ID} {OTHER.hex()}\nsigns {ID} {KEY}", f"'accepts': {MISTYPED}"),
        (f"accepts {ID} {OTHER.hex()}\nsigns {ID} {OTHER.hex()}", f"'accepts': {MISTYPED}"),
    ],
)
def test_a_key_file_that_is_none_costs_the_signature_alone(
    form: str, tmp_path: Path, text: str, why: str
) -> None:
    path = written(tmp_path, text)
    complaint = f"[warning]: key file '{path}': {why}; not signing\n"
    assert check(form, "--key-file", path) == (1, says(HOST, signed=False), complaint)


@pytest.mark.parametrize(
    "text",
    [
        f"node node1\r\nsigns\t{ID}\v{KEY}\r\n",
        f"  node\x1cnode1\n\x1f# more\n signs {ID.upper()} {KEY.upper()}",
        f"#\0\nsigns {ID} {KEY}\nnode node1\naccepts {ID} {OTHER.hex()}\n",
        "#" * (65536 - 100) + f"\nnode node1\nsigns {ID} {KEY}",
    ],
)
def test_a_key_file_may_be_written_in_many_ways(form: str, tmp_path: Path, text: str) -> None:
    assert check(form, "--key-file", written(tmp_path, text)) == (0, says("node1"), "")


@pytest.mark.parametrize("mode", [0o640, 0o602])
def test_a_key_that_others_could_know_is_not_used(form: str, tmp_path: Path, mode: int) -> None:
    text = Keys((KEY_ID, key_of("node1")), None, "node1").text()
    path = written(tmp_path, text, mode)
    why = f"mode {mode:04o}, others have rights to it: must be 0600"
    unsigned = says(HOST, signed=False)
    refused = f"[warning]: key file '{path}': {why}; not signing\n"
    assert check(form, "--key-file", path) == (1, unsigned, refused)
    os.chmod(path, 0o400)
    assert check(form, "--key-file", path) == (0, says("node1"), "")


def test_a_key_of_another_user_is_not_used(form: str, root: None, key_file: str) -> None:
    os.chown(key_file, 65534, -1)
    refused = (
        f"[warning]: key file '{key_file}': owned by user 65534, must be root's; not signing\n"
    )
    assert check(form, "--key-file", key_file) == (1, says(HOST, signed=False), refused)


def test_what_is_no_file_costs_no_time(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a long path would be cut in what is said
    os.mkfifo("fifo")
    for path, why in (
        ("fifo", "not a regular file"),
        (".", "not a regular file"),
        ("/dev/full", "not a regular file"),
        ("missing", "No such file or directory"),
        ("fifo/key", "Not a directory"),
    ):
        refused = f"[warning]: key file '{path}': {why}; not signing\n"
        assert check(form, "--key-file", path) == (1, says(HOST, signed=False), refused)


def on_host(form: str, name: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """A check on a machine of that name."""
    rename = 'printf %s "$0" > /proc/sys/kernel/hostname; exec "$@"'
    return subprocess.run(
        ["unshare", "--uts", "sh", "-c", rename, name, sender(form), "--check", "-v", *argv]
        + ["127.0.0.1"],
        env=environment(form), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["it's", "(none)", "x" * 64])
def test_without_another_name_it_is_the_hosts(form: str, root: None, name: str) -> None:
    done = on_host(form, name, "--state=dumping")
    shown = name.replace("'", "\\x27")
    assert f"[debug]: node '{shown}': dumping, not signed\n" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "shown"), [("a b", "a b"), ("n\u00f6", "n\\xc3\\xb6")])
def test_a_host_name_that_no_packet_can_carry_is_complained_of_if_it_is_needed(
    form: str, root: None, key_file: str, name: str, shown: str
) -> None:
    done = on_host(form, name, "--state=dumping")
    assert "[debug]: node 'unknown': dumping, not signed\n" in done.stdout
    assert done.stderr == f"[warning]: host name '{shown}': {A_NAME}; using unknown\n"
    assert done.returncode == 1
    for argv in ((), ("--node=n",), ("--key-file", key_file)):
        done = on_host(form, name, *argv)
        assert (done.returncode, done.stderr) == (0, "")


def test_complaints_stand_behind_those_of_the_command_line(
    form: str, root: None, tmp_path: Path
) -> None:
    path = written(tmp_path, CLUSTER_KEYS.text())
    done = on_host(form, "a b", "--key-file", path, "--node=\u00f6", "-ix")
    assert done.stderr.splitlines() == [
        f"[warning]: node '\\xc3\\xb6': {A_NAME}; ignored",
        "[warning]: interval 'x': not a whole number of seconds (1 to 2147483647); using 10",
        f"[warning]: key file '{path}': {NOT_THE_NODES}",
        f"[warning]: host name 'a b': {A_NAME}; using unknown",
    ]


# ------------------------------------------------------------------------- in Python


@pytest.mark.parametrize("argv", [[], ["--node=n", "--state=failed"]])
def test_without_a_key_nothing_is_loaded_for_one(argv: list[str]) -> None:
    code = (
        "import sys; from kdumpfence.sender.main import main; main(sys.argv[1:]); "
        "sys.exit(str({'hmac', 'hashlib', '_hashlib', 'kdumpfence.keys'} & {*sys.modules}))"
    )
    line = [sys.executable, "-c", code, *argv, "-p", "9", "-c", "1", "127.0.0.1"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert unwarned(done.stderr) == "set()\n"
