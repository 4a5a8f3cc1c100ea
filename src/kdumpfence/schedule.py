# SPDX-License-Identifier: GPL-2.0-or-later
"""The sender's decision: who is sent the next message when, and when it is enough.

A plain object without sockets or clock: it is told what left and what failed and at what
time (seconds of any monotonic clock), and answers what is due. Everything about the
rhythm of the messages must live here, in this file.

A message counts when it left this machine. One that the kernel took and then could not
deliver to the link (no answer to ARP, say) did not leave: `lost` takes it back.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

#: Without a count, that many messages come EARLY_GAP apart before the interval begins:
#: a lost datagram then costs the cluster a second, not ten.
EARLY_MESSAGES = 10
EARLY_GAP = 1.0

#: What could not be sent is tried again after RETRY_FIRST seconds, and when that has
#: not helped for RETRY_PATIENCE seconds, after RETRY_LAST (the interval if it is shorter).
RETRY_FIRST = 0.1
RETRY_PATIENCE = 60.0
RETRY_LAST = 1.0

#: With a count, as long as nobody at all was reached the network is held to be late, and
#: it is waited for at least so many seconds: an agent's default wait.
LATE_NETWORK = 60.0


class Destination:
    """One address of a node, and how far its messages are."""

    __slots__ = ("due", "failing_since", "key", "left", "nodes")

    def __init__(self, key: Hashable, node: str, due: float) -> None:
        self.key = key
        #: The nodes that have this address: two names may be one machine.
        self.nodes = [node]
        self.due = due
        #: Messages that left.
        self.left = 0
        self.failing_since: float | None = None


class Schedule:
    """When to send to whom: `count` messages (0: without end), `interval` seconds apart."""

    def __init__(self, nodes: tuple[str, ...], count: int, interval: float, now: float) -> None:
        self.count = count
        self.interval = interval
        self.started = now
        self.destinations: dict[Hashable, Destination] = {}
        self._open = set(nodes)

    def give_up(self, node: str) -> None:
        """Do not wait for this node: it will never have an address."""
        self._open.discard(node)

    @property
    def _patience_ends(self) -> float:
        """When a node that was not reached is given up (only with a count)."""
        patience = self.count * self.interval
        return self.started + (patience if self.reached else max(patience, LATE_NETWORK))

    def add(self, key: Hashable, node: str, now: float) -> bool:
        """A node has this address; whether it is a new one. It is due at once."""
        known = self.destinations.get(key)
        if known is not None:
            if node not in known.nodes:
                known.nodes.append(node)
            return False
        self.destinations[key] = Destination(key, node, now)
        return True

    def _done(self, destination: Destination) -> bool:
        return bool(self.count) and destination.left >= self.count

    def due(self, now: float) -> list[Destination]:
        """Who is to be sent a message now."""
        return [d for d in self.destinations.values() if d.due <= now and not self._done(d)]

    def left(self, destination: Destination, now: float) -> None:
        """A message left for there."""
        destination.left += 1
        destination.failing_since = None
        gap = self.interval
        if not self.count and destination.left <= EARLY_MESSAGES:
            gap = min(gap, EARLY_GAP)
        # Counted from when it was due, so that the rhythm does not drift; but what
        # could not be sent in time is not made up for.
        destination.due = max(destination.due + gap, now + gap / 2)

    def failed(self, destination: Destination, now: float) -> None:
        """No message could leave for there."""
        if destination.failing_since is None:
            destination.failing_since = now
        gap = RETRY_FIRST
        if now - destination.failing_since >= RETRY_PATIENCE:
            gap = min(RETRY_LAST, self.interval)
        destination.due = now + gap

    def lost(self, key: Hashable, now: float) -> Destination | None:
        """A message that seemed to have left did not; None if nothing is known of it."""
        destination = self.destinations.get(key)
        if destination is None or destination.left == 0:
            return None
        destination.left -= 1
        destination.due = min(destination.due, now + min(RETRY_LAST, self.interval))
        return destination

    @property
    def reached(self) -> set[str]:
        """The nodes that a message left for."""
        return {node for d in self.destinations.values() if d.left for node in d.nodes}

    def next_due(self, now: float) -> float | None:
        """When something is to be done next; None: only when an address is added."""
        times = [d.due for d in self.destinations.values() if not self._done(d)]
        if self.count and self._patience_ends > now:
            times.append(self._patience_ends)
        return min(times, default=None)

    def finished(self, now: float) -> bool:
        """Whether every node has had its messages, or need not be waited for any more.

        With a count: a node that was ever reached is owed all its messages, at each
        address that was reached. One that never was is given up after `count` intervals;
        while none was, not before LATE_NETWORK seconds either. Without a count it ends
        only if there is nobody to be told.
        """
        if not self._open:
            return True
        if not self.count or any(0 < d.left < self.count for d in self.destinations.values()):
            return False
        return now >= self._patience_ends or self.reached >= self._open
