# SPDX-License-Identifier: GPL-2.0-or-later
"""VRFs, and a system clock that is set: few kernels have the one, and nobody's may be the other.

A guest boots and runs `inside_test_vrf`. Clocks are set in a guest of their own: what goes on
beside would be led astray.
"""

from __future__ import annotations

import os

import pytest

from tests.conftest import cannot_run
from tests.system.netem import guest, kernel

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]

FILE = "tests/system/vrf/inside_test_vrf.py"
CHOSEN = {
    "foreign": "not udp_sockets and not started_in and not listener and not clock",
    "heard": "udp_sockets",
    "inside": "started_in or listener",
}
MODULES = ("veth", "vrf")


def boot(choices: dict[str, str]) -> dict[str, guest.Run]:
    runs = {name: [FILE, "-k", choice] for name, choice in choices.items()}
    environment = {"CI": os.environ.get("CI", "")}
    try:
        return guest.boot(kernel.get(MODULES), runs, environment, seconds=600)
    except kernel.NotAvailable as reason:
        cannot_run(str(reason))
        raise  # not reached


def test_the_agent_and_a_listener_hear_the_vrfs_that_a_udp_socket_hears() -> None:
    for run in boot(CHOSEN).values():
        assert run.failed == {}
        assert run.status == 0
        assert run.passed
        assert not run.skipped


def test_a_system_clock_that_is_set_makes_no_late_message_early() -> None:
    (run,) = boot({"clock": "clock"}).values()
    assert run.failed == {}
    assert run.status == 0
    assert len(run.passed) == 12
    assert not run.skipped
