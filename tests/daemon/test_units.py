# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's systemd units: sound, hardened, and about the same port as the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdumpfence.daemon.settings import Settings
from tests.support.units import UNITS, analyze, exposure, runnable

SERVICE = "kdumpfenced.service"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, whose programs exist."""
    return runnable(tmp_path)


def test_the_units_are_sound(units: Path) -> None:
    done = analyze("verify", "./kdumpfenced.service", "./kdumpfenced.socket", folder=units)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_unit_that_is_not_sound_would_be_found(units: Path) -> None:
    unit = units / SERVICE
    unit.write_text(unit.read_text().replace("Restart=on-failure", "Restrat=on-failure"))
    assert "Restrat" in analyze("verify", "./kdumpfenced.service", folder=units).stdout


def test_the_service_is_hardened(units: Path) -> None:
    # Of it 0.4 are for the one capability, the two calls that go with it, and for what
    # PrivateUsers= would save, which makes it worthless.
    assert exposure(SERVICE, units) <= 1.5
    unit = units / SERVICE
    unit.write_text(re.sub("(?m)^CapabilityBoundingSet=.*\n", "", unit.read_text()))
    assert exposure(SERVICE, units) > 1.5


def test_it_has_one_capability_and_only_as_its_user() -> None:
    text = (UNITS / SERVICE).read_text()
    assert re.findall("(?m)^CapabilityBoundingSet=(.*)$", text) == ["", "CAP_BPF"]
    assert re.findall("(?m)^AmbientCapabilities=(.*)$", text) == ["CAP_BPF"]
    assert "\nDynamicUser=yes\n" in text
    assert not re.search("(?m)^PrivateUsers", text)


def test_a_systemd_that_does_not_know_the_capability_leaves_it_with_none(units: Path) -> None:
    unit = units / SERVICE
    unit.write_text(unit.read_text().replace("CAP_BPF", "CAP_NOSUCH"))
    done = analyze("security", "--offline=true", f"./{SERVICE}", folder=units)
    assert "Service may load BPF programs" not in done.stdout
    assert exposure(SERVICE, units) <= 1.5


def test_the_socket_is_that_of_the_settings() -> None:
    text = (UNITS / "kdumpfenced.socket").read_text()
    assert re.findall(r"(?m)^ListenDatagram=.*:(\d+)$", text) == [str(Settings().port)] * 2
    assert f"ReceiveBuffer={Settings().queue >> 20}M\n" in text


def test_the_directories_are_those_of_the_settings() -> None:
    text = (UNITS / SERVICE).read_text()
    state = re.findall(r"(?m)^StateDirectory=(.*)$", text)
    run = re.findall(r"(?m)^RuntimeDirectory=(.*)$", text)
    assert str(Path(Settings().history_path).parent) == f"/var/lib/{state[0]}"
    assert str(Path(Settings().control_path).parent) == f"/run/{run[0]}"


def test_nobody_else_looks_into_the_history_and_nobody_shares_the_port() -> None:
    service = (UNITS / SERVICE).read_text()
    assert re.findall(r"(?m)^(?:StateDirectoryMode|UMask)=(.*)$", service) == ["0700", "0077"]
    # Asking is for everybody: the socket's mode says who may.
    assert "RuntimeDirectoryMode" not in service
    assert not re.search("(?m)^ReusePort", (UNITS / "kdumpfenced.socket").read_text())
