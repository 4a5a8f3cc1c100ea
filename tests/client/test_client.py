# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program asks a daemon by one class, over either socket: what is told, and what is no answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from kdumpfence.client import (
    CannotTell,
    Client,
    ClientError,
    Events,
    Missed,
    Refused,
    Unexpected,
    Unreachable,
)
from kdumpfence.client.connection import as_request, parsed_place
from kdumpfence.daemon.api import LIMITS as HTTP_LIMITS
from kdumpfence.daemon.api import Api, refused
from kdumpfence.daemon.control import Answers, Sources
from kdumpfence.daemon.http import Pages
from kdumpfence.daemon.questions import Questions
from kdumpfence.daemon.status_server import Server
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import Dump, Event, Kind
from tests.conftest import unused_port
from tests.daemon.test_status_socket import status


def event(node: str, kind: Kind = "began", since: float = 1.8e9) -> Event:
    return Event(kind, node, since + 5, since, since + 5, 2, ("192.0.2.1",), 5.0, (), 4711)


class Daemon:
    """What a daemon tells, on both sockets."""

    def __init__(self, path: str, port: int) -> None:
        self.path, self.port = path, port
        self.doubt = ""
        self.begin()

    def begin(self) -> None:
        """Another life."""
        self.told = Told()
        sources = Sources(
            lambda nodes: [None for _ in nodes],
            lambda node: node.startswith("node"),
            lambda dump: "signature" if dump.messages > 1 else "history",
            doubt=lambda: self.doubt,
            trouble=lambda: self.doubt,
        )
        questions = Questions(Answers(self.told, sources))
        questions.publish(status())
        self.server = Server(self.path, questions=questions)
        handler = Api(questions, local=True).handle
        self.pages = Pages(
            "127.0.0.1", self.port, handler, lambda *_: None, "http", refused, HTTP_LIMITS
        )
        assert not self.pages.trouble
        self.pages.start()

    def tell(self, *events: Event) -> None:
        for one in events:
            self.told.tell(one)
        self.server.news()
        self.pages.news()

    def end(self) -> None:
        self.server.close()
        self.pages.close()


@pytest.fixture
def told(path: str) -> Iterator[Daemon]:
    made = Daemon(path, unused_port())
    yield made
    made.end()


@pytest.fixture(params=["unix", "http"])
def client(request: pytest.FixtureRequest, told: Daemon) -> Iterator[Client]:
    where = f"unix:{told.path}" if request.param == "unix" else f"http://127.0.0.1:{told.port}"
    with Client(where, timeout=30) as opened:
        yield opened


def test_a_node_is_dumping_or_not_or_nobody_can_tell(client: Client, told: Daemon) -> None:
    told.tell(event("node/1 \u00f6%"), event("node2"), event("node2", "failed"))
    dump = client.dump("node/1 \u00f6%")
    assert dump is not None
    assert dump._replace(heard=0.0) == Dump("node/1 \u00f6%", *event("x")[3:])
    assert dump.age > 0
    found = client.node("node/1 \u00f6%")
    assert (found.known, found.proof, found.ended, found.doubt) == (True, "signature", None, "")
    assert client.dump("node2") is None
    over = client.node("node2").ended
    assert over is not None
    assert (over.kind, over.messages) == ("failed", 2)
    with pytest.raises(CannotTell, match=r"node 'nobody': .* does not listen for it"):
        client.dump("nobody")
    told.doubt = "messages may be missed"
    with pytest.raises(CannotTell, match=r"node 'node2': .* messages may be missed"):
        client.dump("node2")
    assert client.dump("node/1 \u00f6%") is not None  # what was heard was heard
    assert client.trouble() == "messages may be missed"
    told.doubt = ""
    assert client.trouble() == ""


def test_thousands_of_nodes_are_asked_for_at_once(client: Client, told: Daemon) -> None:
    names = [f"node{number:05}.a-rather-long-domain.example.org" for number in range(12_000)]
    told.tell(*(event(name) for name in names[::2]))
    found = client.nodes([*names, names[0]])
    assert list(found) == names
    assert [one.dump is not None for one in found.values()] == [True, False] * 6000
    assert client.nodes([]) == {}


def test_lists_come_whole(client: Client, told: Daemon) -> None:
    told.tell(*(event(f"node{number}") for number in range(2500)))
    told.tell(*(event(f"node{number}", "finished") for number in range(1100)))
    assert [dump.node for dump in client.dumps()] == [f"node{n}" for n in range(1100, 2500)]
    assert [one.node for one in client.ended()] == [f"node{n}" for n in range(1099, -1, -1)]
    assert client.status().dumping == 5


def test_events_come_as_they_happen_and_go_on_at_a_place(client: Client, told: Daemon) -> None:
    told.tell(event("node1"))
    with client.events() as events:
        assert events.next(0.0) is None
        later = threading.Timer(0.1, told.tell, [event("node2"), event("node2", "silent")])
        later.start()
        assert next(events) == event("node2")
        place = events.place
        assert events.next() == event("node2", "silent")
        later.join()
    with client.events(place) as again:
        assert next(again) == event("node2", "silent")
    for wrong in ("", "12", "x-", "-1", "x-1.5"):
        with pytest.raises(ValueError, match="not one that an iterator had"):
            client.events(wrong)


def test_who_follows_is_told_of_a_restart_and_of_what_was_too_much(
    client: Client, told: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client.events() as events:
        told.tell(event("node1"))
        assert next(events) == event("node1")
        told.end()
        told.begin()
        told.tell(event("node1", "dumping"), event("node3"))
        missed = next(events)
        assert isinstance(missed, Missed)
        assert (missed.number, missed.restarted) == (0, True)
        assert [next(events), next(events)] == [event("node1", "dumping"), event("node3")]
        told.told._most = len(told.told._events)  # as many as there are already
        told.tell(*(event(f"new{number}") for number in range(5)))
        missed = next(events)
        assert isinstance(missed, Missed)
        assert (missed.number, missed.restarted) == (3, False)
        assert next(events) == event("new3")


def test_who_follows_is_told_that_nobody_is_there_and_can_go_on(
    client: Client, told: Daemon
) -> None:
    with client.events(patience=0.0) as events:
        told.end()
        with pytest.raises(Unreachable):
            next(events)
        told.begin()
        assert isinstance(next(events), Missed)


def test_a_connection_that_was_closed_meanwhile_is_opened_again(
    client: Client, told: Daemon
) -> None:
    assert client.dump("node1") is None
    told.end()
    with pytest.raises(Unreachable, match=r"no daemon at .*: is kdumpfenced running"):
        client.dump("node1")
    told.begin()
    assert client.dump("node1") is None
    told.end()
    told.begin()
    assert client.dump("node1") is None  # without an error in between


def test_many_threads_may_ask(client: Client, told: Daemon) -> None:
    names = [f"node{number}" for number in range(40)]
    told.tell(*(event(name) for name in names))
    wrong: list[str] = []

    def ask(name: str) -> None:
        for _ in range(5):
            dump = client.dump(name)
            if dump is None or dump.node != name:
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_question_that_is_refused_costs_nothing_but_itself(client: Client) -> None:
    with pytest.raises(Refused, match="the daemon says: "):
        client.ask({"ask": "node", "node": ""})
    assert client.dump("node1") is None


@pytest.mark.parametrize(
    "where",
    [
        "", "unix:", "ftp://x", "http://", "http://x:99999", "http://x?y", "http://x#y",
        "http://u:p@x", "http://\u00f6", "unix:a\0b", "host:9742", "http://a..b:1",
        "http://x/y z", "http://x/y\nz",
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(where: str) -> None:
    with pytest.raises(ValueError, match=r"path|place|only a host"):
        Client(where)


def test_places_are_understood() -> None:
    assert parsed_place("/run/x").path == parsed_place("unix:/run/x").path == "/run/x"
    place = parsed_place("http://[2001:db8::1]:9742/behind/")
    assert (place.host, place.port, place.prefix) == ("2001:db8::1", 9742, "/behind")
    assert place.authority == "[2001:db8::1]:9742"
    assert parsed_place("https://x").authority == "x"
    assert as_request({"ask": "node", "node": "a/b c"})[1] == "/v1/nodes/a%2Fb%20c"
    asked = as_request({"ask": "events", "after": None, "life": "x&y"})
    assert asked[1] == "/v1/events?life=x%26y"


OK = b'{"when": 1.0, "doubt": "", "node": "node1", "known": true, "dumping": false, '
OK += b'"dump": null, "ended": null}'
DUMP = b'{"node": "node1", "since": 1, "last": 1, "messages": 1, "addresses": [], "took": 0, '
DUMP += b'"port": 0, "age": %s, "proof": "address"}'
DUMPING = OK.replace(b"false", b"true").replace(b"null", DUMP, 1)


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (JSON + length(OK), None),
        (JSON + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + OK[:5]
         + b"\r\n%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(OK[5:]), OK[5:]), None),
        (b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + OK, None),
        (b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\n" + length(b"<html>"), Unreachable),
        (JSON.replace(b"200", b"503") + length(b'{"error": "try again"}'), Unreachable),
        (JSON.replace(b"200", b"400") + length(b'{"error": "nonsense"}'), Refused),
        (JSON.replace(b"200", b"301") + length(OK), Unexpected),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + length(b"hello"), Unexpected),
        (b"SSH-2.0-x\r\n\r\n", Unexpected), (b"", Unreachable), (JSON, Unreachable),
        (JSON + length(OK)[:-3], Unreachable), (JSON + length(b"{}"), Unexpected),
        (JSON + length(OK.replace(b"true", b"1")), Unexpected),
        (JSON + length(OK.replace(b"null", b"[]")), Unexpected),
        (JSON + b"Content-Length: 99999999999\r\n\r\n", Unexpected),
        (JSON + b"Content-Length: x\r\n\r\n", Unexpected),
        (JSON + b"Content-Length: \xb2\r\n\r\n{}", Unexpected),
        (JSON.replace(b"200", b"2" * 5000) + length(OK), Unexpected),
        (JSON.replace(b"200", b"\xb2\xb2\xb2") + length(OK), Unexpected),
        (JSON + length(OK.replace(b"node1", b"node2")), Unexpected),
        (JSON + length(OK.replace(b"false", b"true")), Unexpected),
        (JSON + length(DUMPING % b"NaN"), Unexpected),
        (JSON + length((DUMPING % b"0").replace(b"ing\": true", b"ing\": false")), Unexpected),
        (JSON + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", Unexpected),
        (JSON + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n", Unexpected),
        (b"x" * 100_000, Unexpected),
    ],
)  # fmt: skip
def test_whatever_answers_over_http_it_is_an_answer_or_one_of_our_errors(
    answer: bytes, error: type[ClientError] | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def respond() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as other:
                other.recv(65536)
                other.sendall(answer)

        responder = threading.Thread(target=respond)
        responder.start()
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            if error is None:
                assert client.dump("node1") is None
            else:
                with pytest.raises(error):
                    client.dump("node1")
        responder.join()


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A place where one connection's questions get these answers, and everybody else none."""
    end = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def respond() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as other:
                for answer in answers:
                    other.recv(65536)
                    other.sendall(answer)
                end.wait(30)

        responder = threading.Thread(target=respond)
        responder.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            end.set()
            responder.join()


def test_what_came_behind_an_answer_is_not_that_to_the_next_question() -> None:
    well = JSON + length(b'{"healthy": true, "trouble": ""}')
    with answering(JSON + length(OK) + well) as where, Client(where, timeout=5) as client:
        assert client.dump("node1") is None
        with pytest.raises(Unexpected):
            client.trouble()


def test_one_that_hangs_after_an_answer_costs_the_time_once() -> None:
    with answering(JSON + length(OK)) as where, Client(where, timeout=1) as client:
        assert client.dump("node1") is None
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="no answer within 1 seconds"):
            client.dump("node1")
        assert time.monotonic() - begin < 1.9


def test_pages_that_never_end_are_no_answer() -> None:
    page = JSON + length(b'{"dumps": [], "ended": [], "next": 7}')
    for ask in (Client.dumps, Client.ended):
        with answering(page, page, page) as where, Client(where, timeout=5) as client:
            pages = ask(client)
            with pytest.raises(Unexpected):
                list(pages)


def test_each_address_of_a_host_has_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # One whose queue is full says nothing, as one behind a firewall does.
    with contextlib.ExitStack() as stack:
        mute = stack.enter_context(socket.create_server(("127.0.0.2", 0), backlog=0))
        where = mute.getsockname()
        waiting = stack.enter_context(socket.create_connection(where))
        full = stack.enter_context(socket.socket())
        full.setblocking(False)
        full.connect_ex(where)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", where[1])))
        stream = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        found = [(*stream, where), (*stream, listener.getsockname())]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        begin = time.monotonic()
        with pytest.raises(Unreachable), Client("http://both.example:1", timeout=2) as client:
            client.trouble()  # nobody reads it
        assert time.monotonic() - begin < 3.5
        listener.settimeout(0)
        listener.accept()[0].close()
        assert waiting.fileno() >= 0


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan")])
def test_times_that_are_none_are_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="not seconds"):
        Client(timeout=timeout)
    with pytest.raises(ValueError, match="not seconds"):
        Client().follow(0, wait=timeout or -1)


def test_events_are_for_programs_too_that_have_a_loop_of_their_own(
    client: Client, told: Daemon
) -> None:
    begun = client.follow()
    told.tell(event("node1"))
    found = client.follow(begun.last, begun.life, wait=30)
    assert (found.events, found.last) == ([event("node1")._replace(sessions=())], 1)
    assert client.follow(found.last, found.life, wait=0.05).events == []
    with client.events() as events:
        assert isinstance(events, Events)
