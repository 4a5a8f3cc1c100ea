# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a daemon answers is what its own description says, over HTTP and in lines of JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from kdumpfence.client import Client
from kdumpfence.daemon import control, openapi
from tests.daemon.running import Kdumpfenced, patched

#: Where there is schemathesis, see pyproject.toml: it checks the same against each of its schemas.
CHECKED = (3, 10) <= sys.version_info < (3, 15)

#: Nobody waits for a minute here.
QUICK = "control.MOST_WAIT = 0.05"

NODES = ("127.3.0.7", "127.3.0.8", "node-not-known")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdumpfenced]:
    """One with two dumps under way, and one that is over."""
    made = Kdumpfenced(tmp_path_factory.mktemp("openapi"))
    made.configure(top="silence = 1\nnetworks = ['127.0.0.0/8']", http=True)
    with contextlib.closing(made):
        made.start(program=patched(QUICK))
        made.hears("127.3.0.9")
        made.says("node '127.3.0.9' fell silent")
        made.end()
        made.configure(http=True)
        made.start(program=patched(QUICK))
        made.hears(*NODES[:2])
        yield made


def test_what_is_served_is_the_description(
    running: Kdumpfenced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openapi, "MOST_WAIT", 0.05)
    url = f"http://127.0.0.1:{running.http_port}/v1/openapi.json"
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert json.load(answer) == openapi.description()


def test_every_question_has_a_path_and_a_schema() -> None:
    assert tuple(openapi.ANSWERS) == ("status", "node", *control.QUESTIONS[2:])
    operations = {
        operation["operationId"]
        for path in openapi.description()["paths"].values()
        for operation in path.values()
    }
    assert operations == {*control.QUESTIONS, "nodes_posted", "openapi"}
    for schema in openapi.ANSWERS.values():
        assert schema in openapi.SCHEMAS


if CHECKED:
    import jsonschema_rs
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from hypothesis.errors import Unsatisfiable

    OPERATIONS = tuple(
        (method, path)
        for path, methods in openapi.description()["paths"].items()
        for method in methods
    )

    @pytest.mark.slow
    @pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
    @pytest.mark.parametrize(("method", "path"), OPERATIONS)
    def test_every_answer_over_http_is_as_described(
        running: Kdumpfenced, method: str, path: str, mode: schemathesis.GenerationMode
    ) -> None:
        schema = schemathesis.openapi.from_url(
            f"http://127.0.0.1:{running.http_port}/v1/openapi.json"
        )
        asked = 0

        @given(case=schema[path][method].as_strategy(generation_mode=mode))
        @settings(
            max_examples=20,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(timeout=30)

        try:
            check()
        except Unsatisfiable:
            # Of what has no parameters there is nothing to be wrong.
            assert mode is schemathesis.GenerationMode.NEGATIVE
        assert asked or mode is schemathesis.GenerationMode.NEGATIVE

    QUESTIONS: tuple[dict[str, Any], ...] = (
        {"ask": "status"},
        {"ask": "status", "most": 0},
        *({"ask": "node", "node": node} for node in NODES),
        {"ask": "nodes", "nodes": list(NODES)},
        {"ask": "dumps"},
        {"ask": "dumps", "most": 1},
        {"ask": "ended"},
        {"ask": "events"},
        {"ask": "events", "after": 0},
        {"ask": "events", "after": 9, "life": "another", "wait": 1},
        {"ask": "health"},
        {"ask": "heard", "nodes": [NODES[0]], "wait": "x"},
        {"ask": "heard", "nodes": ["node-not-known"], "wait": "x"},
        {"ask": "question", "nodes": ["node-not-known"], "packet": 304 * "0"},
    )

    @pytest.mark.parametrize("question", QUESTIONS, ids=str)
    def test_every_answer_in_a_line_is_as_described(
        running: Kdumpfenced, question: dict[str, Any]
    ) -> None:
        schema = {
            "$ref": f"#/components/schemas/{openapi.ANSWERS[question['ask']]}",
            "components": {"schemas": openapi.SCHEMAS},
        }
        with Client(str(running.control)) as client:
            answer = client.ask(question)
        jsonschema_rs.validate(schema, answer)
        # And it is that schema which says so.
        for member in openapi.SCHEMAS[openapi.ANSWERS[question["ask"]]]["required"]:
            less = {name: value for name, value in answer.items() if name != member}
            assert not jsonschema_rs.is_valid(schema, less)
