# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real daemon whose nodes say how their dumps ended: log, history, status and metrics."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from pathlib import Path

import pytest

from kdumpfence.wire import Packet, encode_packet
from tests.daemon.running import Kdumpfenced, until

A, B, C = "127.5.0.1", "127.5.0.2", "127.5.0.3"


def status(state: str, session: int = 1) -> bytes:
    packet = Packet("status", "node1", state=state, session=session, sequence=1)
    return encode_packet(packet)


def ends(daemon: Kdumpfenced) -> dict[str, str]:
    """How the newest dump of each node ended, by the history."""
    return {dump.node: dump.end for dump in reversed(daemon.past())}


@pytest.mark.parametrize("core", ["compiled", "pure"])
def test_how_a_dump_ended_is_told_everywhere(tmp_path: Path, core: str, counting: str) -> None:
    daemon = Kdumpfenced(tmp_path, core, counting)
    with contextlib.closing(daemon):
        daemon.configure("silence = 60", f'a = ["{A}"]\nb = ["{B}"]\nc = ["{C}"]')
        daemon.start()
        for node in (A, B, C):
            daemon.hear(node, data=status("started"))
        until(lambda: daemon.dumping() == {"a", "b", "c"})
        daemon.hear(A, data=status("finished", 2))
        daemon.hear(B, data=status("failed", 2))
        daemon.says("node 'a' finished its dump: dumped for ")
        daemon.says("node 'b' failed to dump: dumped for ")
        until(lambda: daemon.dumping() == {"c"})
        assert ends(daemon) == {"a": "finished", "b": "failed", "c": ""}
        until(lambda: len(daemon.status().ended) == 2)
        assert {(event.node, event.kind) for event in daemon.status().ended} == {
            ("a", "finished"), ("b", "failed"),
        }  # fmt: skip
        page = daemon.page_with('kdumpfence_dumps_ended_total{end="failed"} 1.0')
        assert 'kdumpfence_dumps_ended_total{end="finished"} 1.0' in page
        assert 'kdumpfence_dumps_ended_total{end="silent"} 0.0' in page
        assert "\nkdumpfence_dump_seconds_count 2.0\n" in page
        daemon.hear(B, data=status("finished", 3))
        daemon.says("node 'b' finished its dump")
        assert ends(daemon) == {"a": "finished", "b": "finished", "c": ""}
        page = daemon.page_with('kdumpfence_dumps_ended_total{end="finished"} 2.0')
        assert "\nkdumpfence_dump_seconds_count 2.0\n" in page  # it was the same dump
        assert "\nkdumpfence_dumps_total 3.0\n" in page
        assert daemon.end() == 0
    assert len(daemon.past()) == 3


@pytest.mark.slow
def test_a_kill_between_the_end_and_the_silence_begins_no_other_dump(daemon: Kdumpfenced) -> None:
    daemon.configure("silence = 6", f'a = ["{A}"]\nb = ["{B}"]')
    daemon.start()
    daemon.hear(A, B, data=status("dumping", 1))
    daemon.hear(A, data=status("finished", 2))
    daemon.says("node 'a' finished its dump")
    until(lambda: daemon.dumping() == {"b"})
    daemon.end(signal.SIGKILL)
    daemon.start()
    daemon.says("node 'b' was dumping before the restart")
    for _ in range(10):
        daemon.hear(A, data=status("dumping", 1))
        time.sleep(0.1)
    daemon.hear(B, data=status("failed", 2))
    daemon.says("node 'b' failed to dump")
    # The sessions of what was under way are known after the restart as well.
    daemon.hear(B, data=status("dumping", 1))
    until(lambda: daemon.status().counts["accepted"] == 12)
    assert daemon.dumping() == set()
    assert ends(daemon) == {"a": "finished", "b": "failed"}
    assert len(daemon.past()) == 2
    time.sleep(6.5)  # longer than the silence
    daemon.hear(A)
    until(lambda: daemon.dumping() == {"a"})
    assert len(daemon.past("a")) == 2
    assert "restart" not in daemon.says("node 'a' began to dump")


@pytest.mark.slow
def test_after_a_kill_the_later_end_still_takes_the_place_of_the_first(daemon: Kdumpfenced) -> None:
    daemon.configure("silence = 60", f'a = ["{A}"]')
    daemon.start()
    daemon.hear(A, data=status("failed", 2))
    daemon.says("node 'a' failed to dump")
    daemon.end(signal.SIGKILL)
    daemon.start()
    until(lambda: [event.kind for event in daemon.status().ended] == ["failed"])
    daemon.hear(A, data=status("finished", 3))
    daemon.says("node 'a' finished its dump")
    assert ends(daemon) == {"a": "finished"}
    assert len(daemon.past()) == 1
    assert daemon.end() == 0


def test_a_silence_is_counted_as_such(daemon: Kdumpfenced) -> None:
    daemon.configure("silence = 1", f'a = ["{A}"]')
    daemon.start()
    daemon.hear(A, data=status("dumping"))
    daemon.says("node 'a' fell silent")
    daemon.page_with('kdumpfence_dumps_ended_total{end="silent"} 1.0')
    assert ends(daemon) == {"a": "silent"}
    assert re.search("began to dump", daemon.said())
