# SPDX-License-Identifier: LGPL-2.1-or-later
"""Classic BPF programs that let the kernel drop what is no message, or cannot be a node's.

Two jobs:

- A *fence* around the queue. A datagram that a socket filter drops takes no room in the receive
  queue and costs no processor time of ours, so a flood of rubbish cannot push the one true
  message out. Here a filter only ever drops what the receive loop would reject as well.
- The *guard*. Any user of this machine can send with a node's IPv6 address as the source
  (IPV6_FREEBIND needs no right). What this machine sent itself is never a node's message,
  and only a filter can see that it did: the receive loop is told the interface that has the
  address which was sent to. Every program here begins with the guard.

Offset 0 of a filter on a UDP socket and on a raw IPv6 socket is the UDP header, on a
raw IPv4 socket the IP header. A load behind the end of the datagram drops it.
Sources: linux/filter.h, Documentation/networking/filter.rst; what the guard looks at was found out
by trial: tests/system/network/test_own_datagrams.py, tests/system/guest.
"""

from __future__ import annotations

import sys

from kdumpfence.wire import MAGIC, MESSAGE_SIZE, PACKET_BYTES, VERSION, attach_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterable, Mapping, Sequence

    from kdumpfence.addresses import Address

_LD_W_ABS, _LD_H_ABS, _LD_B_ABS = 0x20, 0x28, 0x30
_LD_W_IND, _LD_H_IND = 0x40, 0x48
_LDX_MSH = 0xB1  # X = length of the IPv4 header at this offset
_TAX = 0x07
_AND = 0x54
_JEQ, _JGE, _JEQ_X = 0x15, 0x35, 0x1D
_RET = 0x06
_KEEP, _DROP = 0xFFFFFFFF, 0
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF: offsets from the IP header
_LINK_HEADER = 0xFFE00000  # SKF_LL_OFF: from the Ethernet header
_PACKET_TYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE
_INTERFACE = 0xFFFFF008  # SKF_AD_OFF + SKF_AD_IFINDEX

_PACKET_HOST, _PACKET_LOOPBACK = 0, 5

#: The interface index of lo, in every network namespace (LOOPBACK_IFINDEX).
_LO = 1

#: The kernel takes 4096, but an instruction of ours takes up to 30 bytes of its memory, of which
#: net.core.optmem_max allows 128 KiB (before Linux 6.8, 20 KiB).
_MOST_INSTRUCTIONS = 3700

#: Of so many VRFs at most a filter keeps datagrams out; 2 instructions each.
MOST_VRFS = 1000

#: Bytes of a datagram that a UDP socket keeps: its header, so that it is empty.
CUT = 8

#: What a question begins with.
QUESTION_HEAD = b"KDFQUEST"

Instruction = tuple[int, int, int, int]


def _word(data: bytes) -> int:
    """The first four bytes, as a filter loads them."""
    return int.from_bytes(data[:4], "big")


def _swap(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "big"), "little")


def _guard(vrfs: Sequence[int], inside: bool, refused: int) -> list[Instruction]:
    """Refuse what this machine sent itself, what came through a VRF, and IPv4 that is IPv6.

    Over lo comes what local programs send to this machine's own addresses: there only loopback
    addresses may be the source, and nowhere else. Copies of multicasts and broadcasts of
    its own come over the interface that they left by, marked as such. Inside a VRF neither
    is so: there its own unicasts have the VRF's Ethernet address on both ends, and
    its own multicasts say that they were sent to this host alone.

    An IPv6 header may name an IPv4-mapped source: no sender does so, the kernel lets it through,
    and it would count as the IPv4 node, past what keeps forged IPv4 out.
    """
    lines: list[tuple[int, str | int, str | int, int] | str] = [(_LD_W_ABS, 0, 0, _INTERFACE)]
    for index in vrfs[:MOST_VRFS]:
        lines += [(_JEQ, 0, 1, index), (_RET, 0, 0, _DROP)]
    lines += [
        (_LD_B_ABS, 0, 0, _NETWORK_HEADER),
        (_AND, 0, 0, 0xF0),
        (_JEQ, "IPv4", 0, 0x40),
        (_LD_W_ABS, 0, 0, _NETWORK_HEADER + 8),
        (_JEQ, 0, "far", 0),
        (_LD_W_ABS, 0, 0, _NETWORK_HEADER + 12),
        (_JEQ, 0, "far", 0),
        (_LD_W_ABS, 0, 0, _NETWORK_HEADER + 16),
        (_JEQ, 0, "mapped", 0),
        (_LD_W_ABS, 0, 0, _NETWORK_HEADER + 20),
        (_JEQ, "loopback", "far", 1),
        "mapped",
        (_JEQ, "refused", "far", 0xFFFF),
        "IPv4",
        (_LD_B_ABS, 0, 0, _NETWORK_HEADER + 12),
        (_JEQ, 0, "far", 127),
        "loopback",
        (_LD_W_ABS, 0, 0, _INTERFACE),
        (_JEQ, "good", "refused", _LO),
        "far",
        (_LD_W_ABS, 0, 0, _INTERFACE),
        (_JEQ, "refused", 0, _LO),
        (_LD_W_ABS, 0, 0, _PACKET_TYPE),
        (_JEQ, "refused", 0 if inside else "good", _PACKET_LOOPBACK),
    ]
    if inside:
        lines += [
            (_JEQ, 0, "links", _PACKET_HOST),
            (_LD_B_ABS, 0, 0, _NETWORK_HEADER),
            (_AND, 0, 0, 0xF0),
            (_JEQ, "to IPv4", 0, 0x40),
            (_LD_B_ABS, 0, 0, _NETWORK_HEADER + 24),
            (_JEQ, "refused", "links", 0xFF),
            "to IPv4",
            (_LD_B_ABS, 0, 0, _NETWORK_HEADER + 16),
            (_AND, 0, 0, 0xF0),
            (_JEQ, "refused", 0, 0xE0),
            "links",
            (_LD_W_ABS, 0, 0, _LINK_HEADER),
            (_TAX, 0, 0, 0),
            (_LD_W_ABS, 0, 0, _LINK_HEADER + 6),
            (_JEQ_X, 0, "good", 0),
            (_LD_H_ABS, 0, 0, _LINK_HEADER + 4),
            (_TAX, 0, 0, 0),
            (_LD_H_ABS, 0, 0, _LINK_HEADER + 10),
            (_JEQ_X, "refused", "good", 0),
        ]
    lines += ["refused", (_RET, 0, 0, refused), "good"]
    return _assembled(lines)


def _assembled(
    lines: Iterable[tuple[int, str | int, str | int, int] | str],
) -> list[Instruction]:
    """With labels, which are strings, turned into distances."""
    code: list[tuple[int, str | int, str | int, int]] = []
    at: dict[str | int, int] = {}
    for line in lines:
        if isinstance(line, str):
            at[line] = len(code)
        else:
            code.append(line)

    def distance(here: int, target: str | int) -> int:
        return target if isinstance(target, int) else at[target] - here - 1

    return [
        (operation, distance(here, true), distance(here, false), value)
        for here, (operation, true, false, value) in enumerate(code)
    ]


def program(
    kind: str,
    port: int,
    *,
    messages_only: bool = False,
    and_questions: bool = False,
    sources: Iterable[Address] | None = None,
    packets: Iterable[Mapping[int, bytes]] | None = None,
    questions: bool = True,
    vrfs: Sequence[int] = (),
    inside: bool = False,
    refused: int = _DROP,
) -> list[Instruction]:
    """A filter for a socket of `kind` "udp", "raw4" or "raw6".

    Keeps datagrams to `port` that this machine did not send itself; with `messages_only` those
    that begin with a message in either byte order, and, with `and_questions` (UDP sockets only),
    what may be a question; with `sources` (raw sockets only, a UDP socket
    is connected instead) those that come from one of these addresses; with `packets`, instead of
    that, packets that have the bytes of one of these at its offsets, which are a multiple of four
    bytes each; without `questions` no question; none that came through
    one of `vrfs` (interface indexes of VRFs, as far as there is room). `inside` tells that the
    socket hears VRFs, where this machine's own datagrams look otherwise. `refused` is how many
    bytes are kept of what the machine sent itself: 0, or CUT on UDP sockets.
    """
    if kind == "udp" and sources is not None:
        raise ValueError("sources are for raw sockets")
    if packets is not None and sources is not None:
        raise ValueError("sources or packets, not both")
    if and_questions and kind != "udp":
        raise ValueError("questions are for UDP sockets")
    if and_questions and not (messages_only and questions):
        raise ValueError("and_questions: only with messages_only, and with questions")
    raw4 = kind == "raw4"
    word, half = (_LD_W_IND, _LD_H_IND) if raw4 else (_LD_W_ABS, _LD_H_ABS)
    code = _guard(vrfs, inside, refused)
    if raw4:
        code.append((_LDX_MSH, 0, 0, 0))
    if kind != "udp":
        code += [(half, 0, 0, 2), (_JEQ, 1, 0, port), (_RET, 0, 0, _DROP)]
    if and_questions:
        code += [
            (half, 0, 0, 4),
            (_JEQ, 0, 7, 8 + PACKET_BYTES),
            (word, 0, 0, 8),
            (_JEQ, 0, 5, _word(QUESTION_HEAD)),
            (word, 0, 0, 12),
            (_JEQ, 0, 3, _word(QUESTION_HEAD[4:])),
            (word, 0, 0, 16),
            (_JEQ, 0, 1, _word(b"kdf1")),
            (_RET, 0, 0, _KEEP),
        ]
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
    if not questions:
        # Longer than the UDP header says is what the IP packet carries behind it.
        code += [
            (half, 0, 0, 4),
            (_JEQ, 0, 5, 8 + PACKET_BYTES),
            (word, 0, 0, 8),
            (_JEQ, 0, 3, _word(QUESTION_HEAD)),
            (word, 0, 0, 12),
            (_JEQ, 0, 1, _word(QUESTION_HEAD[4:])),
            (_RET, 0, 0, _DROP),
        ]
    if packets is not None:
        return code + _choose(packets, half, word, _MOST_INSTRUCTIONS - len(code))
    length = 4 if raw4 else 16
    at = _NETWORK_HEADER + (12 if raw4 else 8)
    chosen = None if sources is None else [a for a in sources if len(a.packed) == length]
    # Each address takes two instructions a word and one more, all together one.
    if chosen is None or len(code) + (length // 2 + 1) * len(chosen) + 1 > _MOST_INSTRUCTIONS:
        code.append((_RET, 0, 0, _KEEP))
        return code
    for address in chosen:
        words = [_word(address.packed[i:]) for i in range(0, length, 4)]
        for number, value in enumerate(words):
            # A word that differs jumps over the rest of this address.
            code.append((_LD_W_ABS, 0, 0, at + 4 * number))
            code.append((_JEQ, 0, 2 * (len(words) - number) - 1, value))
        code.append((_RET, 0, 0, _KEEP))
    code.append((_RET, 0, 0, _DROP))
    return code


def _choose(
    packets: Iterable[Mapping[int, bytes]], half: int, word: int, room: int
) -> list[Instruction]:
    """Keep packets that look like one of these; all of them if those have no room."""
    code = [(half, 0, 0, 4), (_JEQ, 1, 0, 8 + PACKET_BYTES), (_RET, 0, 0, _DROP)]
    chosen: list[Instruction] = []
    for one in packets:
        words = [
            (at + i, _word(data[i:])) for at, data in one.items() for i in range(0, len(data), 4)
        ]
        for number, (at, value) in enumerate(words):
            # A word that differs jumps over the rest of this one.
            chosen.append((word, 0, 0, 8 + at))
            chosen.append((_JEQ, 0, 2 * (len(words) - number) - 1, value))
        chosen.append((_RET, 0, 0, _KEEP))
        if len(code) + len(chosen) + 1 > room:
            return [*code, (_RET, 0, 0, _KEEP)]
    return [*code, *chosen, (_RET, 0, 0, _DROP)]


def questions(key_id: int = 0) -> list[Instruction]:
    """A filter for a UDP socket that is to hear questions alone, and none of another key.

    `key_id`: 0 lets those of every key pass, and unsigned ones.
    """
    wanted = {0: QUESTION_HEAD, 16: key_id.to_bytes(4, "big") if key_id else b""}
    return _choose([wanted], _LD_H_ABS, _LD_W_ABS, _MOST_INSTRUCTIONS)


def attach(sock: _socket.socket, instructions: list[Instruction]) -> None:
    """Put a filter on the socket, in the place of the one it has. Raises OSError."""
    attach_filter(sock, packed(instructions))


def packed(instructions: Iterable[Instruction]) -> bytes:
    """An array of struct sock_filter."""
    order = sys.byteorder
    return b"".join(
        code.to_bytes(2, order) + bytes((jump_if, jump_else)) + value.to_bytes(4, order)
        for code, jump_if, jump_else, value in instructions
    )


#: A filter for a socket that is not to hear, or not yet.
NOTHING: list[Instruction] = [(_RET, 0, 0, _DROP)]
