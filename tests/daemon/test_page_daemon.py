# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a daemon tells of itself on its status page."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from pathlib import Path

from kdumpfence.daemon.history import History
from kdumpfence.daemon.history_reading import Past
from kdumpfence.daemon.page.own import Own
from kdumpfence.daemon.page.view import ROWS
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import Dump, Event, Kind
from tests.daemon.page_views import past, status
from tests.daemon.running import Kdumpfenced, until


def event(kind: Kind, node: str, since: float, took: float = 5.0) -> Event:
    return Event(kind, node, since + took, since, since + took, 3, ("192.0.2.1",), took)


def own(told: Told, trouble: str = "", before: Sequence[Past] = ()) -> Own:
    """Of a daemon that listens for n1 to n4."""

    def figures(nodes: list[str]) -> list[Dump | None]:
        return [None for _ in nodes]

    return Own(told, figures, lambda node: node < "n5", "engine1", 30.0, lambda: trouble, before)


def test_dumps_under_way_are_told_newest_first_and_page_by_page() -> None:
    told = Told()
    for number in range(ROWS + 50):
        told.tell(event("began", f"n{number}", 1000.0 + number))
    source = own(told)
    first, second, third = (source.view(skip, "") for skip in (0, ROWS, 2 * ROWS))
    assert (first.dumping, len(first.rows), len(second.rows), len(third.rows)) == (150, 100, 50, 0)
    assert first.rows[0].dump.node == "n149"
    assert second.rows[0].dump.node == "n49"
    assert first.rows[0].by == ("engine1",)
    assert first.oldest is not None
    assert first.oldest.node == "n0"


def test_past_dumps_are_those_of_the_history_and_those_since_the_later_end_counts() -> None:
    before = [past("n2", 9.0, since=200.0), past("n1", 9.0, since=100.0)]
    under_way = before[0]._replace(node="n9", ended=None, end="")
    source = own(Told(), before=[under_way, *before])
    assert [dump.node for dump in source.view(0, "").past] == ["n2", "n1"]
    source.ended(event("failed", "n3", 300.0))
    source.ended(event("finished", "n3", 300.0))
    source.ended(event("failed", "n1", 100.0))
    assert [(dump.node, dump.end) for dump in source.view(0, "").past] == [
        ("n1", "failed"),
        ("n3", "finished"),
        ("n2", "finished"),
    ]


def test_one_node_is_found_whatever_it_does() -> None:
    told = Told()
    told.tell(event("began", "n1", 100.0))
    told.tell(event("began", "n2", 100.0))
    told.tell(event("silent", "n2", 100.0))
    source = own(told)
    found = [source.view(0, node).found for node in ("n1", "n2", "n3", "n7")]
    assert all(one is not None for one in found)
    shown = [(one.known, one.row is not None, one.ended is not None) for one in found if one]
    assert shown == [(True, True, False), (True, False, True), (True, False, False)] + [
        (False, False, False)
    ]
    assert source.view(0, "").found is None


def test_a_status_gets_older_and_a_daemon_that_is_stuck_says_so() -> None:
    source = own(Told(), "the main loop has been stuck for 12 s")
    assert source.view(0, "").listeners[0].status is None
    source.publish(status(nodes=7))
    (heard,) = source.view(0, "").listeners
    assert heard.status is not None
    assert heard.status.nodes == 7
    before = heard.status.age
    later = source.view(0, "").listeners[0].status
    assert later is not None
    assert later.age >= before >= 0
    assert heard.troubles == ["the main loop has been stuck for 12 s"]


# A real daemon


def request(port: int, path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_a_daemon_serves_it_with_a_strict_policy(daemon: Kdumpfenced) -> None:
    with History(str(daemon.history)) as opened:
        opened.record([event("finished", "old1", time.time() - 500.0, 77.0)])
    daemon.start()
    daemon.hears("127.0.0.2")
    until(lambda: "127.0.0.2</bdi>" in daemon.get("/")[1])
    text = daemon.get("/")[1]
    assert "1 node is dumping" in text
    assert "old1" in text
    assert "1 min 17 s" in text
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/status.css", "text/css; charset=utf-8"),
        ("/status.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ):
        answer, content = request(daemon.metrics_port, path)
        assert answer.status == 200
        assert content
        assert answer.headers["Content-Type"] == kind
        policy = dict(
            part.strip().split(" ", 1)
            for part in answer.headers["Content-Security-Policy"].split(";")
        )
        assert policy.pop("default-src") == "'none'"
        assert set(policy.values()) == {"'self'", "'none'"}
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        head, nothing = request(daemon.metrics_port, path, "HEAD")
        assert (head.status, nothing) == (200, b"")
    assert daemon.get("/metrics")[0] == 200
    assert daemon.get("/nothing") == (404, "there are /, /metrics and /health\n")
    found = daemon.get("/?node=127.0.0.2")[1]
    assert "is <strong>dumping</strong>" in found
    evil = daemon.get("/?node=%3Cscript%3Ealert(1)%3C/script%3E")[1]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in evil
    assert evil.count("<script") == 1


def test_a_dump_that_ends_goes_over_to_the_past(daemon: Kdumpfenced) -> None:
    daemon.configure('networks = ["127.0.0.0/8"]\nsilence = 1')
    daemon.start()
    daemon.hear("127.0.0.2")
    until(lambda: daemon.past() and daemon.past()[0].ended)
    until(lambda: "</b> silence</td>" in daemon.get("/")[1])
    assert "No node is dumping" in daemon.get("/")[1]


def test_nodes_of_the_settings_that_are_called_something_evil(tmp_path: Path) -> None:
    daemon = Kdumpfenced(tmp_path)
    try:
        daemon.configure("", '"<script>alert(1)</script>" = ["127.3.0.9"]')
        daemon.start()
        daemon.hear("127.3.0.9")
        until(lambda: "&lt;script&gt;alert(1)&lt;/script&gt;" in daemon.get("/")[1])
        assert "<script>alert" not in daemon.get("/")[1]
    finally:
        daemon.close()


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    daemon = Kdumpfenced(tmp_path)
    try:
        daemon.configure(metrics="page = false")
        daemon.start()
        assert until(lambda: daemon.get("/metrics")[0]) == 200
        assert daemon.get("/")[0] == 404
        assert daemon.get("/status.js") == (404, "there are /metrics and /health\n")
    finally:
        daemon.close()
