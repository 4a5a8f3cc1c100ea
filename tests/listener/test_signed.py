# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Listener that believes only what is signed, on loopback with each core."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kdumpfence import wire
from kdumpfence.keys import Keys, node_key
from kdumpfence.listener import listener
from kdumpfence.listener.dumps import Dump
from kdumpfence.wire import (
    OWN_MESSAGE,
    Packet,
    Transmitter,
    decode_packet,
    encode_packet,
    packet_fits,
)
from tests.conftest import load_core, udp
from tests.listener.conftest import (
    PATIENCE,
    A,
    B,
    MakeListener,
    TrialListener,
    about_nodes,
    kinds,
    wait_for,
)
from tests.support.programs import FORMS, environment, sender
from tests.support.signer import FOREIGN_KEY, KEY, OLD_KEY, Signer, key_text, slot

NETWORK = "127.7.4.0/24"

MakeSigner = Callable[..., Signer]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A cluster's key file with two keys."""
    path = tmp_path / "key"
    write(path, key_text(KEY, OLD_KEY))
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


@pytest.fixture
def listen_signed(listen: MakeListener, key_file: Path) -> MakeListener:
    """Makes Listeners with that key file."""

    def make(*arguments: Any, **options: Any) -> TrialListener:
        return listen(*arguments, auth="sha256", key_file=str(key_file), **options)

    return make


@pytest.fixture
def signer() -> Iterator[MakeSigner]:
    """Makes nodes that sign and answer, until the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(to: TrialListener, *arguments: Any, **options: Any) -> Signer:
            made = Signer(("127.0.0.1", to.port), *arguments, **options)
            return stack.enter_context(made)

        yield make


# ------------------------------------------------------------------------- who is believed


def test_a_node_is_known_by_the_name_that_it_signs_with(
    listen_signed: MakeListener, signer: MakeSigner
) -> None:
    listening = listen_signed({"node1": ["192.0.2.1"], "node2": []}, repeat_interval=0.0)
    node = signer(listening, host=A)
    node.send()
    began = listening.only_event()
    assert (began.kind, began.node, began.messages) == ("began", "node1", 1)
    assert began.addresses == (A,)
    node.send()
    assert listening.only_event().messages == 2
    assert listening.counted() == {"accepted": 2, "replayed": 1}
    now = listening.snapshot()
    assert (now.nodes, now.unresolved, now.shared, now.own) == (2, [], [], [])


def test_the_signature_counts_and_not_the_address(
    listen_signed: MakeListener, signer: MakeSigner
) -> None:
    listening = listen_signed({"node1": [A]}, [NETWORK])
    listening.say(A)
    listening.say(A, OWN_MESSAGE + bytes(144))
    listening.wait_for_count("unsigned", 2)
    signer(listening, host=A, key=FOREIGN_KEY).send()
    listening.wait_for_count("key", 1)
    signer(listening, "node2", host="127.7.5.1").send()
    listening.wait_for_count("stranger", 1)
    assert listening.events(0.1) == []
    assert listening.snapshot().dumps == []


def test_nodes_behind_one_address_are_told_apart(
    listen_signed: MakeListener, signer: MakeSigner
) -> None:
    listening = listen_signed({"node1": [A], "node2": [A]})
    assert listening.snapshot().shared == []
    for name in ("node1", "node2"):
        signer(listening, name, host=A).send()
        event = listening.only_event()
        assert (event.kind, event.node, event.addresses) == ("began", name, (A,))


def test_both_keys_are_believed(listen_signed: MakeListener, signer: MakeSigner) -> None:
    listening = listen_signed(["node1", "node2"])
    signer(listening, key=KEY).send()
    assert listening.only_event().node == "node1"
    signer(listening, "node2", key=OLD_KEY).send()
    assert listening.only_event().node == "node2"


def test_a_signed_end_ends_a_dump_at_once_and_no_other_does(
    listen_signed: MakeListener, signer: MakeSigner
) -> None:
    listening = listen_signed(["node1"], silence_timeout=60.0)
    node = signer(listening, host=A)
    node.send()
    began = listening.only_event()
    silent = Signer(("127.0.0.1", listening.port), host=A)  # one that answers no questions
    recorded = silent.send(state="finished")
    silent.send(state="finished", key_id=0, key=b"")
    silent.send(state="finished", key=b"x" * 32)
    listening.say(B, recorded)
    silent.sock.close()
    wait_for(lambda: sum(listening.counted().values()) == 6)
    assert listening.counted() == {"accepted": 1, "replayed": 3, "unsigned": 1, "forged": 1}
    assert listening.events(0.1) == []
    end = signer(listening, host=A, state="finished")
    end.send()
    ended = listening.only_event()
    assert ended[:2] == ("finished", "node1")
    assert (ended.since, ended.sessions) == (began.since, (node.session, end.session))
    assert listening.snapshot().dumps == []
    node.send()
    listening.wait_for_count("accepted", 3)
    assert listening.events(0.1) == []


def test_of_a_network_a_node_keeps_its_room_until_its_dump_is_forgotten(
    listen_signed: MakeListener, signer: MakeSigner
) -> None:
    listening = listen_signed(networks=[NETWORK], silence_timeout=0.5, max_admitted=1)
    signer(listening, "vm1", host=A, state="failed").send()
    assert kinds(listening.several(2)) == ["began", "failed"]
    other = signer(listening, "vm2", host=A)
    other.send()
    listening.wait_for_count("crowded", 1)

    def has_room() -> bool:
        other.send()
        return any(event.node == "vm2" for event in listening.events(0.1))

    wait_for(has_room)


def test_questions_are_answered_signed_with_the_keys_that_are_believed(
    listen_signed: MakeListener, key_file: Path
) -> None:
    listening = listen_signed(["node1"], answer_as="node9")

    def answer() -> bytes:
        with udp(A) as sock:
            asks = Packet("question", "node9", nonce=os.urandom(16))
            sock.sendto(encode_packet(asks), ("127.0.0.1", listening.port))
            sock.settimeout(PATIENCE)
            data = sock.recv(4096)
        assert decode_packet(data) == Packet(
            "alive", "node9", key_id=int.from_bytes(data[16:20], "big"), nonce=asks.nonce
        )
        return data

    assert packet_fits(answer(), node_key(KEY, "node9"))
    listening.wait_for_count("question", 1)
    write(key_file, key_text(FOREIGN_KEY, KEY))
    assert listening.reload_keys() == [slot(FOREIGN_KEY)[0], slot(KEY)[0]]
    assert packet_fits(answer(), node_key(FOREIGN_KEY, "node9"))
    broken(key_file, "node")
    with pytest.raises(ValueError, match="must be the cluster's"):
        listening.reload_keys()
    assert packet_fits(answer(), node_key(FOREIGN_KEY, "node9"))


def test_keys_may_come_from_elsewhere_than_a_file(
    listen: MakeListener, signer: MakeSigner, key_file: Path
) -> None:
    listening = listen(["node1"], auth="sha256", keys=Keys(slot(OLD_KEY)))
    signer(listening, key=OLD_KEY).send()
    assert listening.only_event()[:2] == ("began", "node1")
    assert listening.reload_keys() == []
    assert listening.reload_keys(Keys(slot(KEY))) == [slot(KEY)[0]]
    of_node = Keys(slot(KEY)).of("node1")
    with pytest.raises(ValueError, match="keys: of node 'node1' alone, must be the cluster's"):
        listening.reload_keys(of_node)
    with pytest.raises(ValueError, match="not with keys"):
        listen(["node1"], auth="sha256", keys=of_node, key_file=str(key_file))


@pytest.mark.parametrize("form", FORMS)
def test_the_senders_answer_and_are_believed(
    listen_signed: MakeListener, tmp_path: Path, form: str
) -> None:
    listening = listen_signed(["node1"])
    own = Keys(slot(KEY)).of("node1")
    assert own is not None
    write(tmp_path / "node1", own.text())
    options = [
        "--key-file",
        str(tmp_path / "node1"),
        "-p",
        str(listening.port),
        "-c",
        "2",
        "-i",
        "1",
    ]
    process = subprocess.Popen(
        [sender(form), *options, "127.0.0.1"], env=environment(form), stderr=subprocess.PIPE
    )
    began = listening.only_event()
    assert (began.kind, began.node) == ("began", "node1")
    assert process.wait(60) == 0
    listening.wait_for_count("accepted", 2)  # its answer, and its second message
    assert listening.counted() == {"replayed": 1, "accepted": 2}


def test_no_name_is_looked_up(listen_signed: MakeListener, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object) -> None:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr("kdumpfence.listener.reader.look_up_node", look_up)
    listening = listen_signed({"node1": ["node1.example.org"], "node2": []})
    listening.add("node3")
    assert listening.events(0.3) == []
    assert listening.snapshot().unresolved == []


# ---------------------------------------------------------------------------- nodes and networks


def test_a_node_that_is_removed_is_silent_and_then_a_stranger(
    listen_signed: MakeListener, signer: MakeSigner
) -> None:
    listening = listen_signed(["node1"])
    node = signer(listening)
    node.send()
    listening.only_event()
    listening.remove("node1")
    assert listening.only_event()[:2] == ("silent", "node1")
    node.send()
    listening.wait_for_count("stranger", 1)
    listening.add("node1", [B])
    node.send()
    assert listening.only_event()[:2] == ("began", "node1")


def test_of_a_network_anyone_who_signs_is_a_node_by_name_while_the_dump_lasts(
    listen_signed: MakeListener, signer: MakeSigner
) -> None:
    listening = listen_signed(networks=[NETWORK], silence_timeout=0.5, max_admitted=1)
    node = signer(listening, "vm1", host=A)
    node.send()
    events = about_nodes(listening.until(lambda events: "silent" in kinds(events)))
    assert [event[:2] for event in events] == [("began", "vm1"), ("silent", "vm1")]
    assert events[0].addresses == (A,)
    other = signer(listening, "vm2", host=A)
    other.send()
    assert listening.only_event()[:2] == ("began", "vm2")
    assert "crowded" not in listening.counted()
    node.send()
    listening.wait_for_count("crowded", 1)


def test_a_dump_goes_on_over_a_restart(listen_signed: MakeListener, signer: MakeSigner) -> None:
    listening = listen_signed(["node1"], repeat_interval=0.0)
    node = signer(listening)
    node.send()
    began = listening.only_event()
    listening.close()
    again = listen_signed(["node1"], repeat_interval=0.0, port=listening.port)
    again.restore([Dump("node1", began.since, began.last, 1, began.addresses)])
    node.send()
    event = again.only_event()
    assert (event.kind, event.since, event.messages) == ("dumping", began.since, 2)


# -------------------------------------------------------------------------------------- the keys


def test_a_rotation_loses_nothing(
    listen_signed: MakeListener, signer: MakeSigner, key_file: Path
) -> None:
    """At each step of it a node goes on that was dumping, and one begins with each key."""
    new = FOREIGN_KEY
    listening = listen_signed(
        ["goes on", *(f"n{n}" for n in range(9))][1:] + ["node1"], repeat_interval=0.0
    )
    node = signer(listening)
    node.send()
    assert listening.only_event().node == "node1"
    numbers = itertools.count()
    for signs, accepts in ((KEY, new), (new, KEY)):
        write(key_file, key_text(signs, accepts))
        listening.reload_keys()
        node.send()
        assert listening.only_event()[:2] == ("dumping", "node1")
        for key in (signs, accepts):
            name = f"n{next(numbers)}"
            signer(listening, name, key=key).send()
            assert listening.only_event()[:2] == ("began", name)
    signer(listening, "n8", key=OLD_KEY).send()
    listening.wait_for_count("key", 1)


def broken(path: Path, what: str) -> None:
    if what == "missing":
        path.unlink()
    elif what == "mode":
        path.chmod(0o644)
    elif what == "text":
        write(path, "nothing\n")
    elif what == "node":
        write(path, "node node1\n" + key_text())
    else:
        path.unlink()
        path.mkdir()


BROKEN = [
    ("missing", "No such file"),
    ("mode", "mode 0644"),
    ("text", "not 'signs ID KEY'"),
    ("node", "of node 'node1' alone, must be the cluster's"),
    ("directory", "not a regular file"),
]


@pytest.mark.parametrize(("what", "complaint"), BROKEN)
def test_without_a_key_it_does_not_listen(
    listen_signed: MakeListener, key_file: Path, what: str, complaint: str
) -> None:
    broken(key_file, what)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ValueError, match=complaint) as caught:
        listen_signed(["node1"])
    assert str(key_file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("what", "complaint"), BROKEN)
def test_a_key_that_cannot_be_read_again_stays_in_use(
    listen_signed: MakeListener, signer: MakeSigner, key_file: Path, what: str, complaint: str
) -> None:
    listening = listen_signed(["node1"])
    broken(key_file, what)
    with pytest.raises(ValueError, match=complaint):
        listening.reload_keys()
    signer(listening).send()
    assert listening.only_event().kind == "began"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"auth": "md5"}, "auth 'md5': must be one of none, sha256"),
        ({"auth": ""}, "auth '': must be one of"),
        ({"key_file": "/key"}, "key_file '/key': needs auth='sha256'"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    listen: MakeListener, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        listen(["node1"], **options)


def test_a_name_that_cannot_be_signed_with_is_refused(listen_signed: MakeListener) -> None:
    with pytest.raises(ValueError, match="node 'n\xf6de': a node that signs is named by"):
        listen_signed({"n\xf6de": [A]})
    listening = listen_signed(["node1"])
    with pytest.raises(ValueError, match="a node that signs is named by"):
        listening.add("a" * 65, [A])
    assert listening.snapshot().nodes == 1


def test_without_keys_all_is_as_it_was(listen: MakeListener, signer: MakeSigner) -> None:
    listening = listen({"node1": [A]})
    listening.reload_keys()
    node = signer(listening, host=A)
    node.send(key=FOREIGN_KEY)
    assert listening.only_event().node == "node1"
    assert listening.counted() == {"accepted": 1}


def test_a_compiled_core_without_hmac_leaves_it_to_the_pure_one(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, signer: MakeSigner
) -> None:
    compiled, pure = load_core("compiled"), load_core("pure")
    monkeypatch.setattr(wire, "core", compiled)
    monkeypatch.setattr(compiled, "SIGNS", False)
    assert wire.signing_core() is pure
    listening = TrialListener(["node1"], port=0, auth="sha256", key_file=str(key_file))
    with contextlib.closing(listening):
        signer(listening).send()
        assert listening.only_event().node == "node1"


def test_the_default_key_file_is_the_clusters(
    listen: MakeListener, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "DEFAULT_PATH", str(key_file))
    assert listen(["node1"], auth="sha256").snapshot().nodes == 1


# ----------------------------------------------------------------------------------------- floods


def recorded(listen_signed: MakeListener, sessions: int) -> list[bytes]:
    """What a node said in so many crashes."""
    said: list[bytes] = []
    listening = listen_signed(["node1"])
    for number in range(sessions):
        node = Signer(("127.0.0.1", listening.port))
        with contextlib.closing(node.sock):
            said.append(node.send())
            said.append(node.answer())
            said += [node.send() for _ in range(8)]
            listening.wait_for_count("accepted", 9 * (number + 1))
    listening.close()
    return said


class Flood:
    """Datagrams that come again and again, so many a second, from a thread; left, it is over."""

    def __init__(self, port: int, payloads: list[bytes], rate: int) -> None:
        self._sock = udp("127.0.0.1")
        self._sock.setblocking(False)
        self._crowd = Transmitter(self._sock, OWN_MESSAGE)
        for payload in payloads:
            self._crowd.add(b"\x7f\0\0\1", port, payload=payload)
        self._rate = rate
        self._ends = threading.Event()
        self.sent = 0

    def __enter__(self) -> Flood:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ends.wait(max(0.0, began + self.sent / self._rate - time.monotonic())):
            self.sent += self._crowd.send(patience_ns=10**9).count(0)

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self._sock.close()


@pytest.mark.slow
@pytest.mark.alone
def test_in_a_flood_of_forged_and_repeated_messages_a_node_is_heard_within_a_second(
    listen_signed: MakeListener, core: ModuleType
) -> None:
    said = recorded(listen_signed, 5)
    forged = [
        data[:-1] + bytes([data[-1] ^ number]) for data in said for number in (1, 2, 4, 8, 16)
    ]
    rate = 100_000 if core.IMPLEMENTATION == "compiled" else 10_000
    took: list[float] = []
    for _ in range(5):
        listening = listen_signed(["node1"])
        with Flood(listening.port, said + forged, rate) as flood:
            wait_for(lambda flood=flood: flood.sent > rate)  # type: ignore[misc]
            assert listening.events(0) == []
            with Signer(("127.0.0.1", listening.port)) as node:
                began = time.monotonic()
                while not took or took[-1] < began:
                    node.send()
                    if any(event.node == "node1" for event in listening.events(1.0)):
                        took.append(time.monotonic())
            took[-1] -= began
        counts = listening.snapshot().counts
        assert counts["accepted"] == node.answered
        assert counts["forged"] > 4 * rate / 6
        listening.close()
    print(f"{rate:,} a second: heard after {', '.join(f'{one:.3f}' for one in took)} s")
    assert sorted(took)[2] < 1.0
