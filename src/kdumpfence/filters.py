# SPDX-License-Identifier: GPL-2.0-or-later
"""Classic BPF programs that let the kernel drop what is no message.

A datagram that a socket filter drops takes no room in the receive queue and costs no
processor time of ours, so a flood of rubbish cannot push the one true message out.
A filter only ever drops what the receive loop would reject as well: it is a fence
around the queue, not the judge.

Offset 0 of a filter on a UDP socket and on a raw IPv6 socket is the UDP header, on a
raw IPv4 socket the IP header. A load behind the end of the datagram drops it.
Sources: linux/filter.h, Documentation/networking/filter.rst.
"""

from __future__ import annotations

import sys

from kdumpfence.wire import MAGIC, MESSAGE_SIZE, VERSION, attach_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterable

    from kdumpfence.addresses import Address

_LD_W_ABS, _LD_H_ABS = 0x20, 0x28
_LD_W_IND, _LD_H_IND = 0x40, 0x48
_LDX_MSH = 0xB1  # X = length of the IPv4 header at this offset
_JEQ, _JGE = 0x15, 0x35
_RET = 0x06
_KEEP, _DROP = 0xFFFFFFFF, 0
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF: offsets from the IP header

#: The kernel takes 4096 instructions; an IPv6 address needs 9.
_MOST_ADDRESSES = 400

Instruction = tuple[int, int, int, int]


def _swap(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "big"), "little")


def program(
    kind: str,
    port: int,
    *,
    messages_only: bool = False,
    sources: Iterable[Address] | None = None,
) -> list[Instruction]:
    """A filter for a socket of `kind` "udp", "raw4" or "raw6".

    Keeps datagrams to `port`; with `messages_only` those that begin with a message in
    either byte order; with `sources` (raw sockets only, a UDP socket is connected instead)
    those that come from one of these addresses.
    """
    if kind == "udp" and sources is not None:
        raise ValueError("sources are for raw sockets")
    raw4 = kind == "raw4"
    word, half = (_LD_W_IND, _LD_H_IND) if raw4 else (_LD_W_ABS, _LD_H_ABS)
    code: list[Instruction] = []
    if raw4:
        code.append((_LDX_MSH, 0, 0, 0))
    if kind != "udp":
        code += [(half, 0, 0, 2), (_JEQ, 1, 0, port), (_RET, 0, 0, _DROP)]
    if messages_only:
        code += [
            (half, 0, 0, 4),  # the UDP length counts its own header
            (_JGE, 1, 0, 8 + MESSAGE_SIZE),
            (_RET, 0, 0, _DROP),
            (word, 0, 0, 8),
            (_JEQ, 0, 3, MAGIC),
            (word, 0, 0, 12),
            (_JEQ, 5, 0, VERSION),
            (_RET, 0, 0, _DROP),
            (_JEQ, 0, 2, _swap(MAGIC)),
            (word, 0, 0, 12),
            (_JEQ, 1, 0, _swap(VERSION)),
            (_RET, 0, 0, _DROP),
        ]
    chosen = None if sources is None else list(sources)
    if chosen is None or len(chosen) > _MOST_ADDRESSES:
        code.append((_RET, 0, 0, _KEEP))
        return code
    length = 4 if raw4 else 16
    at = _NETWORK_HEADER + (12 if raw4 else 8)
    for address in chosen:
        if len(address.packed) != length:
            continue
        words = [int.from_bytes(address.packed[i : i + 4], "big") for i in range(0, length, 4)]
        for number, value in enumerate(words):
            # A word that differs jumps over the rest of this address.
            code.append((_LD_W_ABS, 0, 0, at + 4 * number))
            code.append((_JEQ, 0, 2 * (len(words) - number) - 1, value))
        code.append((_RET, 0, 0, _KEEP))
    code.append((_RET, 0, 0, _DROP))
    return code


def attach(sock: _socket.socket, instructions: list[Instruction]) -> None:
    """Put a filter on the socket, in the place of the one it has. Raises OSError."""
    attach_filter(sock, b"".join(_packed(*one) for one in instructions))


def _packed(code: int, jump_if: int, jump_else: int, value: int) -> bytes:
    """A struct sock_filter."""
    order = sys.byteorder
    return code.to_bytes(2, order) + bytes((jump_if, jump_else)) + value.to_bytes(4, order)


#: A filter for a socket that only sends.
NOTHING: list[Instruction] = [(_RET, 0, 0, _DROP)]
