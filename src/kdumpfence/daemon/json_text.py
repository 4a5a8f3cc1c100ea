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
    return _members(dump, repr(dump.since))


def _members(dump: Dump | Event, first: str) -> str:
    """The same, with the text of its `since`.

    The longest is to write a number with all its digits, and most dumps have just begun.
    """
    since, last = dump.since, dump.last
    took = dump.took or (0.0 if last == since else length(dump))
    addresses = ", ".join(map(quoted, dump.addresses[:MOST_ADDRESSES]))
    return (
        f'"node": {quoted(dump.node)}, "since": {first}, '
        f'"last": {first if last == since else repr(last)}, '
        f'"messages": {dump.messages}, "addresses": [{addresses}], '
        f'"took": {repr(round(took, 3)) if took else "0.0"}, "port": {dump.port}'
    )


def dump_text(dump: Dump, proof: str, recorded: bool) -> str:
    """A dump under way."""
    return (
        f'{{{members(dump)}, "age": {dump.age:.3f}, "proof": "{proof}", '
        f'"recorded": {"true" if recorded else "false"}}}'
    )


def end_text(event: Event) -> str:
    """A dump that is over."""
    return f'{{{members(event)}, "end": "{event.kind}", "ended": {event.when!r}}}'


def event_text(number: int, event: Event) -> str:
    """What began or ended."""
    since, at = event.since, event.when
    first = repr(since)
    return (
        f'{{"number": {number}, "kind": "{event.kind}", '
        f'"at": {first if at == since else repr(at)}, {_members(event, first)}}}'
    )
