# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which addresses are this machine's own: the routing table's word, asked for in two ways."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from kdumpfence import own_addresses
from kdumpfence.addresses import Address
from kdumpfence.own_addresses import is_own
from tests.support.netlab import Host, Lab

#: Of the second host in the test, which has eth0 and eth1.
OWN = ["10.0.0.2", "fd00::2", "fe80::2%eth0", "10.7.1.2", "fd07::1:2"]
OTHERS = [
    "10.0.0.1", "10.0.0.255", "10.8.1.2", "10.9.9.9", "fd00::1", "fe80::2%eth1", "fe80::1%eth0",
]  # fmt: skip

# Loopback addresses are this machine's, but the second way leaves them out.
PROGRAM = """
import socket, sys
from kdumpfence.addresses import literal
from kdumpfence.own_addresses import OwnAddresses, is_own
known = OwnAddresses()
known.renew(0.0)
for text in sys.argv[1:]:
    [address] = literal(text, 0)
    print(text, is_own(address), (address.packed, address.scope) in known)
"""


@pytest.mark.parametrize("core", ["compiled", "pure"])
@pytest.mark.parametrize("nonlocal_bind", ["0", "1"])
def test_the_routing_table_knows_and_bind_is_not_asked(
    lab: Lab, node: Host, survivor: Host, core: str, nonlocal_bind: str
) -> None:
    lab.link(node, survivor, [], ["10.0.0.2/24", "fd00::2/64", "fe80::2/64"])
    lab.link(node, survivor)
    survivor.tool("ip", "route", "add", "local", "10.7.0.0/16", "dev", "lo")
    survivor.tool("ip", "-6", "route", "add", "local", "fd07::/64", "dev", "lo")
    for family in ("ipv4", "ipv6"):
        survivor.set_sysctl(f"net/{family}/ip_nonlocal_bind", nonlocal_bind)
    done = survivor.run(
        [sys.executable, "-c", PROGRAM, *OWN, *OTHERS, "127.0.0.1", "127.1.2.3", "::1"],
        env={"KDUMPFENCE_PURE": "1" if core == "pure" else "0"},
        check=True,
    )
    assert done.stdout.splitlines() == [
        *(f"{text} True True" for text in OWN),
        *(f"{text} False False" for text in OTHERS),
        *(f"{text} True False" for text in ("127.0.0.1", "127.1.2.3", "::1")),
    ]


class Bound:
    """_socket for a process whose sockets belong to a VRF's device, as under `ip vrf exec`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def socket(self, *_: int) -> Any:
        bound = self

        class Sock:
            def getsockopt(self, level: int, option: int) -> int:
                assert (level, option) == (socket.SOL_SOCKET, 62)
                return bound.device

            def close(self) -> None:
                pass

        return Sock()

    device = 7


def test_in_a_vrf_its_own_routing_table_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find_route(packed: bytes, scope: int) -> tuple[int, bytes, bytes, bool, bool]:
        asked.append(scope)
        return 0, b"", b"", True, True

    monkeypatch.setattr(own_addresses, "_socket", Bound())
    monkeypatch.setattr(own_addresses, "find_route", find_route)
    assert is_own(Address(bytes([10, 0, 0, 1])))
    assert is_own(Address(socket.inet_pton(socket.AF_INET6, "fe80::1"), 3))
    assert asked == [7, 3]
