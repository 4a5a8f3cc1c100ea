# SPDX-License-Identifier: LGPL-2.1-or-later
"""Raw sockets hear all that there is from the moment they are made: so they begin with a filter."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from kdumpfence import filters
from kdumpfence import sockets as sockets_of_all
from kdumpfence.addresses import Address
from kdumpfence.agent.sockets import Listening
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp, unused_port

NODE = Address(socket.inet_aton("127.0.0.21"))
NO_INTERFACE = 1 << 30


def send(port: int) -> None:
    with udp(str(NODE)) as sock:
        sock.sendto(OWN_MESSAGE, ("127.0.0.1", port))


@pytest.fixture
def listening(root: None) -> Iterator[Listening]:
    opened = Listening(unused_port(), (socket.AF_INET,))
    assert opened.raw
    yield opened
    opened.close()


def test_what_comes_before_there_is_a_filter_is_not_heard(
    root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, real = unused_port(), sockets_of_all.attach
    filtered: list[socket.socket] = []

    def attach(sock: socket.socket, instructions: list[filters.Instruction]) -> None:
        filtered.append(sock)
        if sock is filtered[0]:
            send(port)
        real(sock, instructions)

    monkeypatch.setattr(sockets_of_all, "attach", attach)
    listening = Listening(port, (socket.AF_INET,))
    listening.add([NODE])
    assert filtered.count(filtered[0]) == 2  # first nothing is let in, then messages
    assert listening.look(9, 9) == []
    send(port)
    assert {one.packed for one in listening.look(9, 9)} == {NODE.packed}
    listening.close()


def test_the_one_that_questions_leave_by_hears_nothing(listening: Listening) -> None:
    assert listening.say(NODE, 9, b"question", 0)
    assert listening._raw is not None
    (sock,) = listening._raw._speaking.values()
    with contextlib.suppress(BlockingIOError):  # what came before it had its filter
        while True:
            sock.recv(1, socket.MSG_DONTWAIT)
    send(listening.port)
    with pytest.raises(BlockingIOError):
        sock.recv(1, socket.MSG_DONTWAIT)


def test_what_cannot_be_said_is_no_error(listening: Listening) -> None:
    assert not listening.say(NODE, 9, b"question", NO_INTERFACE)
