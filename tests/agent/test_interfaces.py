# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which interface a message came through, and whether it counts for that; without a VRF.

tests/system/guest has real ones.
"""

from __future__ import annotations

import errno
import os
import socket
import time

import pytest

from kdumpfence.addresses import Address
from kdumpfence.agent import sockets as module
from kdumpfence.agent.main import _Wait
from kdumpfence.agent.options import agent_from_argv
from kdumpfence.agent.sockets import Listening
from kdumpfence.links import Links
from kdumpfence.log import Report
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp, unused_port

NODE = "127.0.0.21"
LO = 1


class InVrf(Links):
    """All that comes came through a VRF."""

    def in_vrf(self, index: int) -> bool:
        return True


class Hears(InVrf):
    """And UDP sockets hear it."""

    def __init__(self) -> None:
        super().__init__()
        self.udp_hears_vrfs = self.raw_hears_vrfs = True


def send(port: int) -> None:
    with udp(NODE) as sock:
        sock.sendto(OWN_MESSAGE, ("127.0.0.1", port))


@pytest.mark.parametrize(("links", "counts"), [(Links, True), (InVrf, False), (Hears, True)])
@pytest.mark.parametrize("late", [False, True])
def test_a_message_counts_if_a_udp_socket_would_have_heard_it(
    root: None, monkeypatch: pytest.MonkeyPatch, links: type[Links], counts: bool, late: bool
) -> None:
    monkeypatch.setattr(module, "Links", links)
    port = unused_port()
    node = "node.invalid" if late else NODE
    wait = _Wait(agent_from_argv(["-n", node, "-p", str(port), "-t", "9"]), Report("test"), None)
    try:
        send(port)
        assert wait.until(time.monotonic() + 0.3) == (counts and not late)
        if late:  # its name resolves
            wait._resolved(node, [Address(socket.inet_aton(NODE))])
            assert (wait.watch.proof is not None) == counts
    finally:
        wait.close()


def test_before_a_link_local_address_is_known_it_is_heard_on_its_link_alone() -> None:
    packed = socket.inet_pton(socket.AF_INET6, "fe80::1")
    listening = Listening(unused_port(), (socket.AF_INET6,), use_raw=False)
    listening.strangers.add(packed, 3)
    assert listening.heard(Address(packed, 3))
    assert not listening.heard(Address(packed, 2))
    listening.close()


@pytest.mark.parametrize("use_raw", [True, False])
def test_an_address_whose_interface_has_another_index_is_a_source_no_more(
    root: None, monkeypatch: pytest.MonkeyPatch, use_raw: bool
) -> None:
    packed = socket.inet_pton(socket.AF_INET6, "fe80::1")
    before, after = Address(packed, LO), Address(packed, 7)
    connected: list[socket.socket] = []

    def connect(address: Address, _: int) -> socket.socket:
        if address != before:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        connected.append(udp("::1"))
        return connected[-1]

    monkeypatch.setattr(module, "_connect_udp", connect)
    listening = Listening(unused_port(), (socket.AF_INET6,), use_raw=use_raw, names=["node1"])
    listening.add([before])
    monkeypatch.setattr(module, "_interface_of", {"lo": 7}.get)
    assert listening.moved() == {before: after}
    assert listening.addresses == [after]
    assert [listening.sources.discard(packed, index) for index in (LO, 7)] == [False, True]
    assert [sock.fileno() for sock in connected] == ([] if use_raw else [-1])
    assert listening.look(1, 1) == []
    for fd in listening.census_fds:
        os.fstat(fd)  # one that is closed would be ready at all times
    listening.close()


def test_what_came_nobody_knows_how_is_not_believed(root: None) -> None:
    listening = Listening(unused_port(), (socket.AF_INET,))
    try:
        assert listening.believes(LO)
        assert not listening.believes(0)
    finally:
        listening.close()
