# SPDX-License-Identifier: LGPL-2.1-or-later
"""The code on docs/listener.md runs, and does what the page says; see also test_examples.py.

What may not be in this file: what the page says in words.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

import kdumpfence
from kdumpfence.keys import key_id
from tests.listener.conftest import NETWORK, PATIENCE, A, B, kinds, say, wait_for
from tests.listener.examples import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "listener.md").read_text(), re.DOTALL)


def block(words: str) -> str:
    """The one that has these words."""
    (found,) = (one for one in BLOCKS if words in one)
    return str(found)


def test_every_block_is_run_by_a_test() -> None:
    here = {block(words) for words in ("import Listener\n\nwith Listener({", 'auth="sha256"')}
    here |= {block(words) for words in ("known = {}", "def name_of(")}
    # Those are run by test_examples.py: the main part of an example, and the recipe.
    elsewhere = {block("signal.signal(signal.SIGTERM"), block("def restore(")}
    assert set(BLOCKS) == here | elsewhere


class Page:
    """Runs a block whose Listener has nodes on loopback, in a thread, until the test closes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, key_file: str = "") -> None:
        page = self
        self.made = threading.Event()
        self.printed: list[str] = []
        self.asked: dict[str, Any] = {}
        self.listener: kdumpfence.Listener

        class OnLoopback(kdumpfence.Listener):
            def __init__(self, nodes: Iterable[str], **options: Any) -> None:
                page.asked = {"nodes": nodes, **options}
                if key_file:
                    options["key_file"] = key_file
                super().__init__(dict(zip(nodes, ([A], [B]))), port=0, **options)
                page.listener = self
                page.made.set()

        monkeypatch.setattr(kdumpfence, "Listener", OnLoopback)

    def run(self, code: str, while_it_runs: Callable[[], None], **names: Any) -> None:
        """Run it, do that meanwhile, and close its Listener."""
        names["print"] = lambda *words: self.printed.append(" ".join(words))
        names["__name__"] = "page"
        failed: list[BaseException] = []

        def run() -> None:
            try:
                exec(compile(code, "docs/listener.md", "exec"), names)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            wait_for(lambda: self.made.is_set() or failed)
            assert not failed
            while_it_runs()
        finally:
            if self.made.is_set():
                self.listener.close()
            thread.join(PATIENCE)
        assert failed == []


def test_the_shortest_use(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch)

    def crash() -> None:
        say(B, page.listener.port)
        wait_for(lambda: page.printed == ["began node2"])

    page.run(block("import Listener\n\nwith Listener({"), crash)
    assert list(page.asked["nodes"]) == ["node1", "node2"]


def test_signed_messages(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    key = tmp_path / "key"
    cluster_key = bytes(range(32))
    key.write_text(f"signs {key_id(cluster_key):08x} {cluster_key.hex()}\n")
    key.chmod(0o600)
    page = Page(monkeypatch, str(key))

    def not_signed() -> None:
        say(A, page.listener.port)
        wait_for(lambda: page.listener.counts["unsigned"] == 1)

    page.run(block('auth="sha256"'), not_signed)
    assert page.printed == []
    assert page.asked["key_file"] == "/etc/kdumpfence/key"


class Database:
    """Knows the host at the second try."""

    def __init__(self) -> None:
        self.tries = 0
        self.told: list[tuple[str, float]] = []

    def host_of(self, addresses: tuple[str, ...]) -> str | None:
        assert addresses == (A,)
        self.tries += 1
        return "compute1" if self.tries > 1 else None

    def is_dumping(self, host: str, since: float) -> None:
        self.told.append((host, since))


def test_a_host_that_is_looked_up_when_it_speaks() -> None:
    database = Database()
    with kdumpfence.Listener(networks=[NETWORK], port=0, repeat_interval=0.0) as listener:
        heard: list[kdumpfence.AnyEvent] = []

        def events() -> Iterable[kdumpfence.AnyEvent]:
            say(A, listener.port)
            for event in listener:
                heard.append(event)
                yield event
                if len(heard) == 3:
                    return
                say(A, listener.port)

        exec(block("known = {}"), {"listener": events(), "database": database})
    assert kinds(heard) == ["began", "dumping", "dumping"]
    assert isinstance(heard[0], kdumpfence.Event)
    assert database.told == [("compute1", heard[0].since)]
    assert database.tries == 2


@pytest.mark.parametrize(
    ("name", "leads_to", "believed"),
    [
        ("compute1.example", [A], True),
        ("compute1.example", [B], False),
        ("compute1.example", [], False),
        ("x" * 64, UnicodeError("label too long"), False),
        (socket.herror("unknown host"), [], False),
    ],
)
def test_reverse_dns(
    monkeypatch: pytest.MonkeyPatch, name: Any, leads_to: Any, believed: bool
) -> None:
    def answer(what: Any) -> Any:
        if isinstance(what, Exception):
            raise what
        return what

    monkeypatch.setattr(socket, "gethostbyaddr", lambda _: (answer(name), [], []))
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *_, **__: [(0, 0, 0, "", (one, 0)) for one in answer(leads_to)],
    )
    names: dict[str, Any] = {"socket": socket}
    exec(block("def name_of("), names)
    assert names["name_of"](A) == (name if believed else None)
