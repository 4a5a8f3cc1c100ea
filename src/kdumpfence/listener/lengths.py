# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump with more messages: what becomes of its times, addresses and sessions.

What may not be in this file: whether messages belong to a dump (`dumps`).
"""

from __future__ import annotations

import math

from kdumpfence.listener.events import MOST_ADDRESSES, MOST_SESSIONS, Dump


def longer(
    dump: Dump,
    base: float | None,
    address: str,
    when: float,
    messages: int,
    port: int,
    said: tuple[int, ...] = (),
) -> Dump:
    """A dump with so many messages more, the last of them at `when`, of these sessions.

    `base`: what a time has more than one of CLOCK_MONOTONIC; None: that is not known.
    """
    node, since, last, before, addresses, took, sessions, its_port, heard = dump
    if address not in addresses and len(addresses) < MOST_ADDRESSES:
        addresses += (address,)
    for session in said:
        if session not in sessions and len(sessions) < MOST_SESSIONS:
            sessions += (session,)
    if when >= last:
        took += when - last
        last, its_port = when, port or its_port
        if base is not None:
            heard = when - base
    return Dump(node, since, last, before + messages, addresses, took, sessions, its_port, heard)


def merged(dump: Dump, other: Dump) -> Dump:
    """The dump with what another one had, which turned out to be a part of it."""
    new = [address for address in other.addresses if address not in dump.addresses]
    sessions = [session for session in other.sessions if session not in dump.sessions]
    later = max(dump, other, key=lambda one: one.last)
    return dump._replace(
        last=later.last,
        messages=dump.messages + other.messages,
        addresses=(*dump.addresses, *new)[:MOST_ADDRESSES],
        took=dump.took + max(0.0, later.last - dump.last),
        sessions=(*dump.sessions, *sessions)[:MOST_SESSIONS],
        port=later.port,
        heard=later.heard,
    )


def check_times(dump: Dump, *others: float | None) -> None:
    """ValueError unless all of them are finite numbers: no order and no sum has others in it."""
    for value in (dump.since, dump.last, dump.took, *others):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"node {dump.node!r}: {value} is not a time")
