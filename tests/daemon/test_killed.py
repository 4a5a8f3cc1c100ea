# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 at random moments: what was told is in the history, and dumps go on as the same."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable

import pytest

from kdumpfence.client import Client, ClientError
from tests.daemon.running import Kdumpfenced, until

#: A daemon that runs for seconds.
pytestmark = pytest.mark.slow

#: Seconds; longer than a sender of ours pauses when the machine is busy.
SILENCE = 3.0

#: How often it is killed; `make scale` does so a hundred times.
KILLS = int(os.environ.get("KDUMPFENCE_KILLS", "20"))

STEADY = {f"steady{host}": f"127.20.0.{host}" for host in range(1, 51)}


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
            except ClientError:
                pass  # it was killed

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def compare(self) -> None:
        """Nothing of it is missing in the history."""
        told = set(self.dumps)
        said = self.daemon.said()
        self.began = set(re.findall(r"node '(\S+)' began to dump", said))
        self.silent = set(re.findall(r"node '(\S+)' fell silent", said))
        assert "not in the history" not in said
        past = self.daemon.past()
        assert self.began - {one.node for one in past} == set()
        assert self.silent - {one.node for one in past if one.ended is not None} == set()
        assert told - {(one.node, one.since) for one in past} == set()


@pytest.mark.alone
def test_what_was_told_is_in_the_history_however_often_it_is_killed(
    daemon: Kdumpfenced, record_property: Callable[[str, object], None]
) -> None:
    daemon.configure(
        f'networks = ["127.21.0.0/16"]\nsilence = {SILENCE}\nrepeat = 1',
        "\n".join(f'{name} = ["{address}"]' for name, address in STEADY.items()),
    )
    # Some send all the time; of others a hundred begin each second, send three messages (one by
    # each of these storms) and are never heard again.
    steady = daemon.storm("--from=127.20.0.0/24", f"--nodes={len(STEADY)}", "--interval=0.1")
    passing = [
        daemon.storm("--from=127.21.0.0/16", "--nodes=60000", "--rate=100", "--rounds=1")
        for _ in range(3)
    ]
    dice = random.Random(7410)
    witness = Witness(daemon)
    try:
        for number in range(KILLS):
            daemon.start(wait=number % 4 == 0)  # else it may die at its start already
            time.sleep(dice.uniform(0, 0.6))
            if number in (1, KILLS // 2):
                time.sleep(SILENCE)  # some fall silent
            daemon.end(signal.SIGKILL)
            witness.compare()
        for storm in passing:
            storm.terminate()
        daemon.start()
        until(lambda: daemon.dumping() == STEADY.keys(), 60)
        witness.close()
        assert daemon.end() == 0
        witness.compare()
    finally:
        witness.close()
        for storm in (steady, *passing):
            storm.terminate()
        told = [storm.communicate()[0] for storm in (steady, *passing)]
    # For tools/scale.py.
    record_property("kills", KILLS)
    record_property("logged", len(witness.began))
    record_property("ended", len(witness.silent))
    record_property("shown", len(witness.dumps))
    assert len(witness.began) > 10 * KILLS
    assert len(witness.silent) > 10 * KILLS
    assert len(witness.dumps) > 10 * KILLS
    past = daemon.past()
    assert {one.node for one in past if one.ended is None} == STEADY.keys()
    assert len({(one.node, one.since) for one in past}) == len(past)
    nodes = [one.node for one in past]
    if max(json.loads(one)["late"] for one in told) < SILENCE / 2:
        # They never paused: one dump each, also of those that were heard on both sides of a kill.
        assert len(nodes) == len(set(nodes))


def test_a_node_that_stopped_while_nobody_listened_falls_silent(daemon: Kdumpfenced) -> None:
    daemon.configure("networks = ['127.0.0.0/8']\nsilence = 3")
    daemon.start()
    daemon.hears("127.0.0.2", "127.0.0.3")
    daemon.end(signal.SIGKILL)
    assert daemon.control.exists()
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
    assert daemon.end() == 0
    assert not daemon.control.exists()  # nor that of the one that was killed


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
