# SPDX-License-Identifier: LGPL-2.1-or-later
"""The receive loop on raw sockets, whose UDP headers and checksums it judges itself.

Any packet at all, beside a judge that is not ourselves: tests/property/test_raw_sockets.py.
"""

from __future__ import annotations

import os
import socket
import struct
from types import ModuleType

import pytest

from tests.conftest import udp
from tests.core.scene import LITTLE, NODE, OTHER, pack, soon
from tests.support.judge import checksum, pseudo_header

RIGHT = -1


class RawScene:
    """A receiver on a raw socket, and a raw sender that writes any UDP header."""

    def __init__(
        self,
        core: ModuleType,
        sockets: list[socket.socket],
        family: int,
        told: bool = True,
        size: int = 65535,
    ) -> None:
        six = family == socket.AF_INET6
        # What other tests send on loopback at the same time must not fill its queue.
        number = os.getpid() & 0xFFFF
        self.node, self.here = (
            ("::1", "::1") if six else (NODE, f"127.89.{number >> 8}.{number & 255}")
        )
        sources = core.Sources()
        sources.add(pack(self.node), node=7)
        # A port that no other program gets, whose datagrams a raw socket would hear too.
        holder = udp(self.here)
        self.port: int = holder.getsockname()[1]
        listener = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
        if six and told:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        listener.bind((self.here, 0))
        self.receiver = core.Receiver(sources, port=self.port, size=size)
        self.receiver.add_socket(listener)
        self.sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
        self.sender.bind((self.node, 0))
        sockets += [holder, listener, self.sender]

    def send(
        self,
        payload: bytes = LITTLE,
        length: int | None = None,
        check: int = RIGHT,
        cut: int | None = None,
    ) -> None:
        size = 8 + len(payload) if length is None else length
        head = struct.pack(">HHH", 9, self.port, size)
        if check == RIGHT:
            covered = pseudo_header(pack(self.node), pack(self.here), size) + head + payload
            check = 0xFFFF - checksum(covered) or 0xFFFF
        whole = head + struct.pack(">H", check) + payload
        self.sender.sendto(whole[:cut], (self.here, 0))

    def send_udp(self, host: str, port: int, options: bytes = b"") -> None:
        """As any program of this machine does."""
        with udp(host) as sock:
            if options:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
            sock.sendto(LITTLE, (self.here, port))

    def counts(self) -> dict[str, int]:
        """How many datagrams had which verdict."""
        return {verdict: number for verdict, number in self.receiver.counts.items() if number}

    def verdicts(self) -> dict[str, int]:
        """The same after a wait, in which what was accepted arrived."""
        arrivals = self.receiver.receive(soon(0.1))
        assert len(arrivals) == self.counts().get("accepted", 0)
        return self.counts()


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def raw(
    core: ModuleType, sockets: list[socket.socket], root: None, request: pytest.FixtureRequest
) -> RawScene:
    return RawScene(core, sockets, request.param)


@pytest.mark.parametrize(
    ("sent", "verdict"),
    [
        ({"payload": LITTLE + b"odd"}, "accepted"),
        ({"check": 0x1234}, "checksum"),
        # What lies behind the UDP length is no part of the datagram.
        ({"length": 8, "check": 0}, "short"),
        ({"length": 15, "check": 0}, "short"),
        *(({"length": length}, "malformed") for length in (0, 7, 17, 65535)),
        *(({"cut": cut}, "malformed") for cut in (0, 5, 7)),
    ],
)
def test_a_datagram_is_believed_only_if_its_header_is_right(
    raw: RawScene, sent: dict[str, int], verdict: str
) -> None:
    raw.send(**sent)  # type: ignore[arg-type]
    assert raw.verdicts() == {verdict: 1}


def test_no_checksum_is_legal_over_ipv4_only(raw: RawScene) -> None:
    raw.send(check=0)
    assert raw.verdicts() == {"checksum" if ":" in raw.node else "accepted": 1}


def test_a_sum_that_was_left_to_a_network_card_is_believed(raw: RawScene) -> None:
    # So is that of a plain UDP socket on this machine: loopback has no such card.
    raw.send_udp(raw.node, raw.port)
    assert raw.verdicts() == {"accepted": 1}


def test_without_the_address_that_it_was_sent_to_no_checksum_fits(
    core: ModuleType, sockets: list[socket.socket], root: None
) -> None:
    raw = RawScene(core, sockets, socket.AF_INET6, told=False)
    raw.send()
    assert raw.verdicts() == {"checksum": 1}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_was_cut_at_the_buffer_is_malformed(
    core: ModuleType, sockets: list[socket.socket], root: None, family: int
) -> None:
    raw = RawScene(core, sockets, family, size=64)
    raw.send(LITTLE + bytes(100), length=16)
    raw.send(LITTLE, length=16)
    assert raw.verdicts() == {"malformed": 1, "accepted": 1}


def test_a_datagram_for_another_port_is_not_even_counted(raw: RawScene) -> None:
    raw.send_udp(raw.node, raw.port ^ 1)
    assert raw.verdicts() == {}


def test_what_only_counts_judges_them_alike_and_knows_no_end(raw: RawScene) -> None:
    raw.receiver.end(soon(-1))
    raw.send()
    raw.send(check=0x1234)
    assert raw.receiver.count(0) == 1
    assert raw.counts() == {"accepted": 1, "checksum": 1}


@pytest.mark.parametrize(
    ("host", "options", "verdict"),
    [(OTHER, b"", "stranger"), (NODE, b"\x01" * 7 + b"\x00", "accepted")],
)
def test_over_ipv4_strangers_are_none_of_ours_and_ip_options_do_not_shift_the_message(
    core: ModuleType,
    sockets: list[socket.socket],
    root: None,
    host: str,
    options: bytes,
    verdict: str,
) -> None:
    raw = RawScene(core, sockets, socket.AF_INET)
    raw.send_udp(host, raw.port, options)
    assert raw.verdicts() == {verdict: 1}
