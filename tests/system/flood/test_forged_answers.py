# SPDX-License-Identifier: LGPL-2.1-or-later
"""The node's answer is heard, however many forged ones come beside it.

Who forges without the nonce, which only those know who can read the questions, costs the agent
nothing: the kernel drops it. With the nonce, the node's name and its key's id every forged answer
costs a MAC, and the true one has to be found among them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import udp, unused_port
from tests.support import packets
from tests.support.answerer import (
    CURRENT,
    FOREIGN,
    NODE,
    Answerer,
    dumping,
    key_text,
    packet,
    silent,
    write_key,
)
from tests.support.programs import AGENT, environment, start

pytestmark = [pytest.mark.alone, pytest.mark.slow]

FORGERS = Path(__file__).with_name("forgers.py")
HOST, STRANGER = "127.0.0.71", "127.0.0.72"
ROUNDS = 3
#: Seconds of a flood, and within which the answer is to be heard in it.
SECONDS = 6
PATIENCE = 5


@contextlib.contextmanager
def waiting(core_name: str, key_file: Path) -> Iterator[tuple[subprocess.Popen[str], Answerer]]:
    """An agent that asks a node, which keeps silent for now."""
    with udp(HOST, unused_port()) as sock, Answerer(sock, answer=silent) as node:
        port = str(sock.getsockname()[1])
        argv = ["-n", f"{NODE},{HOST}", "-p", port, "-t", "60", "--auth=sha256"]
        agent = start([AGENT, *argv, f"--key-file={key_file}"], core_name)
        try:
            node.question()
            yield agent, node
        finally:
            agent.kill()
            agent.communicate()


@contextlib.contextmanager
def flood(number: int, port: int, data: bytes) -> Iterator[list[int]]:
    """So many forgers; at the end the list has their rates."""
    argv = [sys.executable, str(FORGERS), STRANGER, str(port), data.hex(), str(SECONDS)]
    env = environment("compiled")
    forgers = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) for _ in range(number)
    ]
    rates: list[int] = []
    for forger in forgers:
        assert forger.stdout is not None
        assert forger.stdout.readline() == "sends\n"
    yield rates
    rates += [int(forger.communicate(timeout=60)[0]) for forger in forgers]


def rounds(core_name: str, key_file: Path, forgers: int) -> tuple[list[float], float]:
    """Seconds from the first true answer to the yes, and forged ones a second."""
    times, all_rates = [], []
    for _ in range(ROUNDS):
        with waiting(core_name, key_file) as (agent, node):
            forged = packet("status", node.nonce(), key=FOREIGN, key_id=packets.key_id(CURRENT))
            with flood(forgers, node.question()[1][1], forged) as rates:
                time.sleep(1)
                began = time.monotonic()
                node.answer = dumping
                assert agent.wait(60) == 0
                times.append(time.monotonic() - began)
            all_rates.append(sum(rates))
    return times, min(all_rates)


@pytest.mark.timeout(900)
def test_the_true_answer_is_heard_among_forged_ones_with_the_nonce(
    core_name: str, tmp_path: Path
) -> None:
    key_file = write_key(tmp_path / "key", key_text())
    times, rate = rounds(core_name, key_file, forgers=1)
    print(f"{rate:,} forged ones a second: heard after {sorted(times)} s")
    # The node answers five times a second: some answers may be lost, but not all of them.
    assert max(times) < PATIENCE


def test_forged_answers_without_the_nonce_cost_the_agent_nothing(
    core_name: str, tmp_path: Path
) -> None:
    with waiting(core_name, write_key(tmp_path / "key", key_text())) as (agent, node):
        forged = packet("status", bytes(15) + b"\1")
        before = used(agent.pid)
        with flood(1, node.question()[1][1], forged) as rates:
            time.sleep(3)
            cost = (used(agent.pid) - before) / 3
            node.answer = dumping
            assert agent.wait(10) == 0
        print(f"{rates[0]:,} a second cost {cost:.1%} of a processor")
        assert cost < 0.05


def used(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
