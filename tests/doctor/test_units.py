# SPDX-License-Identifier: LGPL-2.1-or-later
"""The doctor's units and alert rules: sound, hardened as far as it goes, and in step."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from kdumpfence.cli.doctor import EXIT_STATUS, NOT_WRITTEN
from kdumpfence.doctor import metrics
from kdumpfence.doctor.finding import FAILS, STATES, ok
from tests.doctor.test_metrics import series
from tests.support import promtool
from tests.support.units import UNITS, analyze, exposure, runnable

SERVICE, TIMER = "kdumpfence-doctor.service", "kdumpfence-doctor.timer"
MONITORING = UNITS.with_name("monitoring")
RULES = MONITORING / "kdumpfence-doctor.rules.yml"
TESTS = MONITORING / "kdumpfence-doctor.test.yml"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, whose programs exist."""
    return runnable(tmp_path)


def settings(unit: str, name: str) -> list[str]:
    """The words of a setting, in all its lines."""
    lines = re.findall(rf"(?m)^{name}=(.*)$", (UNITS / unit).read_text())
    return [word for line in lines for word in line.split()]


def seconds(text: str) -> int:
    """A time as systemd and Prometheus have it."""
    number, unit = re.fullmatch(r"(\d+)(min|m)", text).groups()  # type: ignore[union-attr]
    assert unit
    return int(number) * 60


# ------------------------------------------------------------------ units


def test_the_units_are_sound(units: Path) -> None:
    done = analyze("verify", f"./{SERVICE}", f"./{TIMER}", folder=units)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("unit", "word", "broken"),
    [(SERVICE, "RestrictNamespaces", "RestrictNameSpaces"), (TIMER, "OnBootSec", "OnBootSeconds")],
)
def test_a_unit_that_is_not_sound_would_be_found(
    units: Path, unit: str, word: str, broken: str
) -> None:
    file = units / unit
    file.write_text(file.read_text().replace(word, broken))
    assert broken in analyze("verify", f"./{unit}", folder=units).stdout


def test_the_service_is_hardened(units: Path) -> None:
    """As far as its needs allow; that it does not suffer from it, test_booted.py shows."""
    assert exposure(SERVICE, units) <= 2.8
    file = units / SERVICE
    file.write_text(re.sub("(?m)^CapabilityBoundingSet=.*$", "", file.read_text()))
    assert exposure(SERVICE, units) > 2.8


def test_the_metrics_are_where_debians_node_exporter_looks_and_where_it_may_write() -> None:
    (environment,) = settings(SERVICE, "Environment")
    path = Path(environment.removeprefix("TEXTFILE="))
    assert str(path) == "/var/lib/prometheus/node-exporter/kdumpfence.prom"
    # It need not be there, for the doctor to say so.
    assert f"-{path.parent}" in settings(SERVICE, "ReadWritePaths")
    assert settings(SERVICE, "ExecStart")[-2:] == ["--watch", "${TEXTFILE}"]


def test_what_is_found_is_no_failure_of_the_unit_and_metrics_that_are_not_written_are() -> None:
    fine = {0, *map(int, settings(SERVICE, "SuccessExitStatus"))}
    assert fine == {*EXIT_STATUS.values()}
    assert NOT_WRITTEN not in fine


def test_nothing_starts_the_service_but_its_timer() -> None:
    assert "[Install]" not in (UNITS / SERVICE).read_text()
    assert settings(TIMER, "WantedBy") == ["timers.target"]


# ------------------------------------------------------------------ alert rules


def test_the_rules_are_sound_and_do_what_their_tests_say() -> None:
    for words in (("check", RULES), ("test", TESTS)):
        done = promtool.run(words[0], "rules", words[1])
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("word", "broken"),
    [('"fails"', '"warning"'), ("> 7200", "> 72000"), ("for: 40m", "for: 20m"),
     ("for: 15m", "for: 1m")],
)  # fmt: skip
def test_a_rule_that_does_not_do_it_would_be_found(word: str, broken: str, tmp_path: Path) -> None:
    assert word in RULES.read_text()
    shutil.copy(TESTS, tmp_path)
    (tmp_path / RULES.name).write_text(RULES.read_text().replace(word, broken))
    assert promtool.run("test", "rules", tmp_path / TESTS.name).returncode != 0


def test_every_rule_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    names = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert len(names) == 2
    text = TESTS.read_text()
    quiet = re.findall(r"alertname: (\w+), eval_time: \w+, exp_alerts: \[\]", text)
    firing = re.findall(r"- alertname: (\w+)\n", text)
    assert {*quiet} == {*firing} == {*names}


def test_every_series_of_the_rules_is_one_of_the_doctors() -> None:
    exported = {key[0] for key in series(metrics.page({"way": [ok("port open", "")]}, 1, 1))}
    expressions = " ".join(re.findall(r"(?m)^ +expr: (.*)$", RULES.read_text()))
    used = set(re.findall(r"\bkdumpfence_\w+", expressions))
    assert len(used) == 2
    assert used - exported == set()
    assert re.findall(r'state="(\w+)"', expressions) == [FAILS]
    assert FAILS in STATES


def test_the_rules_are_patient_enough_for_the_timer() -> None:
    every = seconds(*settings(TIMER, "OnUnitActiveSec")) + seconds(
        *settings(TIMER, "RandomizedDelaySec")
    )
    after_boot = seconds(*settings(TIMER, "OnBootSec")) + seconds(
        *settings(TIMER, "RandomizedDelaySec")
    )
    fails_for, overdue_for = map(seconds, re.findall(r"(?m)^ +for: (.*)$", RULES.read_text()))
    overdue = int(re.findall(r"timestamp_seconds > (\d+)", RULES.read_text())[0])
    assert every < fails_for < 2 * every
    assert after_boot < overdue_for
    assert overdue > 3 * every
