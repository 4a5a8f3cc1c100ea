# SPDX-License-Identifier: LGPL-2.1-or-later
"""The doctor's findings as metrics: promtool's opinion, and what Prometheus would read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kdumpfence.doctor import checks, metrics
from kdumpfence.doctor.finding import STATES, Finding, fails, ok, unknown, warning
from tests.docs import manpage
from tests.support import promtool

SOURCE = Path(checks.__file__).parent
WHEN = 1790000000.123456
FOUND = {
    "image": [ok("image found", "there"), fails("image found", "broken", "mend it")],
    "way": [warning("way there", "slow", "wait"), ok("port open", "nftables"), unknown("a", "b")],
}


def series(page: bytes) -> dict[tuple[str, ...], float]:
    """The value of each series, by its name and the values of its labels."""
    return {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(page.decode())
        for one in family.samples
    }


def test_each_check_has_one_state_and_of_several_findings_the_worst() -> None:
    found = series(metrics.page(FOUND, WHEN, 1.5))
    name = "kdumpfence_doctor_check_state"
    states = {key[1:]: value for key, value in found.items() if key[0] == name}
    assert len(states) == 4 * len(STATES)
    assert {key for key, value in states.items() if value == 1} == {
        ("image", "image found", "fails"),
        ("way", "way there", "warning"),
        ("way", "port open", "ok"),
        ("way", "a", "unknown"),
    }
    assert set(states.values()) == {0, 1}


def test_the_whole_run_has_its_worst_state_its_numbers_and_its_time() -> None:
    found = series(metrics.page(FOUND, WHEN, 1.5))
    assert [found["kdumpfence_doctor_state", one] for one in STATES] == [0, 0, 0, 1]
    assert [found["kdumpfence_doctor_findings", one] for one in STATES] == [2, 1, 1, 1]
    assert found["kdumpfence_doctor_last_run_timestamp_seconds",] == round(WHEN, 3)
    assert found["kdumpfence_doctor_last_run_duration_seconds",] == 1.5


@pytest.mark.parametrize("found", [FOUND, {}, {"way": []}], ids=["much", "nothing", "no finding"])
def test_promtool_has_nothing_to_say(found: dict[str, list[Finding]]) -> None:
    done = promtool.run("check", "metrics", text=metrics.page(found, WHEN, 0.0000012).decode())
    assert (done.returncode, done.stdout) == (0, "")


def test_promtool_would_say_something() -> None:
    text = metrics.page(FOUND, WHEN, 1.5).decode().replace("# HELP", "# HLEP")
    assert promtool.run("check", "metrics", text=text).returncode != 0


def test_the_manual_explains_each_of_them_and_no_other() -> None:
    headings = " ".join(entry.heading for entry in manpage.read("kdumpfence")["DOCTOR"].entries)
    documented = set(re.findall(r"kdumpfence_doctor_\w+", headings))
    assert documented == {key[0] for key in series(metrics.page(FOUND, WHEN, 1.5))}


def test_a_label_holds_whatever_is_in_it() -> None:
    hostile = 'a"b\\c\nd\x1be\udc80{},= #'
    found = series(metrics.page({hostile: [ok(hostile, "")]}, WHEN, 1.5))
    shown = 'a"b\\c\\nd\\x1be\\udc80{},= #'
    assert found["kdumpfence_doctor_check_state", shown, shown, "ok"] == 1


def test_what_was_found_is_in_no_label() -> None:
    page = metrics.page({"way": [fails("way there", "a text", "a remedy")]}, WHEN, 1.5)
    assert b"a text" not in page
    assert b"a remedy" not in page


#: What makes a finding; `state` is any of them.
MAKERS = ("ok", "unknown", "warning", "fails", "state", "Finding")


def names_of_checks(module: ast.Module) -> Iterator[str | None]:
    """What findings of this module are called; None for what is no text of the source."""
    texts: dict[str, list[str | None]] = {}
    nodes = list(ast.walk(module))
    for assign in (node for node in nodes if isinstance(node, ast.Assign)):
        for target in assign.targets:
            pairs = [(target, assign.value)]
            if isinstance(target, ast.Tuple) and isinstance(assign.value, ast.Tuple):
                pairs = list(zip(target.elts, assign.value.elts))
            for name, value in pairs:
                texts.setdefault(ast.unparse(name), []).append(text_of(value))
    for node in nodes:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in MAKERS:
            first = node.args[0]
            known = isinstance(first, ast.Name) and first.id in texts
            yield from texts[ast.unparse(first)] if known else [text_of(first)]


def text_of(node: ast.AST) -> str | None:
    """The text that this expression is."""
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else None


def test_the_number_of_series_is_bounded_since_every_name_of_a_check_is_in_the_source() -> None:
    names = set()
    # Where names are passed on: there the rest are those of functions.
    for file in {*SOURCE.glob("*.py")} - {SOURCE / "finding.py", SOURCE / "checks.py"}:
        for name in names_of_checks(ast.parse(file.read_text())):
            assert name is not None, file.name
            assert len(name) <= 40, f"{file.name}: {name}"
            names.add(name)
    assert 20 < len(names) < 200
