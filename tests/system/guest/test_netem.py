# SPDX-License-Identifier: LGPL-2.1-or-later
"""Impaired links made by netem: not every kernel has it, so these tests bring one that has.

The guest runs what is in inside_bad_links.py and inside_impairment.py, and then, as a control,
some of it with another impairment than the one that is asked for: the tests must notice.
"""

from __future__ import annotations

import pytest

from tests.support.guest_pytest import Run

pytestmark = [pytest.mark.slow, pytest.mark.guest, pytest.mark.timeout(2500)]

UNIMPAIRED = "test_an_unimpaired_link_passes_everything_in_order"
IMPAIRED = (
    "test_loss_takes_its_share",
    "test_a_blackhole_passes_nothing",
    "test_duplication_doubles",
    "test_reordering_and_jitter_lose_nothing_but_the_order",
    "test_delay_delays",
)
LINKS = "tests/system/guest/inside_impairment.py"

PROGRAMS = "tests/system/guest/inside_bad_links.py"
A_YES = "test_the_agent_hears_the_sender_through_a_bad_link[pure-half_lost]"
A_NO = "test_rubbish_of_the_node_between_a_strangers_messages_is_no_yes[pure]"

INSTEAD = ("-p", "tests.system.guest.other_impairment", "--instead")
RUNS = {
    "programs": [PROGRAMS],
    "cut": [*INSTEAD, "loss 100%", *(f"{PROGRAMS}::{name}" for name in (A_YES, A_NO))],
    "links": [LINKS],
    "unimpaired": [*INSTEAD, "", LINKS],
}


def test_netem_makes_links_as_bad_as_the_lab_asks(runs: dict[str, Run]) -> None:
    links = runs["links"]
    assert links.failed == {}
    assert links.status == 0
    assert links.passed == {UNIMPAIRED, *IMPAIRED}


def test_the_programs_do_their_job_on_links_that_netem_impairs(runs: dict[str, Run]) -> None:
    programs = runs["programs"]
    assert programs.failed == {}
    assert programs.status == 0
    assert {A_YES, A_NO} <= programs.passed


def test_the_tests_notice_that_netem_does_nothing(runs: dict[str, Run]) -> None:
    control = runs["unimpaired"]
    assert control.failed.keys() == set(IMPAIRED)
    assert control.passed == {UNIMPAIRED}


def test_the_tests_notice_that_netem_loses_everything(runs: dict[str, Run]) -> None:
    control = runs["cut"]
    assert control.failed.keys() == {A_YES}
    assert control.passed == {A_NO}
