# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent as a process that asks, on loopback, with both cores; with a key and without."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdumpfence
from tests.conftest import load_core, udp, unused_port
from tests.support import packets
from tests.support.answerer import (
    CURRENT,
    FOREIGN,
    PREVIOUS,
    Answer,
    Answerer,
    alive,
    dumping,
    key_text,
    packet,
    silent,
    write_key,
)
from tests.support.messages import MESSAGE
from tests.support.programs import AGENT, as_user, environment, start

NODE, STRANGER = "127.0.0.61", "127.0.0.62"


@contextlib.contextmanager
def node(answer: Answer, host: str = NODE) -> Iterator[tuple[Answerer, str]]:
    """A node that answers like this, and the port it is asked at."""
    with udp(host, unused_port()) as sock, Answerer(sock, answer=answer) as answering:
        yield answering, str(sock.getsockname()[1])


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key", key_text(CURRENT, PREVIOUS))


def asks(
    core: str, port: str, *argv: str, nodes: str = f"node1,{NODE}", seconds: int = 30
) -> subprocess.Popen[str]:
    # The name resolves to nothing: what it is called counts all the same.
    argv = ("-n", nodes, "-p", port, "-t", str(seconds), *argv)
    return start([AGENT, *argv], core)


def signed(key_file: Path) -> tuple[str, ...]:
    return ("--auth=sha256", f"--key-file={key_file}")


def ended(agent: subprocess.Popen[str], within: float = 60) -> tuple[int, str, str]:
    out, err = agent.communicate(timeout=within)
    return agent.returncode, out, err


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "node1': " not in line]


# ------------------------------------------------------------------ yes


def test_an_answer_of_its_address_is_a_yes(core_name: str) -> None:
    with node(lambda told: [packet("status", told.nonce, key=None)]) as (_, port):
        status, out, _ = ended(asks(core_name, port))
    assert status == 0
    assert f"[debug]: received valid message from '{NODE}' (node1,{NODE})\n" in out


@pytest.mark.parametrize("key", [CURRENT, PREVIOUS], ids=["current", "previous"])
def test_a_signed_answer_is_a_yes_that_says_so(core_name: str, key: bytes, key_file: Path) -> None:
    with node(lambda told: [packet("status", told.nonce, key=key)]) as (answering, port):
        status, out, _ = ended(asks(core_name, port, *signed(key_file)))
        question = answering.questions[0][0]
    assert status == 0
    number = packets.key_id(key)
    assert f"received signed answer of 'node1' from {NODE}, key {number:08x}\n" in out
    assert question == packet("question", packets.field(question, "nonce"))


def test_each_wait_has_a_nonce_of_its_own_and_asks_again_with_the_same(core_name: str) -> None:
    nonces: list[bytes] = []
    for _ in range(2):
        with node(silent) as (answering, port):
            ended(asks(core_name, port, seconds=1))
            asked = {packets.field(data, "nonce") for data, _ in answering.questions}
            assert 3 <= len(answering.questions) <= 6
            assert len(asked) == 1
            nonces += asked
    assert len({*nonces, bytes(16)}) == 3


def test_at_verbose_it_says_how_much_was_asked(core_name: str) -> None:
    with node(dumping) as (_, port):
        _, out, _ = ended(asks(core_name, port, "-v"))
    assert "\n[debug]: questions: 1, answers: 1\n" in out


def test_the_options_may_come_by_stdin(core_name: str, key_file: Path) -> None:
    # As Pacemaker does it: what is not looked up because of the addresses names the key.
    with node(dumping) as (_, port):
        agent = start([AGENT], core_name, stdin=subprocess.PIPE)
        options = f"nodename=node1\naction=off\nport=node1\nplug={NODE}\nipport={port}\n"
        options += f"timeout=30\nauth=sha256\nkey_file={key_file}\nalive_grace=5\n"
        out, err = agent.communicate(options, timeout=60)
    assert (agent.returncode, err) == (0, "")
    assert "received signed answer of 'node1'" in out


# ------------------------------------------------------------------ not a yes


FORGERIES = {
    "unsigned": {"key": None},
    "another cluster's key": {"key": FOREIGN},
    "another cluster's key that is said to be ours": {
        "key": FOREIGN,
        "key_id": packets.key_id(CURRENT),
    },
    "another node's key": {"signed_as": "node2"},
    "another node": {"name": "node2"},
}


@pytest.mark.slow
def test_what_the_node_did_not_sign_is_not_believed_and_it_is_said_why(
    core_name: str, key_file: Path
) -> None:
    def forge(told: packets.Told) -> list[bytes]:
        good = packet("status", told.nonce)
        forged = [packet("status", told.nonce, **how) for how in FORGERIES.values()]  # type: ignore[arg-type]
        return [*forged, packet("status"), packet("status", bytes(15) + b"\1"), MESSAGE, good[:-1]]

    with node(forge) as (answering, port):
        agent = asks(core_name, port, *signed(key_file), seconds=2)
        answering.question()
        with udp(NODE) as speaking:
            speaking.sendto(MESSAGE, ("127.0.0.1", int(port)))
            status, out, err = ended(agent)
    assert status == 1
    number, foreign = packets.key_id(CURRENT), packets.key_id(FOREIGN)
    its = f"status of 'node1' from {NODE}"
    unsigned = (f"{its}, unsigned", f"an unsigned message from {NODE}")  # whichever came first
    assert sum(out.count(f"[debug]: ignoring {line} (auth=sha256)\n") for line in unsigned) == 1
    said = [
        f"{its} with key id {foreign:08x}, which the key file does not have",
        f"{its} with key id {number:08x}: not signed with the key that this node has",
        f"status of 'node2' from {NODE}: that is no name of the node",
    ]
    for line in said:
        assert out.count(f"[debug]: ignoring {line} (auth=sha256)\n") == 1
        assert err.count(f"[error]: not believed: {line}\n") == 1
    assert "[debug]: timeout after 2 seconds\n" in out


@pytest.mark.slow
def test_no_single_bit_of_an_answer_can_be_changed(core_name: str, key_file: Path) -> None:
    def flipped(told: packets.Told) -> list[bytes]:
        good = packet("status", told.nonce)
        number = int.from_bytes(good, "big")
        return [(number ^ 1 << bit).to_bytes(len(good), "big") for bit in range(8 * len(good))]

    with node(flipped) as (_, port):
        status, out, _ = ended(
            asks(core_name, port, *signed(key_file), "--alive-grace=0", seconds=2)
        )
    assert status == 1
    assert "timeout" in out


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (MESSAGE, f"an unsigned message from {NODE}"),
        (packet("status", key=None), f"status of 'node1' from {NODE}, unsigned"),
    ],
)
@pytest.mark.slow
def test_an_unsigned_message_is_not_believed_where_signed_answers_count(
    core_name: str, key_file: Path, data: bytes, what: str
) -> None:
    with node(silent) as (answering, port), udp(NODE) as speaking:
        agent = asks(core_name, port, *signed(key_file), seconds=2)
        answering.question()
        for _ in range(3):
            speaking.sendto(data, ("127.0.0.1", int(port)))
        status, out, err = ended(agent)
    assert status == 1
    assert out.count(f"[debug]: ignoring {what} (auth=sha256)\n") == 1
    assert err.count(f"[error]: not believed: {what}\n") == 1
    assert "[debug]: datagrams to the port: 3 of the node\n" in out


@pytest.mark.slow
def test_what_was_recorded_is_a_reason_to_ask_and_no_more(core_name: str, key_file: Path) -> None:
    with node(silent) as (answering, port), udp(NODE) as speaking:
        agent = asks(core_name, port, *signed(key_file), seconds=2)
        answering.question()
        speaking.settimeout(10)
        for nonce in (bytes(16), bytes(15) + b"\1"):
            speaking.sendto(packet("status", nonce), ("127.0.0.1", int(port)))
        assert speaking.recv(999) == answering.questions[0][0]
        status, _, err = ended(agent)
    assert status == 1
    assert f"the node signed a message from {NODE}, but no answer to a question" in err


@pytest.mark.slow
def test_without_a_key_an_answer_needs_the_nodes_address_and_the_nonce(core_name: str) -> None:
    with node(lambda _: [packet("status"), MESSAGE]) as (answering, port), udp(STRANGER) as other:
        agent = asks(core_name, port, "--alive-grace=0", seconds=2)
        _, peer = answering.question()
        for kind in ("status", "alive"):
            other.sendto(packet(kind, answering.nonce()), peer)
        status, out, _ = ended(agent)
    assert status == 1
    assert "timeout" in out


# ------------------------------------------------------------------ keys that are not to be had


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (
            None,
            0o600,
            "No such file or directory; copy it from another node, or make the first with "
            "'kdumpfence key create'",
        ),
        ("rubbish\n", 0o600, "line 1: not 'signs ID KEY'"),
        (key_text(), 0o644, "mode 0644, others have rights to it: must be 0600"),
        ("", 0o600, "no line 'signs ID KEY'"),
    ],
)
@pytest.mark.parametrize("action", ["off", "validate-all"])
def test_a_key_that_cannot_be_read_is_a_no_at_once(
    core_name: str, tmp_path: Path, text: str | None, mode: int, why: str, action: str
) -> None:
    path = tmp_path / "key"
    if text is not None:
        write_key(path, text).chmod(mode)
    agent = asks(core_name, str(unused_port()), *signed(path), "-o", action, nodes=f"node1,{NODE}")
    status, _, err = ended(agent, within=20)
    assert status == 1
    assert f"[error]: key file '{path}': {why}" in err
    assert "Traceback" not in err


def test_without_a_key_nobody_looks_for_the_file(core_name: str, tmp_path: Path) -> None:
    with node(dumping) as (_, port):
        assert ended(asks(core_name, port, f"--key-file={tmp_path}/none"))[0] == 0


@pytest.mark.parametrize("action", ["off", "validate-all"])
def test_a_node_without_a_name_has_no_key(core_name: str, key_file: Path, action: str) -> None:
    options = (*signed(key_file), "-o", action)
    status, _, err = ended(asks(core_name, str(unused_port()), *options, nodes=NODE), within=20)
    assert status == 1
    assert "no name of the node was given beside its addresses" in err


def test_nor_has_one_that_is_called_otherwise_than_the_file(core_name: str, tmp_path: Path) -> None:
    number, key = packets.key_id(CURRENT), packets.node_key(CURRENT, "node2")
    path = write_key(tmp_path / "key", f"node node2\nsigns {number:08x} {key.hex()}\n")
    status, _, err = ended(asks(core_name, str(unused_port()), *signed(path)), within=20)
    assert status == 1
    assert err == f"[error]: key file '{path}': has the key of 'node2', not of node1\n"


def test_validate_all_is_content_with_a_good_key(core_name: str, key_file: Path) -> None:
    options = (*signed(key_file), "-o", "validate-all")
    assert ended(asks(core_name, str(unused_port()), *options, nodes="localhost,::1"))[0] == 1
    agent = start([AGENT], core_name, stdin=subprocess.PIPE)
    options_of_pacemaker = f"action=validate-all\nnodename=node1\nauth=sha256\nkey_file={key_file}"
    _, err = agent.communicate(options_of_pacemaker, timeout=60)
    assert (agent.returncode, err) == (0, "")


# ------------------------------------------------------------------ alive


@pytest.mark.parametrize("auth", ["none", "sha256"])
@pytest.mark.slow
def test_a_node_that_is_alive_is_a_no_before_the_time_out(
    core_name: str, auth: str, key_file: Path
) -> None:
    with node(alive) as (_, port):
        began = time.monotonic()
        options = (f"--auth={auth}", f"--key-file={key_file}", "--alive-grace=2")
        status, out, err = ended(asks(core_name, port, *options))
        took = time.monotonic() - began
    assert status == 1
    assert lines(err) == [
        "[error]: node 'node1' is alive: it has answered for 2 s, so it is not dumping"
    ]
    assert "timeout" not in out
    assert 2 <= took < 10


def test_with_grace_0_it_is_one_at_the_first_answer(core_name: str) -> None:
    with node(alive) as (_, port):
        status, _, err = ended(asks(core_name, port, "--alive-grace=0"), within=20)
    assert status == 1
    assert "[error]: node 'node1' is alive: it has answered, so it is not dumping" in err


@pytest.mark.parametrize("grace", ["-1", "2"])
@pytest.mark.slow
def test_with_grace_minus_1_or_as_long_as_the_time_out_the_time_out_rules(
    core_name: str, grace: str
) -> None:
    with node(alive) as (_, port):
        status, out, err = ended(asks(core_name, port, "--alive-grace", grace, seconds=2))
    assert status == 1
    assert "[debug]: timeout after 2 seconds\n" in out
    assert lines(err) == [
        "[error]: node 'node1' answered that it is alive; waited all the same "
        f"(alive_grace={grace})",
        "[error]: never resolved: node1",
    ]


@pytest.mark.slow
def test_a_node_that_was_alive_and_panics_is_a_yes(core_name: str, key_file: Path) -> None:
    began = time.monotonic()

    def panics(told: packets.Told) -> list[bytes]:
        return (alive if time.monotonic() < began + 2 else dumping)(told)

    with node(panics) as (_, port):
        status, out, _ = ended(asks(core_name, port, *signed(key_file), "--alive-grace=8"))
    assert status == 0
    assert "received signed answer of 'node1'" in out


@pytest.mark.slow
def test_answers_that_leave_a_gap_are_no_no(core_name: str, key_file: Path) -> None:
    last = 0.0

    def seldom(told: packets.Told) -> list[bytes]:
        nonlocal last
        if time.monotonic() < last + 1.3:
            return []
        last = time.monotonic()
        return alive(told)

    with node(seldom) as (_, port):
        options = (*signed(key_file), "--alive-grace=2")
        status, out, _ = ended(asks(core_name, port, *options, seconds=5))
    assert status == 1
    assert "timeout" in out


# ------------------------------------------------------------------ stopped


@pytest.mark.parametrize(("sent_after", "status"), [(0.3, 0), (4.3, 1)], ids=["early", "late"])
@pytest.mark.slow
def test_an_answer_to_an_agent_that_is_stopped_counts_if_it_came_in_time(
    core_name: str, key_file: Path, sent_after: float, status: int
) -> None:
    with node(silent) as (answering, port):
        agent = asks(core_name, port, *signed(key_file), seconds=4)
        _, peer = answering.question()
        asked = time.monotonic()  # so its time ends within four seconds
        time.sleep(0.3)
        agent.send_signal(signal.SIGSTOP)
        time.sleep(max(0, asked + sent_after - time.monotonic()))
        with udp(NODE) as speaking:
            speaking.sendto(packet("status", answering.nonce()), peer)
        time.sleep(max(0, asked + 4.5 - time.monotonic()))
        agent.send_signal(signal.SIGCONT)
        assert ended(agent)[0] == status


@pytest.mark.slow
def test_alive_answers_do_not_reach_over_a_stop(core_name: str, key_file: Path) -> None:
    with node(alive) as (answering, port):
        agent = asks(core_name, port, *signed(key_file), "--alive-grace=3", seconds=60)
        answering.question()
        time.sleep(0.3)
        agent.send_signal(signal.SIGSTOP)
        time.sleep(3.5)
        agent.send_signal(signal.SIGCONT)
        went_on = time.monotonic()
        status, _, err = ended(agent)
    assert (status, "is alive" in err) == (1, True)
    assert time.monotonic() - went_on >= 2.9


# ------------------------------------------------------------------ rights, start


def test_unprivileged_it_asks_as_well(core_name: str, root: None) -> None:
    with node(dumping) as (_, port):
        argv = [*as_user(), "--bounding-set=-all", AGENT, "-n", NODE, "-p", port, "-t", "30"]
        # The port is the answerer's: what is said to it the agent cannot hear, but answers.
        assert ended(start(argv, core_name))[0] == 0


def test_with_a_key_a_whole_wait_needs_no_module_that_is_slow_to_import(key_file: Path) -> None:
    load_core("compiled")
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from kdumpfence.agent.main import main; main()\n"
        "slow = {'enum', 'hashlib', 'hmac', 'os', 're', 'signal', 'socket', 'struct', 'typing'}\n"
        "print('slow:', *slow & set(sys.modules))"
    )
    modules = str(Path(kdumpfence.__file__).parents[1])
    with node(dumping) as (_, port):
        argv = ["-n", f"node1,{NODE}", "-p", port, "-t", "30", *signed(key_file)]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, modules, *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=environment("compiled"),
        )
    assert "received signed answer" in done.stdout
    assert done.stdout.splitlines()[-1] == "slow:", done.stdout


def test_an_address_of_either_family_is_asked(core_name: str, key_file: Path) -> None:
    port = unused_port()
    with udp("::1", port) as six, udp(NODE, port) as four:
        assert (six.family, four.family) == (socket.AF_INET6, socket.AF_INET)
        for sock in (six, four):
            with Answerer(sock, answer=dumping):
                nodes = f"node1,{NODE},::1"
                agent = asks(core_name, str(port), *signed(key_file), nodes=nodes)
                assert ended(agent)[0] == 0
