# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of suites, from reports of pytest to docs/systems.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT, run
from tools import suite, systems
from tools.systems import Part, Record

pytestmark = pytest.mark.slow

TESTS = """
import pytest

def test_passes(record_property): record_property("heard after", "0.07 s")
def test_fails(): assert False
@pytest.fixture
def broken(): raise OSError
def test_breaks(broken): pass
def test_skips(): pytest.skip("why")
"""


def report(top: Path, folder: str) -> Path:
    """What pytest writes of such tests in that folder of tests/."""
    module = top / "tests" / folder / "test_them.py"
    module.parent.mkdir(parents=True)
    module.write_text(TESTS)
    (top / "pytest.ini").touch()
    options = ("-p", "no:cacheprovider", "--import-mode=importlib", "--junitxml=report.xml")
    run(sys.executable, "-m", "pytest", *options, "tests", cwd=top, status=1)
    return top / "report.xml"


@pytest.mark.parametrize(
    ("folder", "part"), [("interop", "interop"), ("system/crash", "crash"), ("daemon", "unit")]
)
def test_a_report_counts_for_the_part_of_its_folder(tmp_path: Path, folder: str, part: str) -> None:
    found: dict[str, Part] = {}
    systems.read(report(tmp_path, folder), found)
    assert list(found) == [part]
    counted = found[part]
    assert (counted.passed, counted.failed, counted.skipped) == (1, 2, 1)
    assert counted.measured == ({"heard after": "0.07 s"} if part == "crash" else {})


def test_a_report_in_the_folder_of_a_python_is_about_that_one(tmp_path: Path) -> None:
    found: dict[str, Part] = {}
    for version in ("3.14.5", "3.15.0"):
        systems.read(report(tmp_path / version, "core"), found)
    assert list(found) == ["pythons"]
    assert found["pythons"].passed == 2
    told = {"Python 3.14": "3.14.5", "Python 3.15": "3.15.0"}
    assert found["pythons"].measured == told


def test_a_run_is_good_if_something_passed_and_nothing_failed() -> None:
    def good(*parts: Part) -> bool:
        return Record("2026-11-29", {}, {str(n): part for n, part in enumerate(parts)}).good

    assert good(Part(passed=3))
    assert not good(Part(passed=3), Part(passed=3, failed=1))
    assert not good(Part(passed=3), Part())


def test_every_folder_of_the_tests_that_is_named_is_there() -> None:
    folders = [folder for part in systems.PARTS.values() for folder in part]
    assert [name for name in folders if not (ROOT / "tests" / name).is_dir()] == []
    assert set(systems.TITLES) == set(systems.PARTS)


def test_the_page_shows_what_is_kept() -> None:
    assert systems.table(systems.load(systems.STORE)) in systems.PAGE.read_text()


@pytest.mark.parametrize("name", ["trixie", "testing", "unstable"])
def test_panics_and_clusters_have_passed_on_the_newest_suites(name: str) -> None:
    record = systems.load(systems.STORE)[name]
    assert {"unit", "interop", "packages", "install", *systems.MEASURING} <= set(record.parts)
    assert record.good


def test_a_record_replaces_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "systems.md"
    page.write_text("x\n<!-- systems: begin -->\n<!-- systems: end -->\ny\n")
    monkeypatch.setattr(systems, "PAGE", page)
    monkeypatch.setattr(systems, "STORE", tmp_path / "systems.json")
    versions = {"pacemaker": "3.0.3-1"}
    for date, part in (("2026-11-28", "unit"), ("2026-11-29", "crash"), ("2026-11-29", "cluster")):
        systems.write({"unstable": Record(date, versions, {part: Part(passed=7)})})
    systems.write({"trixie": Record("2026-11-27", {"pacemaker": "3.0.0-2"}, {})})
    text = page.read_text()
    assert "|  | Debian 13 | unstable |" in text
    assert "| run on | 2026-11-27 | 2026-11-29 |" in text
    assert "| pacemaker | 3.0.0-2 | 3.0.3-1 |" in text
    records = systems.load(systems.STORE)
    assert list(records) == ["trixie", "unstable"]
    assert set(records["unstable"].parts) == {"crash", "cluster"}


def test_a_part_that_no_record_has_yet_has_no_row() -> None:
    table = systems.table({"trixie": Record("2026-11-29", {}, {"unit": Part(passed=7)})})
    assert "unit tests" in table
    assert systems.TITLES["doctor"] not in table


def test_an_unknown_suite_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        suite.main(["sarge"])
    assert "sarge" in capsys.readouterr().err
