# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps and events as JSON, written by hand: there may be a hundred thousand in a second.

It is what `json.dumps` makes of `status.dump_object`, in a third of the time; a test compares
them. What may not be in this file: which of them are told.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quoted

from kdumpfence.listener.events import MOST_ADDRESSES, Dump, Event, length

__all__ = ["dump_text", "end_text", "event_text", "members", "quoted"]


def members(dump: Dump | Event) -> str:
    """The members of `status.dump_object`."""
    # The longest is to write a number with all its digits, and most have just begun.
    since, last, took = dump.since, dump.last, length(dump)
    first = repr(since)
    addresses = ", ".join([quoted(one) for one in dump.addresses[:MOST_ADDRESSES]])
    return (
        f'"node": {quoted(dump.node)}, "since": {first}, '
        f'"last": {first if last == since else repr(last)}, '
        f'"messages": {dump.messages}, "addresses": [{addresses}], '
        f'"took": {repr(round(took, 3)) if took else "0.0"}, "port": {dump.port}'
    )


def dump_text(dump: Dump, proof: str, recorded: bool) -> str:
    """A dump under way."""
    return (
        f'{{{members(dump)}, "age": {round(dump.age, 3)!r}, "proof": "{proof}", '
        f'"recorded": {"true" if recorded else "false"}}}'
    )


def end_text(event: Event) -> str:
    """A dump that is over."""
    return f'{{{members(event)}, "end": "{event.kind}", "ended": {event.when!r}}}'


def event_text(number: int, event: Event) -> str:
    """What began or ended."""
    kind, at = event.kind, event.when
    return f'{{"number": {number}, "kind": "{kind}", "at": {at!r}, {members(event)}}}'
