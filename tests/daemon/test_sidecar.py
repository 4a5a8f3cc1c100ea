# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real daemon beside a fencing service: HTTP on both sockets, events as they happen, restarts."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kdumpfence import keys
from kdumpfence.client import Client, Missed, Unreachable
from kdumpfence.daemon import bounded_server, event_stream
from kdumpfence.daemon.control import SLICE, Answers, Sources
from kdumpfence.daemon.json_text import dump_text, end_text, event_text
from kdumpfence.daemon.main import SWITCH
from kdumpfence.daemon.questions import Questions
from kdumpfence.daemon.status import Status, dump_object
from kdumpfence.daemon.status_server import LIMITS, Server
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import MOST_ADDRESSES, Dump, Event, Kind
from tests.daemon.running import NODE, Kdumpfenced, patched, until


class Unix(http.client.HTTPConnection):
    """HTTP over a control socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def get(
    connection: http.client.HTTPConnection, path: str, **headers: str
) -> tuple[int, dict[str, Any]]:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "application/json"
    return answer.status, json.loads(answer.read())


@pytest.fixture
def listening(daemon: Kdumpfenced) -> Kdumpfenced:
    """One that listens on TCP, too."""
    daemon.configure(http=True)
    daemon.start()
    return daemon


def test_both_sockets_answer_in_http_what_lines_of_json_answer(listening: Kdumpfenced) -> None:
    listening.hears(NODE)
    tcp = http.client.HTTPConnection("127.0.0.1", listening.http_port, timeout=60)
    with Client(str(listening.control)) as client:
        for connection in (Unix(listening.control), tcp):
            for path, question in (
                (f"/v1/nodes/{NODE}", {"ask": "node", "node": NODE}),
                (f"/v1/nodes?node={NODE}&node=x", {"ask": "nodes", "nodes": [NODE, "x"]}),
                ("/v1/dumps?after=0&most=5", {"ask": "dumps", "after": 0, "most": 5}),
                ("/v1/ended", {"ask": "ended"}),
                ("/v1/events?after=0", {"ask": "events", "after": 0}),
                ("/v1/health", {"ask": "health"}),
            ):
                status, answer = get(connection, path)
                assert (status, _lasting(answer)) == (200, _lasting(client.ask(question)))
            status, answer = get(connection, "/v1/status")
            assert (status, answer["dumping"]) == (200, 1)
            connection.close()


def _lasting(answer: Any) -> Any:
    """What does not change from one moment to the next."""
    if isinstance(answer, dict):
        return {name: _lasting(one) for name, one in answer.items() if name not in ("when", "age")}
    return [_lasting(one) for one in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/", {}, b"", 404), ("GET", "/v2/status", {}, b"", 404),
        ("GET", "/v1/nodes/", {}, b"", 404), ("GET", "/v1/nodes", {}, b"", 400),
        ("GET", "/v1/nodes/a?x=y", {}, b"", 400), ("GET", "/v1/nodes/%ff", {}, b"", 400),
        ("GET", "/v1/dumps?after=1&after=2", {}, b"", 400),
        ("GET", "/v1/dumps?after=-1", {}, b"", 400), ("GET", "/v1/events?wait=nan", {}, b"", 400),
        ("GET", "/v1/events", {"Last-Event-ID": "x"}, b"", 400),
        ("DELETE", "/v1/nodes/a", {}, b"", 405), ("POST", "/v1/status", {}, b"", 405),
        ("OPTIONS", "/v1/nodes", {}, b"", 405), ("GET", "/v1/status", {"Host": "x.org"}, b"", 421),
        ("GET", "/v1/status", {"Host": "[::1]:80"}, b"", 200),
        ("GET", "/v1/status", {"Host": "localhost"}, b"", 200),
        ("POST", "/v1/nodes", {"Content-Type": "text/plain"}, b'{"nodes": ["a"]}', 415),
        ("POST", "/v1/nodes", {"Content-Type": "application/json"}, b'{"nodes": ["a"]}', 200),
        ("POST", "/v1/nodes", {"Content-Type": "application/json"}, b'{"nodes": "a"}', 400),
        ("POST", "/v1/nodes", {"Content-Type": "application/json"}, b'{"nodes": [1]}', 400),
        ("POST", "/v1/nodes", {"Content-Type": "application/json"}, b'{"nodes": ["a", "a"]}', 400),
        ("POST", "/v1/nodes", {"Content-Type": "application/json"}, b"[" * 10_000, 400),
        ("POST", "/v1/nodes", {"Content-Length": "99999999"}, b"", 413),
    ],
)  # fmt: skip
@pytest.mark.parametrize("counting", ["user"])
def test_what_cannot_be_answered_says_why(
    listening: Kdumpfenced,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", listening.http_port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == status
        assert (list(found) == ["error"]) == (status != 200)
        for name, value in (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")):
            assert answer.getheader(name) == value
        assert answer.getheader("Access-Control-Allow-Origin") is None
        assert (answer.getheader("Allow") is not None) == (status == 405)


def read_events(file: Any, number: int) -> list[tuple[str, str, dict[str, Any]]]:
    """The next events of a stream: id, type, data."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    while len(found) < number:
        fields = {}
        while (line := file.readline().decode().rstrip("\n")) != "":
            name, _, value = line.partition(": ")
            fields[name] = value
        if "data" in fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def test_a_stream_of_events_goes_on_where_it_broke_off_also_after_a_restart(
    listening: Kdumpfenced,
) -> None:
    def stream(**headers: str) -> Any:
        connection = Unix(listening.control)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Accept"] = "text/event-stream"
        connection.request("GET", "/v1/events", headers=named)
        answer = connection.getresponse()
        assert answer.getheader("Content-Type") == "text/event-stream"
        return answer

    first = stream()
    ((_, kind, start),) = read_events(first, 1)
    assert (kind, start["restarted"], start["after"]) == ("start", False, 0)
    listening.hears("127.3.0.1", "127.3.0.2")
    began = read_events(first, 2)
    assert [(kind, data["kind"]) for _, kind, data in began] == [("began", "began")] * 2
    assert [id_ for id_, _, _ in began] == [f"{start['life']}-1", f"{start['life']}-2"]
    again = stream(Last_Event_ID=began[0][0])
    assert [data for _, _, data in read_events(again, 2)[1:]] == [began[1][2]]
    listening.end()
    assert first.read() == b""
    listening.start()
    restarted = read_events(stream(Last_Event_ID=began[1][0]), 3)
    assert restarted[0][2]["restarted"] is True
    assert {(kind, data["node"]) for _, kind, data in restarted[1:]} == {
        ("dumping", "127.3.0.1"), ("dumping", "127.3.0.2"),
    }  # fmt: skip
    with Client(str(listening.control)) as client:
        assert client.node("127.3.0.1").proof == "history"
        with client.events(began[1][0]) as events:
            missed = next(events)
            assert isinstance(missed, Missed)
            assert missed.restarted
            assert [next(events).kind, next(events).kind] == ["dumping", "dumping"]


def test_a_quiet_stream_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT", 0.0)
    stream = event_stream.EventStream(Told(), 0, False)
    assert stream.next() != b":\n\n"
    assert stream.next() == b":\n\n"


@pytest.mark.parametrize("counting", ["user"])
def test_a_node_that_was_heard_is_told_of_though_the_disk_takes_its_time(
    daemon: Kdumpfenced, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    daemon.start(
        program=patched(
            "from kdumpfence.daemon.history import History\nwrite = History.record\n"
            "def record(self, *given):\n"
            f"    while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
            "    write(self, *given)\nHistory.record = record\n"
        )
    )
    with Client(str(daemon.control)) as client:
        for number in (1, 2):  # the second one while the first one is being written
            daemon.hear(f"127.3.0.{number}")
            until(lambda node=f"127.3.0.{number}": client.dump(node))  # type: ignore[misc]
            answer = client.ask({"ask": "node", "node": f"127.3.0.{number}"})
            assert answer["dump"]["recorded"] is False
        assert list(client.dumps()) == [], "whatever is listed is in the history"
        gate.touch()
        until(lambda: client.ask({"ask": "node", "node": "127.3.0.2"})["dump"]["recorded"])
        assert len(list(client.dumps())) == 2
    assert daemon.end() == 0


@pytest.mark.parametrize("counting", ["user"])
def test_a_port_that_somebody_has_is_tried_again(daemon: Kdumpfenced) -> None:
    daemon.configure(http=True)
    with socket.create_server(("127.0.0.1", daemon.http_port)):
        daemon.start(program=patched("http.RETRY = 0.2"))
        daemon.says(f"http: cannot listen on 127.0.0.1 port {daemon.http_port}: Address already")
        assert any(line.startswith("http: cannot") for line in daemon.status().troubles)
    with Client(f"http://127.0.0.1:{daemon.http_port}", timeout=30) as client:
        until(lambda: _answers(client))


def _answers(client: Client) -> bool:
    with contextlib.suppress(Unreachable):
        return client.trouble() == ""
    return False


def test_a_proof_says_how_a_node_is_known(daemon: Kdumpfenced) -> None:
    daemon.configure(top='networks = ["127.3.0.0/16"]', nodes=f'node1 = ["{NODE}"]')
    daemon.start()
    daemon.hear(NODE, "127.3.0.8")
    with Client(str(daemon.control)) as client:
        until(lambda: len(list(client.dumps())) == 2)
        assert client.node("node1").proof == "address"
        assert client.node("127.3.0.8").proof == "network"


@pytest.mark.parametrize("node", ["node1", 'n\u00f6 "\\\n\x1b', "\udcff"])
@pytest.mark.parametrize(
    ("last", "took", "at"),
    [
        pytest.param(1.8e9, 0.12345, 1.8e9 + 9, id="with a clock that was set back"),
        pytest.param(1.8e9 + 0.1, 0.0, 1.8e9 + 0.1, id="just begun"),
        pytest.param(1.8e9 + 0.1, 2.5, 1.8e9 + 0.1, id="set back to its beginning"),
        pytest.param(1.8e9 + 7, 0.0, 1.8e9 + 0.1, id="of which nobody measured how long it took"),
    ],
)
def test_json_by_hand_is_what_json_makes_of_it(
    node: str, last: float, took: float, at: float
) -> None:
    for addresses in (("192.0.2.1", "fe80::1%eth0"), (), (node,) * (MOST_ADDRESSES + 1)):
        dump = Dump(node, 1.8e9 + 0.1, last, 7, addresses, took, (), 7410)
        told = Event("finished", node, at, *dump[1:])
        found = json.loads(dump_text(dump, "address", True))
        assert found.pop("age") >= 0
        assert found == {**dump_object(dump), "proof": "address", "recorded": True}
        end = {"end": "finished", "ended": told.when}
        assert json.loads(end_text(told)) == {**dump_object(told), **end}
        assert json.loads(event_text(3, told)) == {
            "number": 3, "kind": "finished", "at": told.when, **dump_object(told)
        }  # fmt: skip


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("counting", ["user"])
def test_ipv4_and_ipv6_are_listened_on(daemon: Kdumpfenced, address: str) -> None:
    daemon.configure(http=True)
    text = daemon.settings.read_text()
    daemon.settings.write_text(text.replace("[http]\n", f'[http]\naddress = "{address}"\n'))
    daemon.start()
    host = f"[{address}]" if ":" in address else address
    with Client(f"http://{host}:{daemon.http_port}", timeout=30) as client:
        assert client.trouble() == ""


def test_who_follows_and_does_not_read_is_dropped_and_holds_up_nobody(path: str) -> None:
    told = Told()
    questions = Questions(Answers(told, Sources(lambda nodes: [None for _ in nodes], bool)))
    with (
        Server(path, limits=LIMITS._replace(unread=0.5), questions=questions) as server,
        socket.socket(socket.AF_UNIX) as greedy,
        Client(path, timeout=60) as client,
    ):
        greedy.connect(path)
        greedy.sendall(
            b"GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
        )
        for number in range(20_000):  # more than a socket holds
            told.tell(Event("began", f"node{number}", 1.0, 1.0, 1.0, 1, ("192.0.2.1",)))
        server.news()
        assert client.dump("node7") is not None
        poller = select.poll()
        poller.register(greedy, select.POLLRDHUP)
        assert poller.poll(60_000)
        assert client.dump("node7") is not None


@pytest.fixture
def one_piece_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast this machine is."""
    monkeypatch.setattr(bounded_server, "_LONG_TURN", 0.0)


@pytest.mark.usefixtures("one_piece_a_turn")
def test_others_have_their_turn_while_somebody_asks_for_very_many(path: str) -> None:
    asked: list[str] = []

    def listens_for(node: str) -> bool:
        asked.append(node)
        if node == "node300":
            # Another client asks now: it is to be answered before the last one of these.
            other.sendall(b'{"ask": "node", "node": "other"}\n')
        return True

    sources = Sources(lambda nodes: [None for _ in nodes], listens_for)
    with (
        Server(path, questions=Questions(Answers(Told(), sources))),
        socket.socket(socket.AF_UNIX) as other,
        Client(path, timeout=60) as client,
    ):
        other.settimeout(60)
        other.connect(path)
        other.sendall(b'{"ask": "node", "node": "first"}\n')
        assert other.makefile("rb").readline()
        names = [f"node{number}" for number in range(5000)]
        assert list(client.nodes(names)) == names
        assert other.makefile("rb").readline()
    assert [node for node in asked if node.startswith("node")] == names
    assert asked.index("other") < asked.index("node1000")


def connected(path: str, crowd: contextlib.ExitStack) -> socket.socket:
    one = crowd.enter_context(socket.socket(socket.AF_UNIX))
    one.settimeout(60)
    one.connect(path)
    return one


@pytest.mark.usefixtures("one_piece_a_turn")
def test_who_comes_behind_many_long_questions_is_answered_before_any_of_them(path: str) -> None:
    started, begin = threading.Event(), threading.Event()
    many: list[socket.socket] = []
    looked_for: list[str] = []
    #: When the last one is answered: nodes that were looked for, and others that have an answer.
    before: list[tuple[int, int]] = []

    def listens_for(node: str) -> bool:
        if node == "first":
            started.set()
            assert begin.wait(60), "until all have asked"
        if node == "last":
            before.append((len(looked_for), len(select.select(many, [], [], 0)[0])))
        looked_for.append(node)
        return True

    sources = Sources(lambda nodes: [None for _ in nodes], listens_for)
    names = [f"node{number}" for number in range(2000)]
    long = json.dumps({"ask": "nodes", "nodes": names}).encode() + b"\n"
    with (
        Server(path, questions=Questions(Answers(Told(), sources))),
        contextlib.ExitStack() as crowd,
    ):
        first = connected(path, crowd)
        first.sendall(b'{"ask": "node", "node": "first"}\n')
        assert started.wait(60)
        for _ in range(40):
            many.append(connected(path, crowd))
            many[-1].sendall(long)
        last = connected(path, crowd)
        last.sendall(b'{"ask": "node", "node": "last"}\n')
        begin.set()
        assert last.recv(1 << 16)
        ((looked, answered),) = before
        assert answered == 0
        assert looked <= 10 * SLICE, "a slice in each of a few turns, not one for each client"
        for one in many:
            assert len(json.loads(one.makefile("rb").readline())["nodes"]) == len(names)


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "status"},
        {"ask": "dumps"},
        {"ask": "events", "after": 0},
        {"ask": "ended"},
        {"ask": "nodes", "nodes": [f"node{number}" for number in range(1000)]},
    ],
    ids=lambda question: question["ask"],
)
def test_a_long_answer_is_made_when_others_have_been_served(
    path: str, question: dict[str, Any]
) -> None:
    told = Told()
    for number in range(2000):
        kind: Kind = "began" if number < 1000 else "finished"
        told.tell(Event(kind, f"node{number}", 1.0, 1.0, 1.0, 1, ("192.0.2.1",)))
    sources = Sources(lambda nodes: [None for _ in nodes], lambda _: True)
    questions = Questions(Answers(told, sources))
    questions.publish(Status("1", 1.0, 1.0, 0, (), 0, (), {}))
    found = questions.ask(question)
    assert not isinstance(found, str)
    while (text := found.look()) is None:
        assert found.due == 0.0
    with Server(path, questions=questions), Client(path, timeout=60) as client:
        assert _lasting(client.ask(question)) == _lasting(json.loads(text))


def test_a_long_question_that_comes_in_pieces_and_one_behind_it_are_answered(path: str) -> None:
    sources = Sources(lambda nodes: [None for _ in nodes], lambda _: True)
    names = [f"{number:060}" for number in range(5000)]
    few = [f"{number}" for number in range(500)]
    question = json.dumps({"ask": "nodes", "nodes": names}).encode() + b"\n"
    with (
        Server(path, questions=Questions(Answers(Told(), sources))),
        contextlib.ExitStack() as crowd,
    ):
        one = connected(path, crowd)
        for begin in range(0, len(question), 30_000):
            one.sendall(question[begin : begin + 30_000])
        # As much as a socket holds while nobody reads the answer.
        one.sendall(json.dumps({"ask": "nodes", "nodes": few}).encode() + b'\n{"ask": "health"}\n')
        one.shutdown(socket.SHUT_WR)
        answers = [json.loads(line) for line in one.makefile("rb")]
        assert [len(answer.get("nodes", ())) for answer in answers] == [5000, 500, 0]
        assert answers[2]["healthy"] is True
        too_long = connected(path, crowd)
        with contextlib.suppress(ConnectionError):
            too_long.sendall(b"x" * (LIMITS.question * 2))
        with contextlib.suppress(ConnectionError):
            assert b"a question has at most" in too_long.recv(1 << 16)


def test_clients_together_leave_no_more_unread_than_that(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_server, "_LARGE", 1000)
    monkeypatch.setattr(bounded_server, "_MOST_UNREAD", 3_000_000)
    sources = Sources(lambda nodes: [None for _ in nodes], lambda _: True)
    names = json.dumps({"ask": "nodes", "nodes": [f"{number:0100}" for number in range(4000)]})
    with (
        Server(path, questions=Questions(Answers(Told(), sources))),
        contextlib.ExitStack() as crowd,
        Client(path, timeout=60) as client,
    ):
        poller = select.poll()
        for _ in range(12):  # each leaves some 700 kB unread
            one = crowd.enter_context(socket.socket(socket.AF_UNIX))
            one.settimeout(60)
            one.connect(path)
            one.sendall(names.encode() + b"\n")
            poller.register(one, select.POLLRDHUP)
        assert poller.poll(60_000)
        assert client.dump("node1") is None


def test_who_waits_keeps_its_place_and_is_answered_when_it_asks_no_more(path: str) -> None:
    told = Told()
    questions = Questions(Answers(told, Sources(lambda nodes: [None for _ in nodes], bool)))
    limits = LIMITS._replace(quiet=0.3)  # less than it waits
    with (
        Server(path, limits=limits, questions=questions) as server,
        socket.socket(socket.AF_UNIX) as waiting,
    ):
        waiting.settimeout(60)
        waiting.connect(path)
        waiting.sendall(b'{"ask": "events", "after": 0, "wait": 60}\n{"ask": "health"}\n')
        waiting.shutdown(socket.SHUT_WR)
        time.sleep(0.6)
        told.tell(Event("began", "node1", 1.0, 1.0, 1.0, 1, ("192.0.2.1",)))
        server.news()
        answers = [json.loads(line) for line in waiting.makefile("rb")]
    assert [one["node"] for one in answers[0]["events"]] == ["node1"]
    assert answers[1]["healthy"] is True


def test_a_signed_dump_says_so_and_a_restored_one_does_not(
    daemon: Kdumpfenced, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    cluster = bytes(range(32))
    key.touch(0o600)
    key.write_text(keys.Keys((keys.key_id(cluster), cluster), None).text())
    daemon.configure(top='networks = ["127.3.0.0/16"]')
    daemon.start()
    daemon.hears(NODE)
    daemon.end()
    daemon.configure(top=f'auth = "sha256"\nkey_file = "{key}"\nnetworks = ["127.3.0.0/16"]')
    daemon.start()
    with Client(str(daemon.control)) as client:
        assert client.node(NODE).proof == "history", "nobody signed that"
        daemon.hear(NODE)  # nor this
        until(lambda: daemon.status().counts["unsigned"] == 1)
        assert client.node(NODE).proof == "history"


#: Has the log say how long a thread may keep the others waiting.
TURNS = """
import sys
run = loop.Daemon.run
def told(self):
    self.journal.say("info", f"turns of {sys.getswitchinterval():.6f} s")
    run(self)
loop.Daemon.run = told
"""


@pytest.mark.parametrize("counting", ["user"])
def test_whoever_answers_takes_short_turns_with_the_main_loop(daemon: Kdumpfenced) -> None:
    daemon.start(program=patched(TURNS))
    assert daemon.says("turns of").endswith(f"turns of {SWITCH:.6f} s")
