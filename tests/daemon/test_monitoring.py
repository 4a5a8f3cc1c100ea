# SPDX-License-Identifier: GPL-2.0-or-later
"""Alert rules and dashboard: promtool's opinion, and whether their metrics are really there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.wire import REASONS
from tests.conftest import cannot_run
from tests.daemon.running import Kdumpfenced, until
from tests.support import debian

FOLDER = Path(__file__).resolve().parents[2] / "packaging" / "monitoring"
RULES = FOLDER / "kdumpfenced.rules.yml"
TESTS = FOLDER / "kdumpfenced.test.yml"
DASHBOARD = FOLDER / "kdumpfenced.dashboard.json"


@pytest.fixture(scope="session")
def promtool() -> str:
    """Debian's, which is not installed for that; from version 13 on in a package of its own."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    try:
        package = "promtool" if "promtool" in debian.known("prom") else "prometheus"
        return str(debian.unpacked(package) / "usr/bin/promtool")
    except debian.NotAvailable as error:
        cannot_run(str(error))
        raise


def run(*command: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def page(daemon: Kdumpfenced) -> str:
    """What a real daemon exports while a node dumps."""
    daemon.start()
    daemon.hear("127.0.0.2")
    until(lambda: 'start_time_seconds{node="127.0.0.2"}' in daemon.get("/metrics")[1])
    return daemon.get("/metrics")[1]


@pytest.mark.slow
def test_the_rules_are_sound_and_do_what_their_tests_say(promtool: str) -> None:
    done = run(promtool, "check", "rules", RULES)
    assert done.returncode == 0, done.stdout
    done = run(promtool, "test", "rules", TESTS)
    assert done.returncode == 0, done.stdout


def test_a_rule_that_does_not_do_it_would_be_found(promtool: str, tmp_path: Path) -> None:
    shutil.copy(TESTS, tmp_path)
    for name, broken in (("> 3600", "> 36000"), ("for: 1m", "for: 10m"), ('"unread"', '"read"')):
        text = RULES.read_text()
        assert name in text
        (tmp_path / RULES.name).write_text(text.replace(name, broken))
        done = run(promtool, "test", "rules", tmp_path / TESTS.name)
        assert done.returncode != 0, name


def test_every_rule_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    names = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert len(names) > 8
    quiet = set(
        re.findall(r"alertname: (\w+), eval_time: \w+, exp_alerts: \[\]", TESTS.read_text())
    )
    firing = set(re.findall(r"- alertname: (\w+)\n", TESTS.read_text()))
    assert quiet == firing == names


def test_what_the_daemon_exports_is_sound(promtool: str, page: str) -> None:
    done = run(promtool, "check", "metrics", text=page)
    assert (done.returncode, done.stdout) == (0, "")


def expressions(board: dict[str, Any]) -> Iterator[str]:
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def test_every_metric_of_dashboard_and_rules_is_exported(page: str) -> None:
    exported = set(re.findall(r"(?m)^(kdumpfence_\w+)", page))
    board = json.loads(DASHBOARD.read_text())
    used = set(re.findall(r"\bkdumpfence_\w+", " ".join(expressions(board))))
    rules = re.findall(r"(?m)^ +expr: (.*)$", RULES.read_text())
    in_rules = set(re.findall(r"\bkdumpfence_\w+", " ".join(rules)))
    assert len(used) > 10
    assert len(in_rules) > 6
    assert used - exported == set()
    assert in_rules - exported == set()
    # And nothing that is exported is shown nowhere.
    series = {re.sub("_(bucket|sum|count|created)$", "", name) for name in exported}
    shown = {re.sub("_bucket$", "", name) for name in used | in_rules}
    assert series - shown == set()


def test_every_verdict_of_the_rules_is_one_of_the_daemons(page: str) -> None:
    exported = set(re.findall(r'kdumpfence_datagrams_total\{verdict="(\w+)"\}', page))
    assert {"accepted", "unread", *REASONS} - exported == set()
    text = RULES.read_text() + DASHBOARD.read_text().replace('\\"', '"')
    named = {
        one for some in re.findall(r'verdict[=!]~?"([\w|]+)"', text) for one in some.split("|")
    }
    assert named
    assert named - exported == set()


def test_the_expressions_of_the_dashboard_are_sound(promtool: str, tmp_path: Path) -> None:
    board = json.loads(DASHBOARD.read_text())
    rules = [
        {"record": f"panel:{at}", "expr": expression.replace("$instance", ".*")}
        for at, expression in enumerate(expressions(board))
        if not expression.startswith("label_values")
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = run(promtool, "check", "rules", file)
    assert done.returncode == 0, done.stdout
    assert f"{len(rules)} rules found" in done.stdout


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    board = json.loads(DASHBOARD.read_text())
    places: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
