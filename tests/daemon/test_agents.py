# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fence agents have a real kdumpfenced hear for them: what it heard during their wait is a yes."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.client import Client, ClientError
from tests.conftest import udp
from tests.daemon.running import NODE, Kdumpfenced, until
from tests.support.answerer import (
    CURRENT,
    FOREIGN,
    PREVIOUS,
    Answerer,
    dumping,
    key_text,
    packet,
    silent,
    write_key,
)
from tests.support.programs import AGENT, agent_waits, start, wait_for_line

#: Daemons and agents that run for seconds.
pytestmark = pytest.mark.slow

OTHER = "127.3.0.8"
NODES = f'node1 = ["{NODE}"]\nnode2 = ["{OTHER}"]'


@pytest.fixture
def listening(daemon: Kdumpfenced) -> Kdumpfenced:
    """One that runs, and listens for two nodes."""
    daemon.configure("", NODES, http=True)
    daemon.start()
    return daemon


@pytest.fixture(params=["unix", "http"])
def way(request: pytest.FixtureRequest) -> str:
    """How agents come to it."""
    return str(request.param)


def place(daemon: Kdumpfenced, way: str = "unix") -> str:
    """What agents are told."""
    return f"http://localhost:{daemon.http_port}" if way == "http" else f"unix:{daemon.control}"


def asks(
    daemon: Kdumpfenced,
    *argv: str,
    nodes: str = "node1",
    seconds: int = 60,
    by: str = "compiled",
    way: str = "unix",
) -> subprocess.Popen[str]:
    where = ("--listener", place(daemon, way))
    return start([AGENT, "-n", nodes, "-t", str(seconds), *where, *argv], by)


def ended(agent: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = agent.communicate(timeout=120)
    return agent.returncode, out, err


# ------------------------------------------------------------------------- heard, without keys


def test_a_message_during_the_wait_is_a_yes(
    listening: Kdumpfenced, core_name: str, way: str
) -> None:
    agent = asks(listening, by=core_name, way=way)
    agent_waits(agent)
    listening.hear(NODE)
    assert ended(agent) == (
        0,
        f"[debug]: heard 'node1' from {NODE} by {place(listening, way)}\n",
        "",
    )


def test_a_message_before_the_wait_is_none_and_the_next_one_is(listening: Kdumpfenced) -> None:
    listening.hear(NODE)
    until(lambda: listening.dumping() == {"node1"})
    status, _, err = ended(asks(listening, seconds=5))
    assert status == 1
    assert "it heard 'node1' last" in err
    assert "s before this wait, which is no proof\n" in err
    agent = asks(listening)
    agent_waits(agent)
    assert agent.poll() is None
    # Where the kernel counts, this one and the next are not read by anybody.
    listening.hear(NODE)
    assert ended(agent)[0] == 0


def test_messages_that_lay_in_the_queue_when_the_wait_began_are_none(
    listening: Kdumpfenced,
) -> None:
    # A stopped daemon reads them later than the agent asks, and all the same they were earlier.
    listening.send(signal.SIGSTOP)
    listening.hear(NODE, NODE, OTHER)
    agent = asks(listening, seconds=8)
    wait_until_asked(listening)
    listening.send(signal.SIGCONT)
    status, _, _ = ended(agent)
    assert status == 1
    until(lambda: listening.dumping() == {"node1", "node2"})


def wait_until_asked(daemon: Kdumpfenced) -> None:
    """An agent has connected to a daemon that is stopped."""
    until(lambda: Path("/proc/net/unix").read_text().count(str(daemon.control)) > 1)


def test_it_hears_the_node_by_any_of_its_names_and_addresses(listening: Kdumpfenced) -> None:
    agents = [asks(listening, nodes=nodes) for nodes in (NODE, f"alias,{NODE}", f"node1,{NODE}")]
    for agent in agents:
        agent_waits(agent)
    listening.hear(NODE)
    assert [ended(agent)[0] for agent in agents] == [0, 0, 0]


NO_NODE = {
    "node3": "it does not listen for 'node3'",
    "192.0.2.1": "it does not listen for '192.0.2.1'",
    "node1,node2": "these are names of several nodes: 'node1', 'node2'",
    f"node1,{OTHER}": "these are names of several nodes: 'node1', 'node2'",
}


def test_what_is_not_one_node_of_the_daemon_is_told_at_once_and_never_a_yes(
    listening: Kdumpfenced,
) -> None:
    where = f"[error]: unix:{listening.control}: "
    agents = {nodes: asks(listening, nodes=nodes, seconds=5) for nodes in NO_NODE}
    for nodes, why in NO_NODE.items():
        assert wait_for_line(agents[nodes], f"{where}{why}; will try again", stream="stderr")
    listening.hear(NODE, OTHER)
    for nodes, why in NO_NODE.items():
        status, _, err = ended(agents[nodes])
        assert (status, err) == (1, f"{where}{why}\n")


def test_another_nodes_message_is_none(listening: Kdumpfenced) -> None:
    agent = asks(listening, seconds=5)
    agent_waits(agent)
    listening.hear(OTHER)
    assert ended(agent)[0] == 1


def test_a_node_of_a_network_is_asked_for_by_its_address(daemon: Kdumpfenced) -> None:
    daemon.start()
    agent = asks(daemon, nodes=NODE)
    agent_waits(agent)
    daemon.hear(NODE)
    assert ended(agent)[0] == 0


@pytest.mark.parametrize(
    ("number", "way"), [(signal.SIGTERM, "http"), (signal.SIGKILL, "unix")], ids=str
)
def test_over_a_restart_of_the_daemon_only_what_is_heard_after_it_counts(
    listening: Kdumpfenced, number: signal.Signals, way: str
) -> None:
    listening.hear(NODE)
    until(lambda: listening.dumping() == {"node1"})
    agents = [asks(listening, seconds=seconds, way=way) for seconds in (8, 60)]
    for agent in agents:
        agent_waits(agent)
    listening.end(number)
    assert all(
        wait_for_line(agent, f"[error]: {place(listening, way)}: ", stream="stderr")
        for agent in agents
    )
    listening.start()
    # It goes on with the dump that its history has.
    assert listening.dumping() == {"node1"}
    assert ended(agents[0])[0] == 1
    listening.hear(NODE)
    assert ended(agents[1])[0] == 0


def test_a_daemon_that_comes_late_is_waited_for(daemon: Kdumpfenced) -> None:
    daemon.configure("", NODES)
    agent = asks(daemon)
    assert wait_for_line(agent, "[error]: ", stream="stderr")
    daemon.start()
    agent_waits(agent)
    daemon.hear(NODE)
    status, _, err = ended(agent)
    assert status == 0
    # Perhaps also that it is still starting.
    assert all(line.endswith("; will try again") for line in err.splitlines())


def test_a_stopped_daemon_is_a_no_in_time(listening: Kdumpfenced) -> None:
    listening.send(signal.SIGSTOP)
    began = time.monotonic()
    status, _, err = ended(asks(listening, seconds=2))
    assert 2 <= time.monotonic() - began < 30
    assert status == 1
    assert "no answer in time\n" in err
    listening.send(signal.SIGCONT)


def test_a_dump_that_ended_as_the_node_said_is_heard_as_well(listening: Kdumpfenced) -> None:
    listening.hear(NODE, data=packet("status", key=None, state="finished"))
    listening.says("finished")
    agent = asks(listening)
    agent_waits(agent)
    listening.hear(NODE, data=packet("status", key=None, state="finished", sequence=2))
    assert ended(agent)[0] == 0


def test_local_clients_that_ask_all_the_time_keep_no_agent_from_its_answer(
    listening: Kdumpfenced,
) -> None:
    flood = b'{"ask": "heard", "nodes": ["node1"], "wait": "x"}\n' * 20
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(80):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(60)
            with contextlib.suppress(OSError):
                sock.connect(str(listening.control))
                sock.sendall(flood)
                socks.append(sock)
        agent = asks(listening)
        agent_waits(agent)
        listening.hear(NODE)
        assert ended(agent)[0] == 0


# --------------------------------------------------------------------------- the questions


def heard(daemon: Kdumpfenced, **question: Any) -> dict[str, Any]:
    with Client(str(daemon.control), timeout=60) as client:
        return client.ask({"ask": "heard", "nodes": ["node1"], "wait": "x", **question})


def mark(daemon: Kdumpfenced) -> dict[str, Any]:
    """What has a mark of now."""
    began: dict[str, Any] = {}

    def look() -> dict[str, Any]:
        answer = heard(daemon, **began)
        began.update((name, answer[name]) for name in ("life", "begin") if name in answer)
        return answer if "mark" in answer else {}

    answer = until(look)
    return {"life": answer["life"], "mark": answer["mark"]}


def test_a_mark_is_of_one_life_and_what_is_asked_with_comes_back(
    listening: Kdumpfenced,
) -> None:
    mine = mark(listening)
    listening.hear(NODE)
    answer: dict[str, Any] = until(lambda: heard(listening, **mine).get("heard") or {})
    assert answer["addresses"] == [NODE]
    assert answer["messages"] == 1
    assert heard(listening, wait="mine", **mine)["wait"] == "mine"
    assert "heard" not in heard(listening, life="another", mark=mine["mark"])
    later = mark(listening)
    assert heard(listening, **later)["heard"] is None
    assert heard(listening, **later)["before"] > 0


def test_bad_questions_are_refused(listening: Kdumpfenced) -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"wait": None},
        {"wait": "x" * 65},
        {"nodes": "node1"},
        {"nodes": [7]},
        {"nodes": [""]},
        {"nodes": ["x"] * 65},
        {"nodes": ["x" * 256]},
        {"mark": "1.5"},
        {"mark": 0},
        {"other": 1},
        {"life": 7},
        {"mark": True},
        {"begin": -1.5},
        {"begin": []},
    )
    for wrong in wrongs:
        with pytest.raises(ClientError, match="the daemon says"):
            heard(listening, **wrong)


# ----------------------------------------------------------------------------- signed


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key", key_text(CURRENT, PREVIOUS))


@pytest.fixture
def signed(tmp_path: Path, key_file: Path) -> Iterator[Kdumpfenced]:
    """A daemon that checks signatures."""
    with contextlib.closing(Kdumpfenced(tmp_path)) as daemon:
        top = f'auth = "sha256"\nkey_file = "{key_file}"'
        daemon.configure(top, "node1 = []\nnode2 = []", http=True)
        daemon.start()
        yield daemon


def asks_signed(
    daemon: Kdumpfenced, key_file: Path, action: str = "off", **more: Any
) -> subprocess.Popen[str]:
    # Its address as well, or an answer from loopback would not be believed.
    argv = ("--auth=sha256", f"--key-file={key_file}", "-o", action, f"--plug={NODE}")
    return asks(daemon, *argv, **more)


@contextlib.contextmanager
def crashed(daemon: Kdumpfenced, answer: Any = dumping, send: bool = True) -> Iterator[Answerer]:
    """A node that has told the daemon so, and answers questions."""
    with udp(NODE) as sock, Answerer(sock, answer=answer) as node:
        if send:
            sock.sendto(packet("status"), ("127.0.0.1", daemon.port))
            until(lambda: daemon.dumping() == {"node1"})
        yield node


def test_the_agent_has_the_nodes_own_answer(
    signed: Kdumpfenced, key_file: Path, core_name: str, way: str
) -> None:
    with crashed(signed) as node:
        status, out, err = ended(asks_signed(signed, key_file, by=core_name, way=way))
    assert (status, err) == (0, "")
    assert f"received signed answer of 'node1' from {NODE}, key" in out
    assert f", passed on by {place(signed, way)}\n" in out
    # The daemon's own question, and the agent's, which has another nonce.
    assert len({data[40:56] for data, _ in node.questions}) == 2


def test_a_node_that_crashes_during_the_wait_is_asked_then(
    signed: Kdumpfenced, key_file: Path
) -> None:
    agent = asks_signed(signed, key_file)
    agent_waits(agent)
    with crashed(signed):
        assert ended(agent)[0] == 0


def test_a_name_beside_that_which_the_daemon_has_does_not_matter(
    signed: Kdumpfenced, key_file: Path
) -> None:
    with crashed(signed):
        assert ended(asks_signed(signed, key_file, nodes="short,node1"))[0] == 0


def test_a_node_that_was_heard_and_does_not_answer_any_more_is_a_no(
    signed: Kdumpfenced, key_file: Path
) -> None:
    with crashed(signed) as node:
        node.answer = silent
        status, out, _ = ended(asks_signed(signed, key_file, seconds=5))
    assert status == 1
    assert "'node1' has been heard there, answers: 0\n" in out


def test_what_another_cluster_signed_is_not_even_brought_back(
    signed: Kdumpfenced, key_file: Path
) -> None:
    with crashed(signed) as node:
        node.answer = lambda told: [packet("status", told.nonce, key=FOREIGN)]
        status, out, _ = ended(asks_signed(signed, key_file, seconds=5))
    assert status == 1
    assert "answers: 0\n" in out


def test_recorded_answers_are_a_no(signed: Kdumpfenced, key_file: Path) -> None:
    with crashed(signed) as node:
        assert ended(asks_signed(signed, key_file))[0] == 0
        recorded = [packet("status", data[40:56]) for data, _ in node.questions]
        node.answer = lambda _: recorded
        assert ended(asks_signed(signed, key_file, seconds=5))[0] == 1


def test_a_daemon_without_keys_is_told_from_one_that_checks(
    listening: Kdumpfenced, key_file: Path
) -> None:
    agent = asks_signed(listening, key_file, seconds=5)
    listening.hear(NODE)
    status, _, err = ended(agent)
    assert status == 1
    assert 'the daemon checks no signatures: give it auth = "sha256"' in err
    for action in ("monitor", "validate-all"):
        status, _, err = ended(asks_signed(listening, key_file, action=action))
        assert status == 1
        assert "it checks no signatures" in err


def test_an_agent_with_another_clusters_key_is_refused(signed: Kdumpfenced, tmp_path: Path) -> None:
    other = write_key(tmp_path / "other", key_text(FOREIGN))
    with crashed(signed) as node:
        before = len(node.questions)
        status, _, err = ended(asks_signed(signed, other, seconds=5))
        assert len(node.questions) == before
    assert status == 1
    assert '"packet": not signed with a key that the daemon has' in err


def test_nobody_without_a_key_can_have_a_node_asked(signed: Kdumpfenced) -> None:
    nonce = bytes(range(16))
    with crashed(signed) as node:
        before = len(node.questions)
        for data in (
            packet("question", nonce, key=None),
            packet("question", nonce, key=FOREIGN),
            packet("question", nonce, signed_as="node2"),
            packet("question"),
            packet("status", nonce),
            packet("question", nonce)[:-1],
            b"",
        ):
            question = {"ask": "question", "nodes": ["node1"], "packet": data.hex()}
            client = Client(str(signed.control), timeout=60)
            with client, pytest.raises(ClientError, match='says: "packet": '):
                client.ask(question)
        assert len(node.questions) == before
