# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is a message and what is none, on the wire.

The agent waits for a node with two addresses. The datagram in question comes from the first;
where it must not count, a true message then comes from the second, and the agent has to name
that one as the one it heard.

Whole messages are sent to the stock agent as well, what is malformed to ours alone.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from tests.interop.lab import Lab, needs_root
from tests.interop.nodes import AGENT_4, send_raw
from tests.interop.programs import Process, Programs
from tests.support.messages import FOREIGN_MESSAGE, MESSAGE, NO_MESSAGE, family

FIRST, SECOND = "127.0.0.2", "127.0.0.3"
FIRST_6, SECOND_6 = "fd00::2", "fd00::3"
STRANGERS = {FIRST: "127.0.0.9", FIRST_6: "fd00::9"}

both_families = pytest.mark.parametrize(
    ("node", "second"), [(FIRST, SECOND), (FIRST_6, SECOND_6)], ids=["IPv4", "IPv6"]
)


def hears_only_the_second(
    lab: Lab, agent: Process, second: str, something_else_happens: Callable[[], object]
) -> None:
    """Assert that something else is no yes for the agent, and that it still hears its node."""
    node = lab.node(second)
    something_else_happens()
    time.sleep(0.1)  # a wrong yes would be out by now
    assert agent.is_running, f"ended before a message came: {agent}"
    node.says(MESSAGE, lab.port)
    assert agent.heard() == second


@pytest.mark.parametrize("trailer", [0, 1, 56, 1464, 65507 - 8])
@pytest.mark.slow
def test_a_message_is_heard_with_whatever_follows_its_8_bytes(
    lab: Lab, listener: Programs, trailer: int
) -> None:
    agent = lab.agent(listener, FIRST)
    lab.node(FIRST).says(MESSAGE + b"\xff" * trailer, lab.port)
    assert agent.heard() == FIRST


@pytest.mark.slow
def test_what_is_no_whole_valid_message_is_not_heard(lab: Lab, ours_anyhow: Programs) -> None:
    agent = lab.agent(ours_anyhow, f"{FIRST},{SECOND}")
    node, stranger = lab.node(FIRST), lab.node(STRANGERS[FIRST])

    def speak() -> None:
        # Whatever came before it, and from whom.
        for what, datagram in NO_MESSAGE.items():
            for earlier in (None, MESSAGE, FOREIGN_MESSAGE):
                if earlier is not None:
                    stranger.says(earlier, lab.port)
                node.says(datagram, lab.port)
                time.sleep(0.02)
            assert agent.is_running, f"{what}: {agent}"

    hears_only_the_second(lab, agent, SECOND, speak)


@both_families
@pytest.mark.parametrize("wrong", ["address", "port"])
def test_the_right_message_from_a_wrong_address_or_to_a_wrong_port_is_not_heard(
    lab: Lab, listener: Programs, node: str, second: str, wrong: str
) -> None:
    agent = lab.agent(listener, f"{node},{second}")
    sender = lab.node(STRANGERS[node] if wrong == "address" else node)
    port = lab.port + (wrong == "port")
    hears_only_the_second(lab, agent, second, lambda: sender.says(MESSAGE, port))


@needs_root
def test_the_right_message_from_the_port_to_a_wrong_port_is_not_heard(
    lab: Lab, ours: Programs
) -> None:
    agent = lab.agent(ours, f"{FIRST},{SECOND}")
    sender = lab.receiver(FIRST).socket  # a stock agent's socket would be in its way
    hears_only_the_second(
        lab, agent, SECOND, lambda: sender.sendto(MESSAGE, (AGENT_4, lab.port + 1))
    )


def test_a_message_in_a_packet_with_ip_options_is_heard(lab: Lab, listener: Programs) -> None:
    agent = lab.agent(listener, FIRST)
    node = lab.node(FIRST)
    no_operation, end = b"\x01", b"\x00"
    node.socket.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, no_operation * 7 + end)
    node.says(MESSAGE, lab.port)
    assert agent.heard() == FIRST


@needs_root
def test_a_message_behind_an_ipv6_extension_header_is_heard(lab: Lab, listener: Programs) -> None:
    agent = lab.agent(listener, FIRST_6)
    node = lab.node(FIRST_6)
    padding = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # RFC 8200, 4.2: a PadN option of 6 bytes
    node.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, padding)
    node.says(MESSAGE, lab.port)
    assert agent.heard() == FIRST_6


# Below: packets made by hand. What the agent has to make of each is what a plain UDP socket,
# that is, the kernel, makes of it; and that is asserted first.


def kernel_delivers(lab: Lab, node: str, **packet: int) -> bytes | None:
    """Return what a plain UDP program reads of such a packet, None if nothing."""
    plain = lab.receiver("::" if family(node) == socket.AF_INET6 else "0.0.0.0")
    send_raw(node, lab.port, MESSAGE, **packet)
    datagram = plain.hears(0.05)  # on loopback it is there before send_raw() is back
    plain.close()
    return datagram


@pytest.mark.parametrize(
    ("node", "packet"),
    [
        pytest.param(FIRST, {}, id="IPv4, all in order"),
        pytest.param(FIRST, {"sum_is": 0}, id="IPv4 without a checksum"),
        pytest.param(FIRST_6, {}, id="IPv6, all in order"),
    ],
)
@needs_root
def test_a_message_in_a_packet_made_by_hand_is_heard(
    lab: Lab, listener: Programs, node: str, packet: dict[str, int]
) -> None:
    assert kernel_delivers(lab, node, **packet) == MESSAGE
    agent = lab.agent(listener, node)
    send_raw(node, lab.port, MESSAGE, **packet)
    assert agent.heard() == node


DROPPED_OR_CUT: list[tuple[dict[str, int], bytes | None]] = [
    ({"length": 8}, b""),
    ({"length": 12}, MESSAGE[:4]),
    ({"length": 15}, MESSAGE[:7]),
    ({"sum_xor": 0x5555}, None),
    ({"length": 17}, None),  # beyond the packet
    ({"length": 7}, None),  # below the header's
]
WITHOUT_A_CHECKSUM: list[tuple[str, str, dict[str, int], bytes | None]] = [
    (FIRST, SECOND, {"sum_is": 0, "length": 8}, b""),
    (FIRST, SECOND, {"sum_is": 0, "length": 17}, None),
    (FIRST_6, SECOND_6, {"sum_is": 0}, None),  # IPv6 demands one
]


@pytest.mark.parametrize(
    ("node", "second", "packet", "delivered"),
    [
        *((FIRST, SECOND, *case) for case in DROPPED_OR_CUT),
        *((FIRST_6, SECOND_6, *case) for case in DROPPED_OR_CUT),
        *WITHOUT_A_CHECKSUM,
    ],
)
@needs_root
@pytest.mark.slow
def test_a_packet_that_the_kernel_drops_or_cuts_is_not_heard(
    lab: Lab,
    ours_anyhow: Programs,
    node: str,
    second: str,
    packet: dict[str, int],
    delivered: bytes | None,
) -> None:
    assert kernel_delivers(lab, node, **packet) == delivered
    agent = lab.agent(ours_anyhow, f"{node},{second}")
    hears_only_the_second(lab, agent, second, lambda: send_raw(node, lab.port, MESSAGE, **packet))


@needs_root
def test_bytes_behind_the_udp_datagram_in_its_packet_do_not_matter(
    lab: Lab, listener: Programs
) -> None:
    agent = lab.agent(listener, FIRST)
    send_raw(FIRST, lab.port, MESSAGE + b"padding!", length=8 + len(MESSAGE))
    assert agent.heard() == FIRST
