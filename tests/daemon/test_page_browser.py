# SPDX-License-Identifier: LGPL-2.1-or-later
"""The status page in a real browser: that it stays true by itself, and is readable in any light.

The browser says what it did not like, which is everything that the page's policy forbids too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.daemon import http
from kdumpfence.daemon.page.own import Own
from kdumpfence.daemon.page.site import Site
from kdumpfence.daemon.page.view import View
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import Dump, Event
from tests.conftest import unused_port
from tests.daemon.page_views import HOSTILE, NOW, hostile, past, status, view
from tests.daemon.running import Kdumpfenced
from tests.support.chromium import Browser
from tools import statuspage

pytestmark = pytest.mark.slow

#: The least contrast of text, by WCAG 2, level AA.
CONTRAST = 4.5

#: All pairs of colours of text and of what is behind it, as "rgb(...)" both.
COLOURS = """
(() => {
  const pairs = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const own = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || own.closest("noscript, title")) continue;
    const drawn = own.closest("svg");
    const text = getComputedStyle(own)[drawn ? "fill" : "color"];
    let behind = own, back = "";
    do {
      back = getComputedStyle(behind).backgroundColor;
      behind = behind.parentElement;
    } while (behind && /, 0\\)$/.test(back));
    pairs[`${text} ${back}`] = walker.currentNode.data.trim().slice(0, 40);
  }
  return pairs;
})()
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_complaints(browser: Browser) -> Iterator[None]:
    """Whatever a test looks at, the browser has nothing to object to, and runs nobody's script."""
    browser.complaints.clear()
    browser.emulate()
    yield
    assert browser.complaints == []


class Shown:
    """The page of a source in this process."""

    def __init__(self) -> None:
        self.current: View = view()
        self.port = unused_port()
        self.served = Site(lambda _: http.as_text(404, "nothing"), "127.0.0.1", self)
        self._pages = http.Pages("127.0.0.1", self.port, self.served.answer, lambda *_: None)
        self._pages.start()

    def view(self, skip: int, node: str) -> View:
        return self.current._replace(skipped=skip)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        self._pages.close()


@pytest.fixture
def shown(browser: Browser) -> Iterator[Shown]:
    made = Shown()
    yield made
    browser.leave()  # else its page would ask for another one, and complain
    made.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Kdumpfenced]:
    """One for whom no dump is over while a test looks at it."""
    made = Kdumpfenced(tmp_path)
    made.configure('networks = ["127.0.0.0/8"]\nsilence = 86400')
    made.start()
    yield made
    made.close()


def test_with_five_nodes_it_keeps_itself_up_to_date(browser: Browser, daemon: Kdumpfenced) -> None:
    daemon.hears(*(f"127.0.0.{number}" for number in range(2, 7)))
    url = f"http://127.0.0.1:{daemon.metrics_port}/"
    browser.open(url)
    browser.until("document.querySelector('#headline').innerText === '5 nodes are dumping'")
    browser.evaluate("window.same = true; document.getElementById('node').value = 'typed'")
    daemon.hear("127.0.0.77")
    browser.until("document.querySelector('#headline').innerText === '6 nodes are dumping'")
    first = browser.evaluate("document.querySelector('#dumping tbody tr').innerText")
    assert "127.0.0.77" in first
    assert browser.evaluate("document.title").startswith("6 dumping")
    # Nothing was loaded anew, and what somebody types stays.
    assert browser.evaluate("window.same")
    assert browser.evaluate("document.getElementById('node').value") == "typed"
    # UTC as the server says, and the reader's own time.
    times = browser.evaluate("document.querySelector('#dumping time').innerText")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (\w{3} )?\d\d:\d\d:\d\d local", times)
    # An old page says that it is one.
    daemon.end()
    browser.until("/^OLD: no answer/.test(document.getElementById('live').innerText)")
    assert browser.evaluate("document.body.className") == "old"
    browser.leave()
    browser.complaints.clear()  # of connections that were refused


def test_it_goes_on_where_somebody_reads_and_types(browser: Browser, shown: Shown) -> None:
    shown.current = view(past=[past(f"n{number}", 40.0) for number in range(60)])
    browser.size(500, 600)
    browser.open(shown.url)
    browser.evaluate(
        "document.getElementById('past-table').focus();"
        "document.querySelector('details').open = true;"
        "document.getElementById('past-table').scrollLeft = 50; window.scrollTo(0, 700)"
    )
    where = "document.querySelector('#past-table tr:nth-child(9)').getBoundingClientRect().top"
    before = browser.evaluate(where)
    shown.current = view(dumping=3, past=[past(f"m{number}", 50.0) for number in range(60)])
    browser.until("document.querySelector('#past-table th[scope=row]').innerText === 'm0'")
    assert browser.evaluate("document.activeElement.id") == "past-table"
    assert browser.evaluate("document.querySelector('details').open")
    assert browser.evaluate("document.getElementById('past-table').scrollLeft") == 50
    assert browser.evaluate(where) == pytest.approx(before, abs=1.0)
    # What has not changed is left alone.
    browser.evaluate("window.kept = document.querySelector('#past-table table')")
    shown.current = shown.current._replace(dumping=4)
    browser.until("document.querySelector('#headline').innerText === '4 nodes are dumping'")
    assert browser.evaluate("window.kept.isConnected")
    # Nobody loses what he is about to copy.
    browser.evaluate("getSelection().selectAllChildren(document.querySelector('#past-table'))")
    browser.until("/^Paused/.test(document.getElementById('live').innerText)")
    shown.current = shown.current._replace(dumping=5)
    browser.evaluate("getSelection().removeAllRanges()")
    browser.until("document.querySelector('#headline').innerText === '5 nodes are dumping'")
    browser.size(1280, 900)


def test_with_scripts_off_everything_is_there_and_it_is_loaded_again(
    browser: Browser, shown: Shown
) -> None:
    shown.current = view(dumping=1, past=[past("node3", 40.0)])
    browser.emulate(scripts=False)
    browser.open(shown.url)
    text = browser.text()
    assert "1 node is dumping" in text
    assert "node3" in text
    assert "Reload" in text
    assert "Updates itself" not in text
    refresh = "document.querySelector('meta[http-equiv=refresh]').content"
    assert browser.evaluate(refresh) == "10"
    shown.current = view(dumping=2)
    shown.served._pages.clear()  # one second later
    browser.open(shown.url)
    assert "2 nodes are dumping" in browser.text()


def test_hostile_names_run_nothing_and_break_nothing(browser: Browser, shown: Shown) -> None:
    shown.current = hostile()
    for scripts in (False, True):
        browser.emulate(scripts=scripts)
        browser.open(shown.url)
        assert browser.evaluate("document.querySelectorAll('img, main script, iframe').length") == 0
        assert HOSTILE[0] in browser.text()
    evil = hostile()
    assert evil.around is not None
    # What is too old is shown, and not counted.
    shown.current = evil._replace(dumping=7, around=evil.around._replace(age=100.0))
    browser.until("document.querySelector('#headline').innerText === '7 nodes are dumping'")
    assert browser.evaluate("document.querySelectorAll('img, main script, iframe').length") == 0
    # Nothing sticks out of the window: what is wide is moved to and fro in its own place.
    for width in (1280, 400):
        browser.size(width, 800)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.size(1280, 900)


def test_text_has_contrast_in_light_and_dark_and_on_paper(browser: Browser, shown: Shown) -> None:
    lines = ("history: disk full",)
    full = hostile()._replace(listeners=[shown.current.listeners[0]], dumping=1 << 20)
    quiet = view(past=full.past)
    shown.current = full
    trouble = view(listeners=[full.listeners[0]._replace(status=status(troubles=lines))])
    backs = set()
    for scheme, current in itertools.product(("light", "dark"), (full, quiet, trouble)):
        shown.current = current
        shown.served._pages.clear()
        browser.emulate(scheme)
        browser.open(shown.url)
        backs.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        pairs = browser.evaluate(COLOURS)
        assert len(pairs) >= 4
        for pair, example in pairs.items():
            assert contrast(*re.findall(r"rgba?\(([^)]*)\)", pair)) >= CONTRAST, (pair, example)
    assert len(backs) == 2
    browser.emulate("dark", media="print")
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert browser.pdf().startswith(b"%PDF")


def contrast(text: str, back: str) -> float:
    """As WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour.split(",")[:3]]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(text), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_with_twenty_thousand_nodes_it_is_small_and_leads_to_all(
    browser: Browser, shown: Shown
) -> None:
    told = Told()
    for number in range(20_000):
        event = Event("began", f"hv{number:05}", NOW, NOW, NOW, 1, (f"10.0.{number % 250}.1",))
        told.tell(event)

    def figures(nodes: list[str]) -> list[Dump | None]:
        return [None for _ in nodes]

    own = Own(told, figures, lambda _: True, "engine1", 30.0, lambda: "")
    own.publish(status(dumping=20_000))
    shown.served.source = own
    browser.open(shown.url)
    assert browser.evaluate("document.querySelectorAll('#dumping tbody tr').length") == 100
    assert "20,000 nodes are dumping" in browser.text()
    assert browser.evaluate("document.documentElement.outerHTML.length") < 150_000
    browser.follow("document.querySelector('a[rel=next]').click()")
    assert browser.evaluate("location.search") == "?skip=100"
    assert browser.evaluate("document.querySelector('#dumping tbody th').innerText") == "hv19899"
    browser.evaluate("document.getElementById('node').value = 'hv00007'")
    browser.follow("document.querySelector('form button').click()")
    assert browser.evaluate("location.search") == "?node=hv00007"
    found = browser.evaluate("document.getElementById('found').innerText")
    assert found.startswith("hv00007 is dumping since 2026-11-29 03:12:05 UTC")


def test_the_pictures_of_the_docs_can_be_made_again_and_are_small(tmp_path: Path) -> None:
    assert statuspage.main([str(tmp_path)]) == 0
    names = {f"status-page-{scheme}.png" for scheme in ("light", "dark")}
    assert {path.name for path in tmp_path.iterdir()} == names
    for folder, name in itertools.product((tmp_path, statuspage.DOCS), names):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert (folder / name).stat().st_size < 150_000
