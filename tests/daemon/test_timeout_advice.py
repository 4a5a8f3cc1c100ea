# SPDX-License-Identifier: LGPL-2.1-or-later
"""What past dumps say about time-outs is true, and no more than is known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdumpfence.daemon import timeout_advice
from kdumpfence.daemon.history_reading import Past


def past(
    took: float, node: str = "node1", over: bool = True, since: float = 1e9, end: str = ""
) -> Past:
    last = since + took
    end = end or ("silent" if over else "")
    return Past(node, since, last, last + 30 if over else None, 5, ("192.0.2.1",), took, end)


def test_power_has_to_stay_on_for_the_longest_dump_and_one_pause_more() -> None:
    figures = timeout_advice.lengths([past(100), past(250.5), past(30)])
    assert (figures.dumps, figures.longest, figures.power) == (3, 250.5, 260.5)
    assert timeout_advice.lengths([past(100)], pause=60).power == 160


def test_of_a_dump_that_finished_it_is_known_how_long_it_took() -> None:
    finished = past(250.5, end="finished")
    figures = timeout_advice.lengths([finished, past(230)])
    assert (figures.longest, figures.power) == (250.5, 250.5)
    figures = timeout_advice.lengths([finished, past(245)])
    assert (figures.longest, figures.power) == (250.5, 255)


def test_a_dump_that_failed_is_counted_and_in_no_other_figure() -> None:
    failed = past(4000, end="failed")
    figures = timeout_advice.lengths([failed, past(10, end="finished")])
    assert (figures.dumps, figures.failed, figures.longest, figures.power) == (1, 1, 10, 10)
    figures = timeout_advice.lengths([failed] * 30)
    assert figures[1:] == (0, None, None, None, 30)
    nodes = timeout_advice.by_node([past(4000, "b", end="failed"), past(1, "a")])
    assert [one.node for one in nodes] == ["a", "b"]


def test_a_dump_under_way_counts_with_what_it_took_so_far() -> None:
    figures = timeout_advice.lengths([past(100), past(300, over=False)])
    assert (figures.dumps, figures.longest) == (2, 300)


def test_one_message_is_a_dump_of_unknown_length() -> None:
    figures = timeout_advice.lengths([past(0)])
    assert (figures.longest, figures.power) == (0, timeout_advice.PAUSE)


def test_a_clock_that_was_set_back_makes_no_length_negative() -> None:
    assert timeout_advice.lengths([past(-3600)._replace(took=0.0)]).longest == 0


def test_ninety_five_of_a_hundred_took_no_longer() -> None:
    dumps = [past(float(n)) for n in range(1, 101)]
    assert timeout_advice.lengths(dumps).percentile == 95
    assert timeout_advice.lengths(dumps[:20]).percentile == 19
    assert timeout_advice.lengths(dumps[:21]).percentile == 20


def test_of_few_dumps_nobody_can_say_what_is_usual() -> None:
    assert timeout_advice.lengths([past(1)] * 19).percentile is None
    unfinished = [past(1)] * 19 + [past(1, over=False)] * 50
    assert timeout_advice.lengths(unfinished).percentile is None


def test_nodes_are_told_of_the_slowest_first() -> None:
    figures = timeout_advice.by_node(
        [past(10, "b"), past(400, "c"), past(10, "a"), past(200, "b")], pause=5
    )
    assert [(one.node, one.dumps, one.power) for one in figures] == [
        ("c", 1, 405), ("b", 2, 205), ("a", 1, 15)
    ]  # fmt: skip


def test_dumps_that_an_agent_may_have_missed_are_counted_once_they_are_over() -> None:
    assert timeout_advice.quick([past(10.9), past(11), past(0, over=False), past(0)]) == 2


def test_the_lesson_has_the_figures_and_what_they_are_not_about() -> None:
    power, agent, silence = timeout_advice.lesson([past(100.2), past(50)])
    assert "at least 1 min 51 s" in power
    assert "took 1 min 41 s" in power
    assert "A longer dump needs no longer timeout" in agent
    assert "crash kernel starts 10 s later" in agent
    assert "2 of these dumps ended in silence, which does not mean that a dump is" in silence
    assert len(timeout_advice.lesson([past(100.2), past(5)])) == 4


def test_the_lesson_of_dumps_that_told_how_they_ended() -> None:
    finished, failed = past(100.2, end="finished"), past(50, end="failed")
    power, _ = timeout_advice.lesson([finished])
    assert "at least 1 min 41 s after" in power
    assert "one more interval" not in power
    *_, why = timeout_advice.lesson([finished, failed])
    assert why.startswith("1 of these dumps failed")
    agent, why = timeout_advice.lesson([failed])
    assert "the first message only" in agent
    assert why.startswith("1 of these dumps failed")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (59.9, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"),
        (3600, "1 h 00 min"), (86399, "23 h 59 min"), (86400 * 3 + 7200, "3 d 02 h"),
    ],
)  # fmt: skip
def test_a_length_of_time_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert timeout_advice.duration(seconds) == text


def test_what_has_to_be_waited_for_is_never_rounded_down() -> None:
    assert timeout_advice.rounded_up(60.001) == "1 min 01 s"
    assert timeout_advice.rounded_up(3601) == "1 h 01 min"
    assert timeout_advice.rounded_up(86401) == "1 d 01 h"


def test_the_pause_is_that_of_the_senders() -> None:
    from kdumpfence.sender.options import SenderOptions

    assert SenderOptions().interval == timeout_advice.PAUSE


def test_the_wait_of_cma_is_the_same_in_monitor_manual_and_guide() -> None:
    from kdumpfence import crashkernel
    from tests.docs import manpage

    wait = f"{timeout_advice.CMA_WAIT:.0f} seconds"
    texts = {
        "monitor": Path(crashkernel.__file__).read_text(),
        "manual": " ".join(manpage.read("fence_kdump")["TIMING"].text.split()),
        "guide": (manpage.DOCS / "operations.md").read_text(),
        "crash kernel": (manpage.DOCS / "crash-kernel.md").read_text(),
    }
    for name, text in texts.items():
        assert any(",cma" in part and wait in part for part in text.split("\n\n")), name


def test_the_time_until_a_cluster_acts_is_that_of_the_manual() -> None:
    from tests.docs import manpage

    text = " ".join(manpage.read("fence_kdump")["TIMING"].text.split())
    seen = re.search(r"noticed after (\d+) to (\d+) seconds", text)
    assert seen is not None
    assert float(seen[2]) == timeout_advice.NOTICED
