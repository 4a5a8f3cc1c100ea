# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nodes that answer questions, honest ones and others; and the keys that they sign with.

Nothing is taken from the product: packets are those of `packets`, which is written from
docs/protocol.md.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from tests.support import packets

#: The clusters' keys of the tests: the one that signs, the one before it, and another cluster's.
CURRENT, PREVIOUS, FOREIGN = (bytes([number]) * 32 for number in (1, 2, 3))

NODE = "node1"

#: The datagrams that a question gets, which came from a peer.
Answer = Callable[[packets.Told], "list[bytes]"]


def slot(word: str, key: bytes) -> str:
    """A line of the cluster's key file."""
    return f"{word} {packets.key_id(key):08x} {key.hex()}\n"


def key_text(signs: bytes = CURRENT, accepts: bytes | None = None) -> str:
    """A cluster's key file."""
    return slot("signs", signs) + (slot("accepts", accepts) if accepts else "")


def write_key(path: Path, text: str | None = None) -> Path:
    """Make a key file as it has to be."""
    path.write_text(key_text() if text is None else text)
    path.chmod(0o600)
    return path


def packet(
    kind: str,
    nonce: bytes = bytes(16),
    *,
    name: str = NODE,
    key: bytes | None = CURRENT,
    signed_as: str | None = None,
    key_id: int | None = None,
    state: str = "dumping",
    byteorder: str = "little",
    session: int = 77,
    sequence: int = 1,
) -> bytes:
    """A packet that a node of that name sends, signed with its key of this cluster's.

    `key`: None leaves it unsigned. `signed_as`: whose key it is signed with in truth. `key_id`:
    what it says of the key.
    """
    status = kind == "status"
    number = 0 if key is None else packets.key_id(key) if key_id is None else key_id
    told = packets.Told(
        kind=kind,
        byteorder=byteorder if status else "",
        state=state if status else "",
        key_id=number,
        interval=1000 if status else 0,
        session=session if status else 0,
        sequence=sequence if status else 0,
        nonce=nonce,
        name=name,
    )
    signer = packets.node_key(key, signed_as or name) if key is not None else b""
    return packets.build(told, signer)


class Answerer:
    """Answers what comes to these sockets, as long as the block lasts; in a thread.

    `answer` has what the question says, and may be another one later. `questions`: all that came,
    with where from.
    """

    def __init__(self, *sockets: socket.socket, answer: Answer) -> None:
        self._sockets = sockets
        self.answer = answer
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.questions: list[tuple[bytes, tuple[str, int]]] = []
        self.came = threading.Event()

    def __enter__(self) -> Answerer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            for sock in select.select(self._sockets, [], [], 0.02)[0]:
                try:
                    data, peer = sock.recvfrom(2048)
                except OSError:  # nobody was where an answer went to
                    continue
                told = packets.read(data)
                if told is None or told.kind != "question":
                    continue
                self.questions.append((data, peer))
                self.came.set()
                for answer in self.answer(told):
                    sock.sendto(answer, peer)

    def question(self, within: float = 120) -> tuple[bytes, tuple[str, int]]:
        """The first question, and where it came from."""
        assert self.came.wait(within), "nobody asks"
        return self.questions[0]

    def nonce(self) -> bytes:
        """That of the first question."""
        return packets.field(self.question()[0], "nonce")


def dumping(told: packets.Told) -> list[bytes]:
    """What a node says that has the key."""
    return [packet("status", told.nonce)]


def alive(told: packets.Told) -> list[bytes]:
    """What one says that runs."""
    return [packet("alive", told.nonce)]


def silent(_: packets.Told) -> list[bytes]:
    """Nothing."""
    return []
