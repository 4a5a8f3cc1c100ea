# SPDX-License-Identifier: LGPL-2.1-or-later
"""Alert rules and dashboard: promtool's opinion, and whether their metrics are really there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.wire import REASONS
from tests.daemon.running import Kdumpfenced, until
from tests.support import promtool

FOLDER = Path(__file__).resolve().parents[2] / "packaging" / "monitoring"
RULES = FOLDER / "kdumpfenced.rules.yml"
TESTS = FOLDER / "kdumpfenced.test.yml"
DASHBOARD = FOLDER / "kdumpfenced.dashboard.json"


@pytest.fixture
def page(daemon: Kdumpfenced) -> str:
    """What a real daemon exports while a node dumps."""
    daemon.start()
    daemon.hear("127.0.0.2")
    until(lambda: 'start_time_seconds{node="127.0.0.2"}' in daemon.get("/metrics")[1])
    return daemon.get("/metrics")[1]


@pytest.mark.slow
def test_the_rules_are_sound_and_do_what_their_tests_say() -> None:
    done = promtool.run("check", "rules", RULES)
    assert done.returncode == 0, done.stdout
    done = promtool.run("test", "rules", TESTS)
    assert done.returncode == 0, done.stdout


def test_a_rule_that_does_not_do_it_would_be_found(tmp_path: Path) -> None:
    shutil.copy(TESTS, tmp_path)
    for name, broken in (("> 3600", "> 36000"), ("for: 1m", "for: 10m"), ('"unread"', '"read"')):
        text = RULES.read_text()
        assert name in text
        (tmp_path / RULES.name).write_text(text.replace(name, broken))
        done = promtool.run("test", "rules", tmp_path / TESTS.name)
        assert done.returncode != 0, name


def test_every_rule_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    names = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert len(names) > 8
    quiet = set(
        re.findall(r"alertname: (\w+), eval_time: \w+, exp_alerts: \[\]", TESTS.read_text())
    )
    firing = set(re.findall(r"- alertname: (\w+)\n", TESTS.read_text()))
    assert quiet == firing == names


def test_what_the_daemon_exports_is_sound(page: str) -> None:
    done = promtool.run("check", "metrics", text=page)
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


def test_the_expressions_of_the_dashboard_are_sound(tmp_path: Path) -> None:
    board = json.loads(DASHBOARD.read_text())
    rules = [
        {"record": f"panel:{at}", "expr": expression.replace("$instance", ".*")}
        for at, expression in enumerate(expressions(board))
        if not expression.startswith("label_values")
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = promtool.run("check", "rules", file)
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
