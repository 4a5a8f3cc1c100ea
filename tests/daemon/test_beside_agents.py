# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced and fence agents on one host: who hears what. In network namespaces."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from kdumpfence.install import native_sender
from kdumpfence.wire import Packet, encode_packet
from tests.conftest import cannot_run
from tests.daemon.running import PROGRAM, Kdumpfenced, until
from tests.interop import stock
from tests.support.netlab import Host, Lab

#: A daemon that runs for seconds.
pytestmark = pytest.mark.slow

BIN = Path(PROGRAM[0]).parent
AGENT = str(BIN / "fence_kdump")
NODE, WATCHER = "10.0.0.1", "10.0.0.2"
WITHOUT_RAW = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")


@pytest.fixture
def node(lab: Lab) -> Host:
    """The one that dumps."""
    return lab.host("node1")


@pytest.fixture
def watcher(lab: Lab, node: Host, daemon: Kdumpfenced) -> Host:
    """The one on which daemon and agents listen."""
    made = lab.host("watcher")
    lab.link(node, made, [f"{NODE}/24"], [f"{WATCHER}/24"])
    daemon.port = 7410
    daemon.configure("networks = ['10.0.0.0/24']\nsilence = 3")
    return made


def send(node: Host, count: int = 1) -> None:
    try:
        sender = native_sender.find()
    except native_sender.NotBuilt as error:
        cannot_run(str(error))
    node.run([sender, "-c", str(count), "-i", "1", WATCHER], check=True)


def agent(
    host: Host, *wrapper: str, program: str = AGENT, seconds: int = 60
) -> subprocess.Popen[str]:
    """One that waits for the node."""
    started = host.popen(
        [*wrapper, program, "-v", "-n", NODE, "-t", str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert started.stdout is not None
    if program == AGENT:
        for line in started.stdout:
            if "waiting for message" in line:
                break
    return started


@pytest.mark.parametrize("first", ["agent", "daemon"])
def test_our_agent_and_the_daemon_both_hear_one_message(
    daemon: Kdumpfenced, watcher: Host, node: Host, first: str
) -> None:
    if first == "daemon":
        daemon.start_on(watcher)
    waiting = agent(watcher)
    if first == "agent":
        daemon.start_on(watcher)
    send(node)
    assert waiting.wait(60) == 0
    until(lambda: daemon.dumping() == {NODE})
    until(lambda: daemon.status().counts["accepted"] == 1)


def test_an_agent_without_raw_sockets_takes_nothing_from_the_daemon_and_says_why_it_hears_nothing(
    daemon: Kdumpfenced, watcher: Host, node: Host
) -> None:
    daemon.start_on(watcher)
    waiting = agent(watcher, *WITHOUT_RAW, seconds=3)
    assert waiting.stdout is not None
    send(node)
    until(lambda: daemon.dumping() == {NODE})
    until(lambda: daemon.status().counts["accepted"] == 1)
    assert waiting.wait(60) == 1
    assert "with CAP_NET_RAW both" in waiting.stdout.read()


@pytest.fixture
def stock_agent() -> str:
    """The stock programs' agent."""
    try:
        return str(stock.get().agent)
    except stock.NotAvailable as reason:
        cannot_run(str(reason))
        raise


def test_a_stock_agent_beside_the_daemon_fails_and_does_not_disturb_it(
    daemon: Kdumpfenced, watcher: Host, node: Host, stock_agent: str
) -> None:
    daemon.start_on(watcher)
    waiting = agent(watcher, program=stock_agent)
    assert waiting.wait(60) != 0  # and Pacemaker goes on to the next level
    send(node)
    until(lambda: daemon.dumping() == {NODE})


def test_the_daemon_beside_a_stock_agent_says_that_the_port_is_taken(
    daemon: Kdumpfenced, watcher: Host, stock_agent: str
) -> None:
    agent(watcher, program=stock_agent)

    def holds() -> bool:
        return ":1CF2 " in (watcher.root / f"proc/{1}/net/udp").read_text()

    until(holds)
    done = watcher.run([*PROGRAM, "--config", daemon.settings])
    assert done.returncode == 1
    assert "7410/udp" in done.stderr
    assert "another program holds it" in done.stderr


# ------------------------------------------------------------------ questions


def question(node: Host) -> None:
    """The node asks whether the watcher is alive, as an agent on it would, from its address."""
    ask = (
        "import socket, sys\n"
        "sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"sock.bind(('{NODE}', 0))\n"
        f"sock.sendto(bytes.fromhex(sys.argv[1]), ('{WATCHER}', 7410))\n"
    )
    data = encode_packet(Packet("question", "watcher", nonce=b"n" * 16))
    node.run([PROGRAM[0], "-c", ask, data.hex()], check=True)


def test_a_question_is_for_the_daemon_and_no_proof_for_an_agent_beside_it(
    daemon: Kdumpfenced, watcher: Host, node: Host
) -> None:
    daemon.start_on(watcher)
    waiting = agent(watcher)
    question(node)
    until(lambda: daemon.status().counts["question"] == 1)
    assert waiting.poll() is None
    send(node)
    assert waiting.wait(60) == 0
    until(lambda: daemon.status().counts["accepted"] == 1)


def test_a_question_is_no_message_for_a_stock_agent(
    watcher: Host, node: Host, stock_agent: str
) -> None:
    waiting = agent(watcher, program=stock_agent)
    until(lambda: ":1CF2 " in (watcher.root / f"proc/{1}/net/udp").read_text())
    for _ in range(3):
        question(node)
    time.sleep(0.5)
    assert waiting.poll() is None
    send(node)
    assert waiting.wait(60) == 0
