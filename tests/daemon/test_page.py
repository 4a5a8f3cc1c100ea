# SPDX-License-Identifier: LGPL-2.1-or-later
"""The status page as HTML: what it says, and that nobody's name can become a part of it."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import html5lib
import pytest

from kdumpfence.daemon.page.html import page
from kdumpfence.daemon.page.messages import ASKED, HEARD, WORDS
from kdumpfence.daemon.page.view import PAST_ROWS, ROWS, Found, Heard, Row, View
from kdumpfence.listener.events import Event
from kdumpfence.wire import REASONS
from tests.daemon.page_views import HOSTILE, NOW, dump, hostile, past, status, view

#: All elements that a page may have, and attributes beside those for text.
ELEMENTS = {
    *("html", "head", "meta", "title", "link", "script", "noscript", "body", "header", "main"),
    *("footer", "section", "div", "h1", "h2", "p", "span", "a", "form", "label", "input", "button"),
    *("strong", "time", "table", "caption", "thead", "tbody", "tr", "th", "td", "b", "bdi", "code"),
    *("ul", "li", "dl", "dt", "dd", "details", "summary", "nav", "svg", "g", "line", "rect"),
    "text",
}
LOADED = {"src", "href", "action", "content", "style", "srcset", "background"}


def parsed(content: bytes, scripting: bool = False) -> Any:
    """The document; ParseError for what HTML does not allow."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(content, scripting=scripting)


def words(document: Any, identity: str = "") -> str:
    """The text in it, or in the element of that id, without its line breaks."""
    found = document.find(f".//*[@id='{identity}']") if identity else document.find("body")
    return " ".join("".join(found.itertext()).split())


def cells(document: Any, identity: str) -> list[list[str]]:
    """The rows of the table in that element."""
    rows = document.findall(f".//*[@id='{identity}']//tr")
    return [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in rows]


FULL = view(
    dumping=2,
    rows=[Row(dump("node7", 252.0), ("engine1",)), Row(dump("node1"), ("engine1",))],
    past=[past("node3", 148.0, "silent"), past("node4", 30.0, "failed"), past("node3", 90.5)],
    listeners=[Heard("engine1", status(dumping=2, counts={"accepted": 1234, "stranger": 7}), 30.0)],
)


@pytest.mark.parametrize("shown", [view(), FULL, hostile()], ids=("quiet", "full", "hostile"))
def test_it_is_html_that_a_strict_parser_takes(shown: View) -> None:
    for scripting in (False, True):
        document = parsed(page(shown), scripting)
        names = {
            element.tag.rpartition("}")[2]
            for element in document.iter()
            if isinstance(element.tag, str)
        }
        # Of an SVG picture: <title>. No other element, whatever anybody is called.
        assert names <= ELEMENTS
        identities = [element.get("id") for element in document.iter() if element.get("id")]
        assert len(identities) == len(set(identities))
        for table in document.iter("table"):
            assert table.find("caption") is not None
            assert all(cell.get("scope") == "col" for cell in table.findall("thead/tr/th"))
            for row in table.findall("tbody/tr"):
                assert row.find("th").get("scope") == "row"
                assert len(row) == len(table.find("thead/tr"))
        for label in document.iter("label"):
            assert label.get("for") in identities
    # The picture is XML as well.
    for picture in re.findall(r"<svg.*?</svg>", page(shown).decode(), re.DOTALL):
        ElementTree.fromstring(picture)


@pytest.mark.parametrize("shown", [view(), FULL, hostile()], ids=("quiet", "full", "hostile"))
def test_nothing_in_it_is_loaded_from_elsewhere_or_runs_by_itself(shown: View) -> None:
    for element in parsed(page(shown)).iter():
        for attribute, value in element.attrib.items():
            assert not attribute.startswith("on")
            assert attribute != "style"
            if attribute in LOADED and element.tag != "meta":
                assert re.fullmatch(r"(\./)?(\?[a-z]+=[A-Za-z0-9%._~-]+)?|[a-z]+(\.[a-z]+)?", value)
        if element.tag in ("script", "style"):
            assert not (element.text or "").strip()


def test_hostile_names_are_shown_as_text_and_stay_in_their_place() -> None:
    content = page(hostile()).decode()
    assert "\ufffd" not in content
    # But for the line breaks of the page, and letters: nothing that a terminal or a browser obeys.
    assert all(letter.isprintable() for letter in content.replace("\n", ""))
    document = parsed(content.encode())
    rows = cells(document, "dumping")
    assert rows[1][0] == HOSTILE[0]
    assert rows[2][0] == HOSTILE[1]
    assert rows[5][0] == r"a\x00b\x1b[31m\r\n\tc\x7f\x85"
    assert rows[6][0].startswith(r"evil\u202eedon\u202c")
    assert rows[7][0] == r"\ud800\udfff lone"
    assert rows[8][0] == "x" * 71 + "…"
    # Three marks on a letter are a letter; what would be painted over the lines above is not.
    assert rows[11][0].startswith("z" + "\u0301" * 3 + r"\u0301\u0301")
    # What is written from right to left is kept apart from what is beside it.
    assert "<bdi>שלום</bdi>" in content


def test_it_is_bounded_whatever_there_is_to_tell() -> None:
    assert len(page(hostile())) < 1_000_000
    many = view(
        dumping=20_000,
        rows=[Row(dump(f"node{number}"), ("engine1",)) for number in range(ROWS)],
        past=[past(f"node{number}", 60.0) for number in range(1000)],
    )
    assert len(page(many)) < 120_000
    document = parsed(page(many))
    assert words(document, "pages") == "1 to 100 of 20,000, newest first. and 19,900 more"
    assert len(cells(document, "dumping")) == ROWS + 1
    assert len(cells(document, "past-table")) == PAST_ROWS + 1
    further = parsed(page(many._replace(skipped=200)))
    assert words(further, "pages") == "201 to 300 of 20,000, newest first. Newer and 19,700 more"
    links = [link.get("href") for link in further.findall(".//*[@id='pages']//a")]
    assert links == ["./?skip=100", "./?skip=300"]


def test_it_says_who_is_dumping_since_when_from_where_and_in_which_state() -> None:
    late = dump("node1")._replace(last=NOW, heard=0.0)
    document = parsed(page(FULL._replace(rows=[FULL.rows[0], Row(late, ("engine1",))])))
    assert words(document, "headline") == "2 nodes are dumping"
    heads, first, second = cells(document, "dumping")
    assert heads == ["Node", "State", "Since (UTC)", "For", "Last message", "Messages", "From"]
    assert first[0] == "node7"
    assert first[2] == "2026-11-29 03:07:53"
    assert first[5:] == ["12", "192.0.2.1 port 7410"]
    # Nothing was heard of it since that moment, which is past.
    assert second[1] == "late: over after 30 s of silence"
    assert document.find(".//title").text == "2 dumping: kdumpfenced on engine1"


def test_a_dump_that_was_heard_just_now_is_dumping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdumpfence.listener.events.time.monotonic", lambda: 1003.0)
    fresh = dump("node1")._replace(heard=1000.0)
    (_, row) = cells(parsed(page(view(dumping=1, rows=[Row(fresh, ("engine1",))]))), "dumping")
    assert row[1] == "dumping"
    assert row[3:5] == ["1 min 03 s", "3 s ago"]


def test_it_says_how_long_dumps_took_and_how_long_power_was_needed() -> None:
    document = parsed(page(FULL))
    assert words(document, "figures") == (
        "Past dumps3, 1 failedLongest2 min 28 sPower has to stay on for at least2 min 38 s"
    )
    assert "power on for at least 2 min 38 s" in words(document, "chart")
    rows = [(row[0], *row[2:5]) for row in cells(document, "past-table")[1:]]
    assert rows == [
        ("node3", "2 min 28 s", "silence", "2 min 38 s"),
        ("node4", "30 s", "failed", "not saved"),
        ("node3", "1 min 31 s", "complete", "1 min 31 s"),
    ]
    assert "Power has to stay on for at least 2 min 38 s after" in words(document, "lesson")
    bars = document.findall(".//{*}rect")
    assert [bar.get("class") for bar in bars] == ["finished", "failed", "silent", "unheard"]
    # The bars are as long as the dumps, to the tenth of a unit: 166 of them are 158 s.
    heights = [float(bar.get("height")) for bar in bars]
    assert heights == pytest.approx([166 * s / 158 for s in (90.5, 30, 148, 10)], abs=0.2)


def test_a_dump_under_way_counts_with_what_it_took_so_far() -> None:
    document = parsed(page(FULL._replace(oldest=dump("node7", 252.0))))
    assert "Power has to stay on for at least4 min 22 s" in words(document, "figures")
    assert "power on for at least 4 min 22 s" in words(document, "chart")
    assert "Past dumps3" in words(document, "figures")
    alone = parsed(page(view(oldest=dump("node7", 252.0))))
    assert "Longest4 min 12 s" in words(alone, "figures")
    assert words(parsed(page(view())), "figures") == "No dump is on record."


def test_rejected_messages_are_there_by_reason_in_words() -> None:
    assert set(WORDS) == {*REASONS, "unread"} - {ASKED}
    counts = {HEARD: 5, ASKED: 2, **{why: place for place, why in enumerate(WORDS, 1)}}
    document = parsed(page(view(listeners=[Heard("a", status(counts=counts), 30.0)])))
    assert (
        words(document, "counts") == "5 messages of nodes counted, 2 questions asked, 78 rejected."
    )
    rows = cells(document, "reasons")[1:]
    assert [row[0] for row in rows] == list(reversed(WORDS))
    assert rows[-1] == ["stranger", "1", WORDS["stranger"]]
    assert "none rejected" in words(parsed(page(view())), "counts")


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        (Heard("a", status(), 30.0), "Listening well"),
        (Heard("a", status(troubles=("history: disk full",)), 30.0), "history: disk full"),
        (Heard("a", status(), 30.0, "stuck for 12 s"), "stuck for 12 s"),
        (Heard("a", status(age=75.0), 30.0), "nothing was heard of this listener for 1 min 15 s"),
        (Heard("a", None, 30.0), "nothing was heard of this listener yet"),
        (Heard("a", status(unresolved=("n1", "n2"), unresolved_nodes=2), 30.0),
         "without an address: n1, n2"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_listener_stands_on_top(heard: Heard, said: str) -> None:
    document = parsed(page(view(listeners=[heard])))
    assert said in words(document, "troubles")
    well = cells(document, "listeners")[1][1]
    assert (well == "well") == (said == "Listening well" or "without an address" in said)


def test_several_listeners_have_their_health_and_who_heard_what_is_told() -> None:
    listeners = [
        Heard("engine1", status(counts={"accepted": 5, "magic": 1}, dumping=1), 30.0),
        Heard("engine2", status(counts={"accepted": 4, "magic": 2}, troubles=("deaf",)), 30.0),
        Heard("engine3", None, 30.0),
    ]
    shown = view(listeners=listeners, dumping=1, rows=[Row(dump("n1"), ("engine1", "engine2"))])
    document = parsed(page(shown))
    assert document.find(".//h1/span").text == "on 3 machines"
    assert [row[:2] for row in cells(document, "listeners")[1:]] == [
        ["engine1", "well"],
        ["engine2", "trouble"],
        ["engine3", "never heard"],
    ]
    assert cells(document, "dumping")[1][-1] == "engine1, engine2"
    assert "9 messages of nodes counted, 0 questions asked, 3 rejected" in words(document, "counts")
    assert "engine2: deaf" in words(document, "troubles")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Found("n1", True, Row(dump("n1"), ("a",))), "n1 is dumping since 2026-11-29 03:11:05 UTC"),
        (Found("n1", True, None, Event("failed", "n1", NOW, NOW - 40, NOW - 9, 3, ())),
         "n1 is not dumping. Its last dump began 2026-11-29 03:11:25 UTC, took 31 s and ended "
         "2026-11-29 03:12:05 UTC: failed, as the node said."),
        (Found("n1", True), "n1 is not dumping, and no end of a dump is known since the start"),
        (Found("<i>", False), "<i> is not a node that is listened for here"),
    ],
)  # fmt: skip
def test_one_node_can_be_asked_for(found: Found, said: str) -> None:
    document = parsed(page(view(found=found)))
    assert said in words(document, "found")
