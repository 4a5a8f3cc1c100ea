# SPDX-License-Identifier: GPL-2.0-or-later
"""The systemd units: sound, hardened, and about the same port as the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kdumpfence.daemon.settings import Settings
from tests.conftest import cannot_run

UNITS = Path(__file__).resolve().parents[2] / "packaging" / "systemd"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, whose programs exist."""
    if shutil.which("systemd-analyze") is None:
        cannot_run("systemd-analyze is missing")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/sbin/kdumpfenced", shutil.which("true") or "")
        (tmp_path / unit.name).write_text(re.sub("(?m)^Documentation=.*$", "", text))
    return tmp_path


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on the units."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        cwd=folder,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_units_are_sound(units: Path) -> None:
    done = analyze("verify", "./kdumpfenced.service", "./kdumpfenced.socket", folder=units)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_unit_that_is_not_sound_would_be_found(units: Path) -> None:
    unit = units / "kdumpfenced.service"
    unit.write_text(unit.read_text().replace("Restart=on-failure", "Restrat=on-failure"))
    assert "Restrat" in analyze("verify", "./kdumpfenced.service", folder=units).stdout


def exposure(units: Path) -> float:
    """What systemd thinks of the service: 0 is safe, 10 is not."""
    done = analyze("security", "--offline=true", "./kdumpfenced.service", folder=units)
    return float(re.findall(r"Overall exposure level.*?: ([\d.]+) ", done.stdout)[0])


def test_the_service_is_hardened(units: Path) -> None:
    assert exposure(units) <= 1.2
    unit = units / "kdumpfenced.service"
    unit.write_text(unit.read_text().replace("CapabilityBoundingSet=\n", ""))
    assert exposure(units) > 1.2


def test_the_socket_is_that_of_the_settings() -> None:
    text = (UNITS / "kdumpfenced.socket").read_text()
    assert re.findall(r"(?m)^ListenDatagram=.*:(\d+)$", text) == [str(Settings().port)] * 2
    assert f"ReceiveBuffer={Settings().queue >> 20}M\n" in text


def test_the_directories_are_those_of_the_settings() -> None:
    text = (UNITS / "kdumpfenced.service").read_text()
    state = re.findall(r"(?m)^StateDirectory=(.*)$", text)
    run = re.findall(r"(?m)^RuntimeDirectory=(.*)$", text)
    assert str(Path(Settings().history_path).parent) == f"/var/lib/{state[0]}"
    assert str(Path(Settings().control_path).parent) == f"/run/{run[0]}"


def test_nobody_else_looks_into_the_history_and_nobody_shares_the_port() -> None:
    service = (UNITS / "kdumpfenced.service").read_text()
    assert re.findall(r"(?m)^(?:StateDirectoryMode|UMask)=(.*)$", service) == ["0700", "0077"]
    # Asking is for everybody: the socket's mode says who may.
    assert "RuntimeDirectoryMode" not in service
    assert not re.search("(?m)^ReusePort", (UNITS / "kdumpfenced.socket").read_text())
