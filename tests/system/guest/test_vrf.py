# SPDX-License-Identifier: LGPL-2.1-or-later
"""VRFs, and a system clock that is set: few kernels have the one, and nobody's may be the other.

The guest runs `inside_vrf.py`. Clocks are set in a guest of their own: what goes on beside would
be led astray.
"""

from __future__ import annotations

import pytest

from tests.support.guest_pytest import Run
from tests.system.guest.conftest import boot

pytestmark = [pytest.mark.slow, pytest.mark.guest, pytest.mark.timeout(2500)]

FILE = "tests/system/guest/inside_vrf.py"
RUNS = {
    "foreign": [FILE, "-k", "not udp_sockets and not started_in and not listener and not clock"],
    "heard": [FILE, "-k", "udp_sockets"],
    "inside": [FILE, "-k", "started_in or listener"],
}


def all_passed(run: Run) -> None:
    assert run.failed == {}
    assert run.status == 0
    assert run.passed
    assert not run.skipped


@pytest.mark.parametrize("name", RUNS)
def test_the_agent_and_a_listener_hear_the_vrfs_that_a_udp_socket_hears(
    runs: dict[str, Run], name: str
) -> None:
    all_passed(runs[name])


def test_a_system_clock_that_is_set_makes_no_late_message_early() -> None:
    run = boot({"clock": [FILE, "-k", "clock"]})["clock"]
    all_passed(run)
    assert len(run.passed) == 4
