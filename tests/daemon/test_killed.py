# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 at random moments: what was told is in the history, and dumps go on as the same."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kdumpfence.daemon.status_socket import Client, ControlError

from tests.daemon import crowd
from tests.daemon.running import Kdumpfenced, until

#: Seconds; longer than a sender of ours pauses when the machine is busy.
SILENCE = 3.0

#: How often it is killed; `make scale` does so a hundred times.
KILLS = int(os.environ.get("KDUMPFENCE_KILLS", "20"))


class Witness:
    """Everything that a daemon told, whether it was killed in between or not."""

    def __init__(self, daemon: Kdumpfenced) -> None:
        self.daemon = daemon
        self.began: set[str] = set()
        self.silent: set[str] = set()
        #: (node, first message) by the status.
        self.dumps: set[tuple[str, float]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            try:
                with Client(str(self.daemon.control)) as client:
                    while not self._stop.wait(0.02):
                        self.dumps |= {(dump.node, dump.since) for dump in client.status().dumps}
            except ControlError:
                pass  # it was killed

    def read(self) -> None:
        """Read the log from its beginning."""
        said = self.daemon.said()
        self.began = set(re.findall(r"node '(\S+)' began to dump", said))
        self.silent = set(re.findall(r"node '(\S+)' fell silent", said))
        assert "not in the history" not in said

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def compare(self) -> None:
        """Nothing of it is missing in the history."""
        told = set(self.dumps)
        self.read()
        past = self.daemon.past_of_all()
        assert self.began - {one.node for one in past} == set()
        assert self.silent - {one.node for one in past if one.ended is not None} == set()
        assert told - {(one.node, one.since) for one in past} == set()


@pytest.fixture
def players() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for one in started:
        one.kill()
        one.communicate()


@pytest.mark.slow
@pytest.mark.alone
def test_what_was_told_is_in_the_history_however_often_it_is_killed(
    daemon: Kdumpfenced,
    players: list[subprocess.Popen[str]],
    record_property: Callable[[str, object], None],
) -> None:
    kills = KILLS
    daemon.configure(
        f'networks = ["127.21.0.0/16"]\nsilence = {SILENCE}\nrepeat = 1',
        "\n".join(f'steady{at} = ["{host}"]' for at, host in enumerate(crowd.STEADY)),
    )
    steady = {f"steady{at}" for at in range(len(crowd.STEADY))}
    player = subprocess.Popen(
        [sys.executable, crowd.__file__, str(daemon.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    players.append(player)
    dice = random.Random(7410)
    witness = Witness(daemon)
    try:
        for number in range(kills):
            daemon.start(wait=number % 4 == 0)  # else it may die at its start already
            time.sleep(dice.uniform(0, 0.6))
            if number in (1, kills // 2):
                time.sleep(SILENCE)  # some fall silent
            daemon.end(signal.SIGKILL)
            witness.compare()
        assert player.stdin is not None
        player.stdin.write("enough\n")
        player.stdin.flush()
        daemon.start()
        until(lambda: daemon.dumping() == steady, 60)
        witness.close()
        assert daemon.end() == 0
        witness.compare()
    finally:
        witness.close()
    # For tools/scale.py.
    record_property("kills", kills)
    record_property("logged", len(witness.began))
    record_property("ended", len(witness.silent))
    record_property("shown", len(witness.dumps))
    assert len(witness.began) > 10 * kills
    assert len(witness.silent) > 10 * kills
    assert len(witness.dumps) > 10 * kills
    longest = float(player.communicate("")[0])
    past = daemon.past_of_all()
    under_way = [one.node for one in past if one.ended is None]
    assert sorted(under_way) == sorted(steady)
    assert len({(one.node, one.since) for one in past}) == len(past)
    if longest < SILENCE / 2:
        # They never paused: one dump each, whoever was there to hear it.
        assert sorted(one.node for one in past if one.node in steady) == sorted(steady)
    # A passing node that was heard on both sides of a kill is one dump as well.
    nodes = [one.node for one in past]
    assert len(nodes) == len(set(nodes))


def test_a_node_that_stopped_while_nobody_listened_falls_silent(daemon: Kdumpfenced) -> None:
    daemon.configure("networks = ['127.0.0.0/8']\nsilence = 3")
    daemon.start()
    daemon.hear("127.0.0.2", "127.0.0.3")
    until(lambda: daemon.status().dumping == 2)
    daemon.end(signal.SIGKILL)
    time.sleep(3.5)  # longer than the silence: but nobody could hear
    daemon.start()
    daemon.hear("127.0.0.3")
    daemon.says("node '127.0.0.2' was dumping before the restart, since")
    daemon.says("node '127.0.0.2' fell silent")
    daemon.says("node '127.0.0.3' fell silent")
    assert "began" not in daemon.said().partition("before the restart")[2]
    (gone,), (there,) = daemon.past("127.0.0.2"), daemon.past("127.0.0.3")
    assert (gone.messages, there.messages) == (1, 2)
    assert there.last - there.since > 3.5
    assert gone.last == gone.since
    assert gone.ended is not None
    assert gone.ended - gone.last > 3.5


def test_a_node_that_is_none_any_more_falls_silent_after_a_restart(daemon: Kdumpfenced) -> None:
    daemon.configure("silence = 3", 'a = ["127.0.0.2"]\nb = ["127.0.0.3"]')
    daemon.start()
    daemon.hear("127.0.0.2", "127.0.0.3")
    until(lambda: daemon.dumping() == {"a", "b"})
    assert daemon.end() == 0
    daemon.configure("silence = 3", 'b = ["127.0.0.3"]')
    daemon.start()
    daemon.says("node 'a' was dumping before the restart")
    daemon.says("node 'a' fell silent")
    assert daemon.past("a")[0].ended is not None


PASS = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="kdump")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_with_a_passed_socket_nothing_is_lost_that_comes_meanwhile(daemon: Kdumpfenced) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", daemon.port))
        wrapper = (sys.executable, "-c", PASS, str(port.fileno()))
        daemon.start(wrapper, pass_fds=[port.fileno()])
        daemon.hear("127.0.0.2")
        until(lambda: daemon.dumping() == {"127.0.0.2"})
        daemon.end(signal.SIGKILL)
        daemon.hear(*(f"127.0.1.{host}" for host in range(1, 101)))
        daemon.start(wrapper, pass_fds=[port.fileno()])
        until(lambda: daemon.status().dumping == 101)
        assert daemon.end() == 0
        # What comes now waits for the next one.
        daemon.hear("127.0.2.1")
        daemon.start(wrapper, pass_fds=[port.fileno()])
        until(lambda: "127.0.2.1" in daemon.dumping())
        assert daemon.end() == 0


def test_a_stale_socket_of_a_killed_one_is_replaced(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.end(signal.SIGKILL)
    assert daemon.control.exists()
    daemon.start()
    assert daemon.end() == 0
    assert not daemon.control.exists()
