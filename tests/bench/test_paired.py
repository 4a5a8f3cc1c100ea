# SPDX-License-Identifier: LGPL-2.1-or-later
"""The frame of the benchmarks computes what it says."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import machine, paired, programs
from bench.paired import Figure, Spread
from bench.queue import Queue, addresses


def figure(**changes: Any) -> Figure:
    values: dict[str, Any] = {
        "key": "some",
        "group": "1 receive",
        "title": "something",
        "unit": "datagrams/s",
        "ours": (9.0, 20.0, 3.0, 8.0, 50.0),
        "peer": (10.0, 10.0, 2.0, 10.0, 100.0),
        "peer_name": "another",
    }
    return paired.figure(**{**values, **changes})


def test_the_ratio_is_the_median_of_the_rounds_and_not_that_of_the_medians() -> None:
    one = figure()  # 0.9, 2, 1.5, 0.8, 0.5
    assert (one.ours.median, one.peer.median) == (9.0, 10.0)
    assert one.ratio == Spread(0.9, 0.8, 1.5)
    assert Spread.of([3.0]) == (3.0, 3.0, 3.0)
    assert paired.SAMPLES["some"][0][:2] == (9.0, 20.0)


@pytest.mark.parametrize(
    ("wanted", "bound", "of", "holds"),
    [
        ("", 0, "ratio", None),
        ("at least", 0.9, "ratio", True),
        ("at least", 0.91, "ratio", False),
        ("at most", 0.9, "ratio", True),
        ("at most", 0.89, "ratio", False),
        ("at most", 9, "ours", True),
        ("at most", 8.9, "ours", False),
        # -1, 10, 1, -2, -50
        ("at most", -1, "difference", True),
        ("at most", -1.1, "difference", False),
    ],
)
def test_a_bound_is_kept_or_not(wanted: str, bound: float, of: str, holds: bool | None) -> None:
    assert figure(wanted=wanted, bound=bound, of=of).holds is holds


@pytest.mark.parametrize(
    "changes", [{"peer": (1.0,)}, {"ours": (), "peer": ()}, {"wanted": "about"}, {"of": "mean"}]
)
def test_a_figure_that_says_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="some"):
        figure(**changes)


def test_both_are_measured_in_turns_and_the_order_is_swapped_every_round() -> None:
    calls: list[str] = []

    def call(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    samples = paired.alternate(3, ours=lambda: call("ours"), peer=lambda: call("peer"))
    assert calls[2:] == ["ours", "peer", "peer", "ours", "ours", "peer"]
    # The first round warms up and is not among the samples.
    assert samples == {"ours": (3.0, 6.0, 7.0), "peer": (4.0, 5.0, 8.0)}


def test_the_peers_in_c_compile_and_can_be_loaded() -> None:
    copy = paired.c_library("copy")
    source, target = bytes(range(100)), ctypes.create_string_buffer(100)
    copy.bare_copy.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    copy.bare_copy(target, source, 100)
    assert target.raw == source
    for name in ("recvmmsg", "sendmmsg"):
        assert paired.c_library(name).bare_make


def test_a_queue_is_filled_by_all_nodes_before_any_comes_again() -> None:
    with contextlib.closing(Queue()) as queue:
        fill = queue.filler(addresses(3), 2, 6)
        heard = []
        for _ in range(3):
            fill()
            heard += [queue.listener.recvfrom(64)[1][0] for _ in range(2)]
            with pytest.raises(BlockingIOError):
                queue.listener.recvfrom(64)
    assert sorted(heard[:3]) == ["127.1.0.0", "127.1.0.1", "127.1.0.2"]
    assert heard[3:] == heard[:3]


def an_agent(folder: Path, rest: str) -> programs.Agent:
    path = folder / "agent"
    path.write_text(f"#!/bin/sh\necho waiting for message\n{rest}\n")
    path.chmod(0o755)
    return programs.Agent(str(path))


def test_an_agent_that_ended_on_its_own_gives_no_figure(tmp_path: Path) -> None:
    with programs.Waiting(an_agent(tmp_path, "exit 1")) as agent:
        os.waitid(os.P_PID, agent.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(RuntimeError, match="ended"):
            agent.processor()


def test_an_agent_that_waits_gives_one(tmp_path: Path) -> None:
    with programs.Waiting(an_agent(tmp_path, "exec sleep 60")) as agent:
        assert agent.processor() > 0


def test_the_peak_of_a_program_holds_what_it_gave_back() -> None:
    peak = programs.peak_of([sys.executable, "-ISc", "pass"])
    assert programs.peak_of([sys.executable, "-ISc", "bytearray(1 << 25)"]) > peak + (30 << 10)
    with pytest.raises(RuntimeError, match="status 3"):
        programs.peak_of([sys.executable, "-ISc", "raise SystemExit(3)"])


@pytest.mark.slow
def test_the_machine_is_described_with_the_programs_that_are_measured() -> None:
    told = {**machine.machine(), **programs.described()}
    assert all(told.values())
    assert "level 1" in told["its caches"] or told["its caches"] == "unknown"
    assert "Python 3." in told["python of the agent"]
    assert told["stock programs"].split()[0] in ("fence-agents", "none")
