# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence-doctor.service and its timer under a real systemd: hardening hides nothing from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import cannot_run
from tests.support.booted import booted, command, lay
from tests.support.netlab import Lab, why_not

pytestmark = pytest.mark.slow

FOLDER = "/var/lib/prometheus/node-exporter"

#: In turn: without node_exporter's directory, with it, and once more as root of all rights. The
#: daemon holds the port, so that there is a process to be found.
BOOTED = """[Unit]
Wants=kdumpfence-doctor.timer kdumpfenced.socket kdumpfenced.service
After=kdumpfence-doctor.timer kdumpfenced.socket kdumpfenced.service
[Service]
Type=oneshot
Environment=PYTHONPATH={source}
ExecStart=-/bin/systemctl start kdumpfence-doctor.service
ExecStart=-/bin/sh -c '{show} >/talk/without'
ExecStart=/bin/mkdir -p {folder}
ExecStart=-/bin/systemctl start kdumpfence-doctor.service
ExecStart=-/bin/sh -c '{show} >/talk/with'
ExecStart=/bin/cp -pr {folder} /talk/files
ExecStart=-/bin/sh -c '{doctor} doctor --json >/talk/found'
ExecStart=-/bin/sh -c 'systemctl is-active kdumpfence-doctor.timer >/talk/new'
ExecStart=/bin/mv /talk/new /talk/booted
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What is laid over /etc, with nothing but our units."""
    obstacle = why_not()
    if obstacle is not None:
        cannot_run(obstacle)
    settings = tmp_path / "etc/kdumpfence"
    settings.mkdir(parents=True)
    (settings / "kdumpfenced.toml").write_text('networks = ["127.0.0.0/8"]\n')
    return lay(
        tmp_path,
        BOOTED.format(
            source=Path(__file__).resolve().parents[2] / "src",
            show="systemctl show -p Result -p ExecMainStatus --value kdumpfence-doctor.service",
            folder=FOLDER,
            doctor=command("kdumpfence"),
        ),
    )


def test_the_unit_finds_what_root_finds_and_writes_nowhere_else(root: Path) -> None:
    with Lab() as lab, booted(lab.host("node1"), root) as states:
        assert states == ["active"]
        talk = root / "talk"
        log = (talk / "log").read_text()
        assert sorted((talk / "without").read_text().split()) == ["3", "exit-code"]
        complaint = f"kdumpfence: {FOLDER}: No such file or directory; "
        assert [line for line in log.splitlines() if line.startswith(complaint)]
        assert "Traceback" not in log

        found = json.loads((talk / "found").read_text())
        status = {"ok": "0", "unknown": "1", "warning": "1", "fails": "2"}[found["state"]]
        assert sorted((talk / "with").read_text().split()) == [status, "success"], log
        (file,) = (talk / "files").iterdir()
        assert (file.name, file.stat().st_mode & 0o777) == ("kdumpfence.prom", 0o644)
        families = {one.name: one for one in text_string_to_metric_families(file.read_text())}
        checks = {
            (one.labels["part"], one.labels["check"], one.labels["state"])
            for one in families["kdumpfence_doctor_check_state"].samples
            if one.value == 1
        }
        assert len(checks) > 10
        listed = {(one["part"], one["check"], one["state"]) for one in found["findings"]}
        assert checks == listed
        assert ("agent", "port", "ok") in checks  # it saw that the daemon holds it


def test_in_a_crash_kernel_it_does_not_run(root: Path) -> None:
    (root / "etc/vmcore").touch()
    with Lab() as lab, booted(lab.host("node1"), root) as states:
        assert states == ["inactive"]
        assert not list((root / "talk/files").iterdir())
