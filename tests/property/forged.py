# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sends forgeries to a program, over loopback, and fails if a single one is believed.

    python -m tests.property.forged agent|listener|sender FORM NUMBER

FORM: a core, or a form of the sender. The forger hears all that passes, speaks from the node's own
address and port, and waits until what it sent was read, so that nothing is lost. NUMBER is spread
over a few waits, sessions and starts; after each the node itself has to be believed. At the end
it says as JSON how many of which kind were sent.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdumpfence import Listener
from kdumpfence.sockets import deepen
from kdumpfence.wire import IMPLEMENTATION
from tests.conftest import udp, unused_port
from tests.support import packets
from tests.support.answerer import (
    CURRENT,
    NODE,
    PREVIOUS,
    Answerer,
    key_text,
    packet,
    silent,
    write_key,
)
from tests.support.forgeries import ID, KEY, forgeries
from tests.support.programs import AGENT, sender, start

#: Waits of the agent, sessions of a node, starts of a sender.
ROUNDS = 6
#: Forgeries before it is seen to that they were read.
AT_ONCE = 128
#: Seconds until the node itself has to be believed, and until the last forgery has to be read.
PATIENCE = 60
#: Seconds after which the answer to a listener's question is too old.
TOO_OLD = 10

#: Answers of a sender in a second, to strangers, and to those who have its key.
SHARE = 50

Recorded = dict[str, list[bytes]]
Forgeries = Iterator[tuple[str, bytes]]


def shares(number: int) -> list[int]:
    """One for each of ROUNDS."""
    return [number // ROUNDS + (place < number % ROUNDS) for place in range(ROUNDS)]


def unread(port: int) -> int:
    """Bytes that wait in the sockets of this port."""
    waiting = 0
    for name in ("udp", "udp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                waiting += int(fields[4].partition(":")[2], 16)
    return waiting


def until(happened: Callable[[], object], otherwise: str) -> None:
    """Wait for what has to come."""
    ends = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < ends, otherwise
        time.sleep(0.0005)


class Forger:
    """Speaks from a socket; `sent`: how many forgeries of which kind."""

    def __init__(self, sock: socket.socket) -> None:
        deepen(sock, 1 << 20)
        self.sock = sock
        self.sent: Counter[str] = Counter()
        #: All that was sent from here, and all that came back.
        self.said = self.heard = 0

    def says(self, data: bytes, to: Any) -> None:
        self.sock.sendto(data, to)
        self.said += 1

    def hears(self, seconds: float = 0) -> list[bytes]:
        """What has come, or comes until there is nothing for so long.

        Of answers and questions no byte more than was sent.
        """
        heard: list[bytes] = []
        self.sock.settimeout(seconds)
        with contextlib.suppress(BlockingIOError, socket.timeout):
            while True:
                heard.append(self.sock.recv(2048))
        self.sock.settimeout(None)
        self.heard += sum(any(packets.field(data, "nonce")) for data in heard)
        assert all(len(data) <= packets.LENGTH for data in heard), "longer than a question"
        assert self.heard <= self.said, "more came back than was sent"
        return heard

    def forges(
        self,
        made: Forgeries,
        number: int,
        to: Any,
        between: Callable[[list[bytes]], None],
    ) -> None:
        """Send so many; `between` gets AT_ONCE of them whenever these have been read."""
        for begins in range(0, number, AT_ONCE):
            batch = list(itertools.islice(made, min(AT_ONCE, number - begins)))
            for kind, data in batch:
                self.says(data, to)
                self.sent[kind] += 1
            until(lambda: not unread(to[1]), "what was sent is not read")
            between([data for _, data in batch])


# ----------------------------------------------------------------------------- the agent


def agent(form: str, number: int, dice: random.Random, folder: Path) -> Counter[str]:
    """Answers to the port that it asks from, and messages to the one that it hears.

    If one were believed it would end: with a yes, or with a no, for alive_grace is 0.
    """
    key_file = write_key(folder / "key", key_text(CURRENT, PREVIOUS))
    recorded: Recorded = {
        "recorded in the same wait": [],
        "recorded in an earlier wait": [],
        "recorded before a reboot": [],
    }
    sent: Counter[str] = Counter()
    for session, size in enumerate(shares(number), 1):
        with udp("127.0.0.71", unused_port()) as sock, Answerer(sock, answer=silent) as node:
            host, port = sock.getsockname()
            argv = [AGENT, "-n", f"{NODE},{host}", "-p", str(port), "-t", "3600", "--auth=sha256"]
            asking = start([*argv, "--alive-grace=0", f"--key-file={key_file}"], form)
            try:
                question, asks_from = node.question()
                nonce = packets.field(question, "nonce")
                messages = [packet("status", session=session, sequence=n) for n in range(1, 9)]
                recorded["recorded in the same wait"] = [question, *messages]

                def draw(byteorder: str, nonce: bytes = nonce, session: int = session) -> bytes:
                    kind = "status" if dice.random() < 0.7 else "alive"
                    number = dice.randrange(1, 1 << 32)
                    return packet(
                        kind, nonce, byteorder=byteorder, session=session, sequence=number
                    )

                def waits(_: object, asking: Any = asking) -> None:
                    assert asking.poll() is None, f"believed: {asking.communicate()}"

                forger = Forger(sock)
                made = forgeries(dice, draw, recorded)
                forger.forges(made, size // 20, ("127.0.0.1", port), waits)
                forger.forges(made, size - size // 20, asks_from, waits)
                answer = packet("status", nonce, byteorder="big", session=session, sequence=9)

                def dumping(_: packets.Told, answer: bytes = answer) -> list[bytes]:
                    return [answer]

                node.answer = dumping
                out, errors = asking.communicate(timeout=PATIENCE)
                assert asking.returncode == 0, errors
                assert f"received signed answer of '{NODE}' from {host}" in out
                assert all(len(one) <= packets.LENGTH for one, _ in node.questions)
            finally:
                asking.kill()
                asking.communicate()
        recorded["recorded in an earlier wait"] += [answer, packet("alive", nonce)]
        recorded["recorded before a reboot"] += messages
        sent += forger.sent
    return sent


# -------------------------------------------------------------------------- the listener


class Session:
    """One start of the node's sender, and what a Listener makes of it."""

    def __init__(self, number: int, listening: Listener, forger: Forger) -> None:
        self.number = number
        self._listening = listening
        self._forger = forger
        self._to = ("127.0.0.1", listening.port)
        self._sequence = itertools.count(1)
        self.said: list[bytes] = []

    def packet(self, nonce: bytes = bytes(16), byteorder: str = "little") -> bytes:
        """The next one."""
        number = next(self._sequence)
        return packet("status", nonce, byteorder=byteorder, session=self.number, sequence=number)

    def is_believed(self) -> None:
        """At last: it says the same again and again, and answers questions, as senders do."""
        before = accepted(self._listening)
        ends = time.monotonic() + PATIENCE
        self._forger.hears()
        while accepted(self._listening) == before:
            assert time.monotonic() < ends, "the node is not believed"
            self._says(self.packet())
            for nonce in nonces(self._forger.hears(0.2))[-1:]:
                self._says(self.packet(nonce))
                self._forger.hears(0.05)

    def nonce(self) -> bytes:
        """Of a question that is open: this session is asked about, and has not answered."""
        ends = time.monotonic() + PATIENCE
        self._forger.hears()
        while time.monotonic() < ends:
            self._says(self.packet())
            for nonce in nonces(self._forger.hears(0.2)):
                return nonce
        raise AssertionError("nobody asks")

    def _says(self, data: bytes) -> None:
        self.said.append(data)
        self._forger.says(data, self._to)


def accepted(listening: Listener) -> int:
    return listening.snapshot().counts["accepted"]


def all_judged(listening: Listener, forger: Forger) -> None:
    """Wait until it has judged all that was sent: and its own questions to its port, since on
    loopback it has the node's address too.
    """
    until(lambda: sum(listening.snapshot().counts.values()) >= forger.said, "not all is judged")


def nonces(heard: list[bytes]) -> list[bytes]:
    """Those of the questions among these."""
    return [packets.field(data, "nonce") for data in heard if data[:8] == b"KDFQUEST"]


def listener(form: str, number: int, dice: random.Random, folder: Path) -> Counter[str]:
    """Messages, answers to its questions, and questions, to a Listener that answers.

    Of all that comes it counts the messages that it believes.
    """
    assert form == IMPLEMENTATION
    key_file = write_key(folder / "key", key_text(CURRENT, PREVIOUS))
    recorded: Recorded = {
        "recorded in the same session": [],
        "recorded in an earlier session": [],
        "recorded before a restart": [],
        "answers that are too old": [],
    }
    aging: list[tuple[float, bytes]] = []
    session_numbers = itertools.count(1)
    sent: Counter[str] = Counter()
    sizes = shares(number)
    for start_sizes in (sizes[::2], sizes[1::2]):
        with (
            udp("127.0.0.71") as sock,
            Listener(
                [NODE], port=0, auth="sha256", answer_as=NODE, key_file=str(key_file)
            ) as listening,
        ):
            forger = Forger(sock)
            for size in start_sizes:
                session = Session(next(session_numbers), listening, forger)
                session.is_believed()
                all_judged(listening, forger)
                recorded["recorded in the same session"] = session.said
                other = Session(next(session_numbers), listening, forger)
                open_nonce = other.nonce()

                def draw(
                    byteorder: str, session: Session = session, other: Session = other,
                    nonce: bytes = open_nonce,
                ) -> bytes:  # fmt: skip
                    if dice.random() < 0.2:
                        return packet("question", dice.randbytes(16))
                    if dice.random() < 0.5:
                        return other.packet(nonce, byteorder)
                    return session.packet(byteorder=byteorder)

                before = accepted(listening)

                def believes_none(_: object, forger: Forger = forger, before: int = before) -> None:
                    all_judged(listening, forger)
                    forger.hears()
                    old = [data for when, data in aging if when < time.monotonic() - TOO_OLD]
                    recorded["answers that are too old"] = old
                    assert accepted(listening) == before, "a forgery is believed"

                to = ("127.0.0.1", listening.port)
                made = forgeries(dice, draw, recorded)
                forger.forges(made, size, to, believes_none)
                believes_none(None)
                session.is_believed()
                aging.append((time.monotonic(), other.packet(open_nonce)))
                recorded["recorded in an earlier session"] += session.said
            assert listening.snapshot().counts["unread"] == 0
            sent += forger.sent
        recorded["recorded before a restart"] += recorded.pop("recorded in an earlier session")
        recorded["recorded in an earlier session"] = []
        aging.clear()
    return sent


# ---------------------------------------------------------------------------- the sender


class Answered:
    """The answers of a sender: each is to a question, with a nonce that no other question has."""

    def __init__(self, forger: Forger) -> None:
        self._forger = forger
        self._asked: set[bytes] = set()
        self._began = time.monotonic()
        #: Those to questions that are not signed with the node's key.
        self.strangers = 0
        self.messages = 0

    def look(self, asked: list[bytes], true_ones: set[bytes]) -> None:
        """At what came, now that these were asked; `true_ones`: nonces of the signed."""
        for data in asked:
            told = packets.read(data)
            if told is not None and told.kind == "question":
                self._asked.add(told.nonce)
        for data in self._forger.hears():
            nonce = packets.field(data, "nonce")
            if not any(nonce):
                self.messages += 1
                continue
            assert nonce in self._asked, "an answer to what is no question"
            self.strangers += nonce not in true_ones
        # A second's share begins with a question, and there were none before.
        windows = int(time.monotonic() - self._began) + 1
        assert self.strangers <= SHARE * windows, "strangers were taken for those with the key"


def sender_asked(form: str, number: int, dice: random.Random, folder: Path) -> Counter[str]:
    """Questions to the port that its messages leave from.

    It answers strangers, too: what a forged MAC must not get is a share of the others' answers.
    """
    key_file = write_key(folder / "key", f"node {NODE}\nsigns {ID:08x} {KEY.hex()}\n")
    recorded: Recorded = {"recorded questions": [], "what it said itself": []}
    true_ones: set[bytes] = set()
    sent: Counter[str] = Counter()
    for host, size in zip(itertools.cycle(("127.0.0.1", "::1")), shares(number)):
        with udp(host) as sock:
            port = str(sock.getsockname()[1])
            argv = [sender(form), "-p", port, "-i", "1", "--key-file", str(key_file), host]
            sending = start(argv, form)
            try:
                sock.settimeout(PATIENCE)
                message, lane = sock.recvfrom(2048)
                recorded["what it said itself"].append(message)
                forger = Forger(sock)
                answered = Answered(forger)

                def draw(_: str = "") -> bytes:
                    return packet("question", dice.randbytes(16))

                def goes_on(
                    asked: list[bytes], answered: Answered = answered, sending: Any = sending
                ) -> None:
                    answered.look(asked, true_ones)
                    assert sending.poll() is None, sending.communicate()

                forger.forges(forgeries(dice, draw, recorded), size, lane, goes_on)

                def answers_the_key(
                    forger: Forger = forger, answered: Answered = answered, lane: Any = lane
                ) -> bool:
                    question = draw()
                    forger.says(question, lane)
                    for data in forger.hears(0.1):
                        if packets.field(data, "nonce") == packets.field(question, "nonce"):
                            assert data == packets.sign(data, KEY)
                            recorded["recorded questions"].append(question)
                            recorded["what it said itself"].append(data)
                            true_ones.add(packets.field(question, "nonce"))
                            return True
                    return False

                until(answers_the_key, "whoever has the key is not answered")
                sent += forger.sent
            finally:
                sending.kill()
                sending.communicate()
    return sent


TARGETS = {"agent": agent, "listener": listener, "sender": sender_asked}


def main(target: str, form: str, number: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dice = random.Random(f"{target} {form}")
        sent = TARGETS[target](form, int(number), dice, Path(folder))
    print(json.dumps(sent))


if __name__ == "__main__":
    main(*sys.argv[1:])
