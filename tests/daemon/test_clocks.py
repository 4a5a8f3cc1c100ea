# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clocks that are wrong or are set, and what is old: what is removed, and how long dumps were."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from kdumpfence.daemon.history import History
from tests.daemon.running import COMMAND, NODE, Kdumpfenced, patched, until
from tests.daemon.test_history import a_whole_dump

#: A daemon that runs for seconds.
pytestmark = pytest.mark.slow

HASTE = "loop.TRIM_EVERY = 0.2\n"


def wrong_by(seconds: float, once: Path | None = None) -> str:
    """The system's clock; from the moment on at which there is this file, if one is given."""
    when = f"os.path.exists({str(once)!r})" if once else "True"
    return f"real = time.time\ntime.time = lambda: real() + ({seconds} if {when} else 0)\n"


@pytest.mark.parametrize("years", [-60, 30])
def test_a_clock_that_is_wrong_at_the_start_removes_nothing(
    daemon: Kdumpfenced, years: int
) -> None:
    now = time.time()
    with History(str(daemon.history)) as before:
        for days in (0.01, 1, 300):
            before.record(a_whole_dump(f"node{days}", now - days * 86400, 60))
    daemon.configure(history="days = 400")
    # And with the right clock again, what the wrong one wrote is a dump like any other.
    for seconds in (years * 365.25 * 86400, 0):
        daemon.start(program=patched(HASTE + wrong_by(seconds)))
        if seconds:
            daemon.hear(NODE)
            daemon.says("began to dump")
        time.sleep(1)  # it trims five times
        assert daemon.end() == 0
        assert "old dump" not in daemon.said()
        assert len(daemon.past()) == 4


# A day of the clock that nobody sets passes each second.
HURRY = """
began = time.monotonic()
time.clock_gettime = lambda clock: (time.monotonic() - began) * 86400
"""


def test_what_has_been_over_for_long_enough_is_removed(daemon: Kdumpfenced) -> None:
    daemon.configure('networks = ["127.0.0.0/8"]\nsilence = 1', history="days = 3")
    daemon.start(program=patched(HASTE + HURRY))
    daemon.hear(NODE)
    daemon.says("fell silent")
    daemon.says("history: removed 1 old dump")
    assert daemon.past() == []


def test_what_is_too_much_is_removed(daemon: Kdumpfenced) -> None:
    daemon.configure("networks = ['127.0.0.0/8']\nsilence = 1")
    daemon.start()
    daemon.hear("127.0.0.2", "127.0.0.3", "127.0.0.4")
    until(lambda: len([past for past in daemon.past() if past.ended is not None]) == 3)
    daemon.configure("networks = ['127.0.0.0/8']\nsilence = 1", history="most = 1")
    daemon.reload()
    daemon.says("history: removed 2 old dumps")
    assert len(daemon.past()) == 1


def dump_while_it_is_set(daemon: Kdumpfenced, seconds: float) -> None:
    """One that goes on while the clock is set."""
    flag = daemon.folder / "set"
    daemon.start(program=patched(wrong_by(seconds, flag)))
    daemon.hear(NODE)
    daemon.says("began to dump")
    flag.touch()

    def goes_on() -> bool:
        daemon.hear(NODE)
        return any(dump.messages > 20 for dump in daemon.status().dumps)

    until(goes_on)


@pytest.mark.parametrize("seconds", [86400, -86400])
def test_the_clock_that_is_set_while_a_node_dumps_does_not_change_its_length(
    daemon: Kdumpfenced, seconds: int
) -> None:
    daemon.configure('networks = ["127.0.0.0/8"]\nsilence = 5\nrepeat = 1')
    began = time.monotonic()
    dump_while_it_is_set(daemon, seconds)
    (shown,) = daemon.status().dumps
    line = daemon.says("fell silent: dumped for")
    most = time.monotonic() - began
    (past,) = daemon.past()
    assert abs(past.last - past.since - seconds) < most  # its times are what the clocks said
    assert 0 < shown.took <= past.took + 0.001 < most
    assert float(line.partition("dumped for ")[2].split()[0]) <= most + 1
    page = daemon.get("/metrics")[1]
    assert "\nkdumpfence_dump_seconds_count 1.0\n" in page
    took = float(page.partition("\nkdumpfence_dump_seconds_sum ")[2].split()[0])
    assert abs(took - past.took) < 0.01
    done = subprocess.run(
        [*COMMAND, "history", "--file", daemon.history, "--json"],
        env=daemon.environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f'"took": {json.dumps(round(past.took, 3))}' in done.stdout


def test_a_dump_keeps_its_length_over_a_restart(daemon: Kdumpfenced) -> None:
    daemon.configure('networks = ["127.0.0.0/8"]\nrepeat = 1')
    dump_while_it_is_set(daemon, 86400)
    assert daemon.end() == 0
    (before,) = daemon.past()
    assert before.last - before.since > 80000
    assert before.took < 60
    daemon.start()
    (after,) = daemon.status().dumps
    assert after.took == pytest.approx(before.took, abs=0.01)
