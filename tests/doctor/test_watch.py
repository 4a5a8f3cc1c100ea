# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence doctor --watch: from what is planted in a root to what Prometheus reads."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from kdumpfence.cli.main import main
from kdumpfence.doctor import checks
from kdumpfence.doctor.finding import Finding, fails, ok
from tests.cli.commands import run
from tests.doctor.planted import gone, put
from tests.doctor.test_metrics import series

CHECK, STATE = "kdumpfence_doctor_check_state", "kdumpfence_doctor_state"
SENDER = "/usr/lib/kdumpfence/fence_kdump_send"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file, in a directory of its own."""
    (tmp_path / "textfiles").mkdir()
    return tmp_path / "textfiles/kdumpfence.prom"


def look(root: Path, file: Path, *parts: str) -> tuple[int, str, dict[tuple[str, ...], float]]:
    """Exit status, output and series of a look at that root."""
    done = run("doctor", "--root", str(root), "--watch", str(file), *(parts or ("image",)))
    assert done.stderr == ""
    return done.returncode, done.stdout, series(file.read_bytes())


def test_of_a_healthy_node_all_is_ok(healthy: Path, file: Path) -> None:
    before = time.time()
    status, said, found = look(healthy, file, "image", "crash kernel")
    assert status == 0
    assert {key for key, value in found.items() if key[0] == CHECK and value} == {
        key for key in found if key[0] == CHECK and key[-1] == "ok"
    }
    assert found[CHECK, "image", "sender inside", "ok"] == 1
    assert found[CHECK, "crash kernel", "kdump enabled", "ok"] == 1
    assert found[STATE, "ok"] == 1
    assert before - 1 < found["kdumpfence_doctor_last_run_timestamp_seconds",] < time.time()
    assert found["kdumpfence_doctor_last_run_duration_seconds",] > 0
    # A line for the journal, and no more.
    assert said.split() == [str(int(found["kdumpfence_doctor_findings", "ok"])), "ok"]


def test_a_planted_fault_is_a_metric_until_it_is_mended(healthy: Path, file: Path) -> None:
    content = (healthy / SENDER[1:]).read_bytes()
    gone(SENDER)(healthy)
    status, said, found = look(healthy, file)
    assert status == 2
    assert (found[STATE, "fails"], found[STATE, "ok"]) == (1, 0)
    assert found[CHECK, "image", "sender inside", "fails"] == 1
    assert found[CHECK, "image", "sender inside", "ok"] == 0
    assert "\nimage: sender inside: kdumpfence install-sender\n" in said
    assert not [line for line in said.splitlines() if line.startswith("ok ")]

    first = found["kdumpfence_doctor_last_run_timestamp_seconds",]
    put(SENDER, content, 0o755)(healthy)
    status, _, found = look(healthy, file)
    assert status == 0
    assert found[CHECK, "image", "sender inside", "fails"] == 0
    assert found[CHECK, "image", "sender inside", "ok"] == 1
    assert found["kdumpfence_doctor_last_run_timestamp_seconds",] > first
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("watch", [True, False])
def test_exit_status_and_json_are_the_same_with_it(
    watch: bool,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for finding, status in ((ok("this", "is fine"), 0), (fails("that", "is not", "do it"), 2)):
        monkeypatch.setattr(checks, "examine", lambda *_, one=finding: {"image": [one]})
        options = ["--watch", str(file)] if watch else []
        assert main(["doctor", "--json", *options]) == status
        told = json.loads(capsys.readouterr().out)
        assert told["findings"] == [{"part": "image", **finding._asdict()}]
        assert file.exists() == watch


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no/such/x.prom", "No such file or directory; name a file in node_exporter's "),
        ("metrics.txt", "node_exporter reads only files whose names end in .prom"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_anything_is_looked_at(
    name: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def examine(*_: object) -> dict[str, list[Finding]]:
        raise AssertionError("it looked")

    monkeypatch.setattr(checks, "examine", examine)
    assert main(["doctor", "--watch", str(tmp_path / name)]) == 3
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("kdumpfence: ")
    assert why in said.err


def test_what_cannot_be_written_is_no_success_of_a_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever was found; 1 would be a warning, which the unit takes for success."""
    monkeypatch.setattr(checks, "examine", lambda *_: {"image": [ok("this", "is fine")]})
    assert main(["doctor", "--watch", "/proc/self/x.prom"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("kdumpfence: /proc/self/x.prom: ")
    assert said.err.count("\n") == 1


def test_a_link_that_somebody_planted_is_replaced(
    healthy: Path, file: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    file.symlink_to(victim)
    look(healthy, file)
    assert not file.is_symlink()
    assert victim.read_text() == "precious\n"
