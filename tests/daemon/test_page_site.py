# SPDX-License-Identifier: LGPL-2.1-or-later
"""The status page as answers to requests: what is asked for, what it costs, and who may look."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kdumpfence.daemon.http import Reply, as_text
from kdumpfence.daemon.http_request import Request
from kdumpfence.daemon.page.site import KEEP, Site
from kdumpfence.daemon.page.view import Source, View
from tests.daemon.page_views import view


class Counted:
    """A source that counts how often it is asked, and what for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []

    def view(self, skip: int, node: str) -> View:
        self.asked.append((skip, node))
        return view(skipped=skip)


class Clock:
    """Seconds, and the processor time that each look at it takes."""

    def __init__(self, cost: float = 0.0) -> None:
        self.now = 1000.0
        self.cost = cost
        self.used = 0.0

    def __call__(self) -> float:
        return self.now

    def spent(self) -> float:
        self.used += self.cost
        return self.used


def elsewhere(request: Request) -> Reply:
    """Who answers for paths that are none of the page's."""
    return as_text(404, f"elsewhere: {request.path}")


def site(
    source: Source | None, clock: Clock | None = None, address: str = "127.0.0.1"
) -> Callable[..., Reply]:
    """What a page's site answers to GET of a path and a query."""
    clock = clock or Clock()
    made = Site(elsewhere, address, source, clock, clock.spent)

    def get(path: str, query: str = "", method: str = "GET", **headers: str) -> Reply:
        reply = made.answer(Request(method, path, query, headers))
        assert isinstance(reply, Reply)
        return reply

    return get


def test_a_page_is_made_once_a_second_however_many_look() -> None:
    source, clock = Counted(), Clock()
    get = site(source, clock)
    first = get("/")
    assert all(get("/") is first for _ in range(100))
    clock.now += KEEP
    assert get("/") is not first
    assert source.asked == [(0, "")] * 2


def test_pages_that_nobody_asked_for_before_get_a_tenth_of_a_processor() -> None:
    source, clock = Counted(), Clock(cost=0.05)
    get = site(source, clock)
    get("/")
    for second in range(20):
        for number in range(100):
            clock.now += 0.01
            assert get("/", f"skip={second * 100 + number + 1}").status in (200, 503)
    # 0.5 s at once and 0.1 s each second, where one takes 0.05 s.
    assert 45 <= len(source.asked) <= 55
    # With nothing left, the page with which everybody begins is still there; it says of when.
    assert get("/").status == 200
    refused = get("/", "skip=99999")
    assert refused.status == 503
    assert ("Retry-After", "2") in refused.headers


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", (0, "")),
        ("skip=200", (200, "")),
        ("skip=-1", (0, "")),
        ("skip=x&skip=3", (0, "")),
        ("skip=99999999999", (0, "")),
        ("skip=%D9%A3", (0, "")),  # a digit, but not one of ours
        ("node=hv07", (0, "hv07")),
        ("node=+hv07+&skip=100", (0, "hv07")),
        ("node=%3Cb%3E%00", (0, "<b>\0")),
        ("node=%FF%FE", (0, "\ufffd\ufffd")),
        ("a=1&" * 100 + "node=x", (0, "")),
        ("%%%&&&===", (0, "")),
    ],
)
def test_a_query_is_taken_as_far_as_it_makes_sense(query: str, asked: tuple[int, str]) -> None:
    source = Counted()
    assert site(source)("/", query).status == 200
    assert source.asked == [asked]


def test_a_name_that_is_longer_than_any_is_cut() -> None:
    source = Counted()
    site(source)("/", f"node={'x' * 8000}")
    assert len(source.asked[0][1]) == 254


def test_it_says_so_while_there_is_nothing_to_see_yet() -> None:
    answer = site(None)("/")
    assert answer.status == 503
    assert b"still starting" in answer.body


def test_other_paths_are_not_its_own() -> None:
    get = site(Counted())
    for path in ("/metrics", "/health", "/status.html", "//", "/../status.css", "/files/icon.svg"):
        assert get(path) == as_text(404, f"elsewhere: {path}")


def test_it_only_tells() -> None:
    get = site(Counted())
    for path in ("/", "/status.css"):
        assert get(path, method="POST").status == 405


def test_a_browser_that_was_led_to_this_machine_by_a_name_of_others_sees_nothing() -> None:
    get = site(Counted())
    assert get("/", host="evil.example.com:9741").status == 421
    assert b"dumping" not in get("/", host="evil.example.com:9741").body
    for name in ("127.0.0.1:9741", "localhost:9741", "[::1]:9741"):
        assert get("/", host=name).status == 200
    # On a network it may be called by any name.
    assert site(Counted(), address="192.0.2.9")("/", host="engine1.example.com").status == 200
