# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence doctor: its table, its JSON and its exit status. What it finds is in tests/doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdumpfence.cli.main import main
from kdumpfence.doctor import checks
from kdumpfence.doctor.finding import Finding, fails, ok, unknown, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.sysroot import Sysroot
from tests.cli.commands import COMMAND, ENVIRONMENT
from tests.cli.terminal import Terminal, plain

GOOD = ok("this", "is fine")
HOSTILE = "a\x1b[2Jb\nc"


def find(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    """Let the checks find these."""
    monkeypatch.setattr(checks, "examine", lambda *_: {"image": list(findings)})


@pytest.mark.parametrize(
    ("finding", "state", "status"),
    [
        (GOOD, "ok", 0),
        (unknown("that", "no way"), "unknown", 1),
        (warning("that", "is slow", "do it"), "warning", 1),
        (fails("that", "is missing", "do it"), "fails", 2),
    ],
)
def test_the_exit_status_says_how_bad_it_is(
    finding: Finding,
    state: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find(monkeypatch, GOOD, finding)
    assert main(["doctor"]) == status
    assert f"\n{state} " in capsys.readouterr().out
    assert main(["doctor", "--json"]) == status
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == state
    assert told["findings"] == [{"part": "image", **one._asdict()} for one in (GOOD, finding)]


def test_remedies_stand_below_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find(monkeypatch, GOOD, fails("that", "is missing", "do it"), warning("it", HOSTILE, HOSTILE))
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("What to do:") + 1] == "image: that: do it"
    assert lines[-1] == "1 ok, 1 warning, 1 fails"
    assert not any("\x1b" in line for line in lines)


def test_on_a_narrow_terminal_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=debian\n")
    argv = [*COMMAND, "doctor", "--root", str(tmp_path)]
    with Terminal(argv, lines=100, columns=70, environment=ENVIRONMENT) as terminal:
        assert terminal.end() == 2
        assert "\x1b[" in terminal.text  # rich's
        text = plain(terminal.text)
    # What stands in the last column, without the others.
    cells = "".join(line[39:].strip() for line in text.splitlines())
    cells = "".join(cells.split())
    with Sysroot(str(tmp_path)) as root:
        found = [one for some in checks.examine(Machine(root)).values() for one in some]
    assert any(one.remedy for one in found)
    for one in found:
        assert f": {one.remedy}" in text.replace("\r", "")
        assert "".join(one.text.split()) in cells


def test_a_part_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "imag"]) == 1
    assert capsys.readouterr().err == (
        f"kdumpfence: 'imag': not one of {', '.join(checks.PARTS)}\n"
    )
