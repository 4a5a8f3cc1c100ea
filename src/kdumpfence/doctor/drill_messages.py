# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the node says of its dump, heard beside everybody who waits for the same.

The sockets are the agent's: raw ones, which get copies, whoever has the port, and take nothing from
anybody. Without the right to those nothing is heard: UDP sockets would take messages away from an
agent that waits.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator

from kdumpfence import addresses
from kdumpfence.addresses import Address, LookUpError, socket_families
from kdumpfence.agent.decision import Signatures
from kdumpfence.agent.options import AgentOptions
from kdumpfence.agent.signed import read_signatures
from kdumpfence.agent.sockets import Listening, PortError
from kdumpfence.cmdline import OptionError
from kdumpfence.doctor import corosync, listeners
from kdumpfence.doctor.drill import Target
from kdumpfence.doctor.drill_course import DUMPED, HEARD, Event
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.own_addresses import is_own
from kdumpfence.wire import Arrival, decode_packet, encode

#: Batches that are read of each socket at a time.
_READS = 64

#: Seconds between two looks, so that a flood does not keep a processor busy.
_REST = 0.1


class Messages:
    """Hears one node. Raises Unknown if nothing can be heard."""

    def __init__(self, machine: Machine, its: Target) -> None:
        asked = its.asked or _nothing_asked(its.node)
        if listeners.is_elsewhere(asked.listener):
            raise Unknown(f"the agent has {asked.listener} listen, not this machine")
        self._signatures = _signatures(asked)
        names = self._signatures.names if self._signatures and asked.auth != "none" else None
        families = socket_families(asked.family)
        _raw_sockets_allowed(families)
        try:
            self._listening = Listening(asked.ipport, families, names=names)
        except PortError as error:
            raise Unknown(str(error)) from None
        if not self._listening.raw:
            self._listening.close()
            raise Unknown(self._listening.obstacle or "no raw sockets here")
        self._node = its.node
        self._listening.add(_known(machine, its, asked))
        self._looked = 0.0

    def close(self) -> None:
        """Hear no more."""
        self._listening.close()

    def wait(self, seconds: float) -> None:
        """Until something came that may be a message, but not longer."""
        end = time.monotonic() + seconds
        time.sleep(max(0.0, min(seconds, self._looked + _REST - time.monotonic())))
        poller = select.poll()
        for fd in self._listening.census_fds:
            poller.register(fd, select.POLLIN)
        poller.poll(max(0.0, end - time.monotonic()) * 1000)

    def heard(self) -> Iterator[Event]:
        """What came since; times are Unix times."""
        self._looked = time.monotonic()
        if self._listening.changed():
            self._listening.moved()
        ahead = time.time() - time.monotonic()
        for arrival in self._listening.look(_READS, _READS):
            address = Address(arrival.packed, arrival.scope)
            own = not address.loopback and is_own(address)
            if self._listening.believes(arrival.interface) and not own:
                yield from self._told(arrival, str(address), arrival.when_ns * 1e-9 + ahead)

    def _told(self, arrival: Arrival, address: str, when: float) -> Iterator[Event]:
        data = encode(arrival.message.byteorder) + arrival.message.trailer
        packet = decode_packet(data)
        if packet is None or packet.kind != "status":
            yield Event(HEARD, when, address, text="plain")
            return
        grade = "plain"
        if packet.key_id:
            why = self._signatures.why_not(data) if self._signatures else "no key"
            grade = f"signed with key {packet.key_id:08x}"
            grade += f", not believed ({why})" if why else ""
        yield Event(HEARD, when, address, text=grade)
        if packet.state in ("finished", "failed"):
            yield Event(DUMPED, when, address, text=packet.state)

    @property
    def strangers(self) -> list[str]:
        """Where messages came from that are not the node's."""
        return [str(Address(packed, scope)) for packed, scope in self._listening.strangers]


def _raw_sockets_allowed(families: tuple[int, ...]) -> None:
    """Raise Unknown where the agent would share the port instead."""
    try:
        socket.socket(families[0], socket.SOCK_RAW, socket.IPPROTO_UDP).close()
    except OSError as error:
        hint = " (needs root)" if os.geteuid() else ""
        raise Unknown(f"raw socket: {error.strerror}{hint}") from None


def _nothing_asked(node: str) -> AgentOptions:
    """What to listen for where no agent is told anything."""
    asked = AgentOptions()
    asked.called = (node,)
    return asked


def _signatures(asked: AgentOptions) -> Signatures | None:
    """By what the node's signatures are judged; None without a key."""
    with contextlib.suppress(OptionError):
        return read_signatures(asked)
    return None


def _known(machine: Machine, its: Target, asked: AgentOptions) -> list[Address]:
    """The node's addresses: those that the device knows, and those of its rings."""
    found: dict[Address, None] = {}
    for name in (*asked.names, *its.rings):
        for one in corosync.resolve(machine, name):
            with contextlib.suppress(LookUpError):
                its_own = addresses.literal(one, addresses.FAMILIES[asked.family])
                found.update(dict.fromkeys(its_own or ()))
    return list(found)
