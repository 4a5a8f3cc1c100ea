# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the status page says of other listeners, and when it does not rely on it any more."""

from __future__ import annotations

from typing import Any

from kdumpfence.daemon.neighbours import Around
from kdumpfence.daemon.page.html import page
from kdumpfence.daemon.page.own import Own
from kdumpfence.daemon.page.view import Found, Row
from kdumpfence.daemon.told import Told
from kdumpfence.database.overview import read
from kdumpfence.listener.events import Dump
from tests.daemon.page_views import NOW, around, dump, other, seen, view
from tests.daemon.test_page import cells, parsed, words
from tests.daemon.test_page_daemon import event

AWAY = "database away: Connection refused"


def shown(**more: Any) -> Any:
    return parsed(page(view(**more)))


def test_other_listeners_have_their_health_beside_this_one() -> None:
    others = around(
        other("two", dumping=3, waiting=1500, clock_behind=-2.5),
        other("three", "gone", age=90.0),
        other("four", "stopped"),
        other("five", trouble="history: disk full"),
    )
    document = shown(around=others)
    rows = cells(document, "others")
    assert [row[:3] for row in rows[1:]] == [
        ["two", "well", "5 s ago"],
        ["three", "gone", "1 min 33 s ago"],
        ["four", "stopped", "5 s ago"],
        ["five", "trouble", "5 s ago"],
    ]
    assert rows[1][3:6] == ["3", "1,500 events", "-2.5 s"]
    assert words(document, "others-as-of") == "Other listeners, as of 3 s ago, by the database"
    assert words(document, "troubles") == (
        "three: gone, it came to the database last 1 min 33 s agofive: history: disk full"
    )
    assert len(cells(document, "listeners")) == 2


def test_who_dumps_is_counted_over_all_and_says_who_hears_it() -> None:
    theirs = around(dumps=[seen("n2", "two", "three"), seen("n3", "two", observed=False)])
    document = shown(dumping=1, rows=[Row(dump("n1"), ("engine1",))], around=theirs)
    assert words(document, "headline") == "3 nodes are dumping, 2 heard by other listeners only"
    assert document.find(".//title").text.startswith("3 dumping")
    assert [row[0] for row in cells(document, "dumping")[1:]] == ["n1"]
    first, second = cells(document, "elsewhere")[1:]
    assert first[:2] == ["n2", "dumping"]
    assert first[3:] == ["1 min 03 s", "8 s ago", "6", "192.0.2.7", "two, three"]
    assert second[:2] == ["n3", "not known: all who heard it are gone"]


def test_what_is_too_old_does_not_count_and_says_so() -> None:
    old = around(other("two"), age=95.0, dumps=[seen("n2", "two")])._replace(trouble=AWAY)
    document = shown(around=old)
    assert words(document, "headline") == "No node is dumping"
    assert cells(document, "others")[1][:3] == ["two", "not known, was well", "1 min 37 s ago"]
    for identity in ("others-as-of", "elsewhere-as-of"):
        assert words(document, identity).endswith(f", as of 1 min 35 s ago: {AWAY}")
    never = shown(around=Around(None, 0.0, AWAY))
    assert words(never, "others-as-of") == f"Other listeners: nothing known yet: {AWAY}"
    silent = shown(around=old._replace(trouble=""))
    assert "the database has not answered since" in words(silent, "others-as-of")


def test_without_a_database_there_is_nothing_of_it() -> None:
    document = shown()
    assert document.find(".//*[@id='others']") is None
    assert document.find(".//*[@id='elsewhere']") is None


def test_a_node_that_only_others_hear_is_not_said_not_to_dump() -> None:
    theirs = around(dumps=[seen("n2", "two")])
    found = Found("n2", True, elsewhere=seen("n2", "two"))
    assert "dumping by the word of two, as of 3 s ago" in words(
        shown(around=theirs, found=found), "found"
    )
    unknown = Found("n7", True)
    for unsure in (
        theirs._replace(age=95.0),
        theirs._replace(overview=theirs.overview._replace(dumping=9)),  # type: ignore[union-attr]
        Around(None, 0.0, AWAY),
    ):
        assert "Other listeners may hear it" in words(shown(around=unsure, found=unknown), "found")
    assert "may hear it" not in words(shown(around=theirs, found=unknown), "found")


def test_what_is_heard_here_as_well_is_told_once() -> None:
    told = Told()
    told.tell(event("began", "n1", 1000.0))
    theirs = around(dumps=[seen("n1", "two"), seen("n2", "two")])

    def figures(nodes: list[str]) -> list[Dump | None]:
        return [None for _ in nodes]

    source = Own(told, figures, lambda _: True, "one", 30.0, lambda: "", (), lambda: theirs)
    document = parsed(page(source.view(0, "")))
    assert [row[0] for row in cells(document, "elsewhere")[1:]] == ["n2"]
    assert words(document, "headline") == "2 nodes are dumping, 1 heard by other listeners only"
    found = source.view(0, "n2").found
    assert found is not None
    assert found.elsewhere == seen("n2", "two")


def test_rows_that_cannot_be_are_left_out() -> None:
    good = ["two", "up", "1", 1.0, 0, 0, 0.0, 0.0, ""]
    listeners = [good, good[:3], [*good[:3], "NaN", *good[4:]], [*good[:4], None, *good[5:]]]
    one = ["n1", NOW, NOW, 1, None, 0.0, ["two"], True]
    dumps = [one, ["n2", "Infinity", *one[2:]], ["n3"]]
    found = read(
        {"when": NOW, "listening": 4, "listeners": listeners, "dumping": 3, "dumps": dumps}
    )
    assert [each.name for each in found.listeners] == ["two"]
    assert [each.node for each in found.dumps] == ["n1"]
