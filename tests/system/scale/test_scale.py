# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many nodes panic within a second: a short form of what `make scale` does in full.

How fast it goes is told by docs/scale.md. Here only a daemon that hangs is found to be slow.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kernel import need_kernel_counting
from tests.system.scale.play import Outcome, Plan, address, name, play, quantile

pytestmark = [pytest.mark.slow, pytest.mark.alone]

NODES = 20_000


@pytest.fixture(
    scope="module",
    params=[(False, "user"), (True, "user"), (True, "kernel")],
    ids=["quiet", "flooded", "flooded, the kernel counts"],
)
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One play for all tests."""
    flood, counting = request.param
    if counting == "kernel":
        need_kernel_counting()
    plan = Plan(nodes=NODES, rounds=8, flood=flood, silence=6.0, counting=counting)
    return play(plan, tmp_path_factory.mktemp("scale"))


def test_every_node_is_in_the_history_once_and_with_its_address(outcome: Outcome) -> None:
    assert outcome.missing == 0
    assert outcome.elsewhere == 0
    assert outcome.strangers == 0
    if outcome.late < outcome.plan.silence / 2:  # else it really looks as if some had paused
        assert outcome.twice == 0
        assert outcome.began == NODES
        assert outcome.reported == NODES


def test_every_message_that_the_kernel_kept_is_counted(outcome: Outcome) -> None:
    assert outcome.sent == NODES * outcome.plan.rounds
    assert outcome.recorded == outcome.counts["accepted"]
    lost = outcome.sent - outcome.counts["accepted"]
    # Without the right to a deep queue, or on a slow machine, the kernel drops some and says so.
    assert 0 <= lost <= outcome.counts["unread"] + outcome.backlog
    if outcome.late < outcome.plan.silence / 2:
        assert outcome.miscounted <= lost


def test_rubbish_changes_the_counters_and_nothing_else(outcome: Outcome) -> None:
    counts = dict(outcome.counts)
    accepted, unread = counts.pop("accepted"), counts.pop("unread")
    assert sum(counts.values()) <= outcome.rubbish
    assert outcome.rubbish <= sum(counts.values()) + unread + outcome.backlog
    assert accepted + sum(counts.values()) <= outcome.sent + outcome.rubbish
    if outcome.plan.flood:
        assert all(counts[reason] for reason in ("short", "magic", "version", "stranger"))
    else:
        assert outcome.rubbish == 0


def test_all_fall_silent_and_are_over(outcome: Outcome) -> None:
    assert outcome.not_over == 0
    assert outcome.silent_after < outcome.plan.silence + 30


def test_every_question_is_answered(outcome: Outcome) -> None:
    assert outcome.unanswered == 0
    assert len(outcome.answers) > 50
    assert quantile(outcome.answers, 0.5) < 0.1
    # A thing of the past is no answer either.
    assert max(outcome.ages) < 5


def test_memory_is_bounded(outcome: Outcome) -> None:
    assert outcome.memory_peak - outcome.memory_before < 2048 * NODES + (24 << 20)


def test_it_ends_well(outcome: Outcome) -> None:
    assert outcome.exit_status == 0
    assert "Traceback" not in outcome.log
    assert "error" not in outcome.log


def test_the_nodes_are_who_they_should_be() -> None:
    # The first address of 127/8, and what storm counts from there.
    assert [address(number) for number in (0, 1, 255, 256)] == [
        "127.0.0.1",
        "127.0.0.2",
        "127.0.1.0",
        "127.0.1.1",
    ]
    assert [name(number) for number in (0, 1)] == ["127.0.0.1", "node-000001"]


def test_a_daemon_that_is_told_of_too_little_is_found_out(tmp_path: Path) -> None:
    # Without this, none of the above would show that it can fail.
    plan = Plan(nodes=300, rounds=2, silence=2.0, room=100)
    outcome = play(plan, tmp_path)
    assert outcome.missing == 50
    assert outcome.recorded == 500
    assert outcome.counts["crowded"] == 100
    assert outcome.reported == 250
