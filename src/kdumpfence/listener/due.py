# SPDX-License-Identifier: LGPL-2.1-or-later
"""When to look after which node: a queue that costs nothing when a message comes.

A message does not touch it, which would cost more than all the rest: who looks moves the node on.
What may not be in this file: what there is to see.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator


class Due:
    """Nodes, each with a time at which somebody has to look at the latest; once at most."""

    def __init__(self) -> None:
        # Of a node's entries that one counts whose time is in `_queued`.
        self._queue: list[tuple[float, str]] = []
        self._queued: dict[str, float] = {}
        # Whom somebody else looks after.
        self._watched: set[str] = set()

    def put(self, node: str, due: float) -> None:
        """To be looked at then, unless it is watched."""
        # There may be an entry of a dump that was forgotten; if it is early enough, it will do.
        if node not in self._watched and self._queued.get(node, math.inf) > due:
            self._queued[node] = due
            heapq.heappush(self._queue, (due, node))

    def watch(self, node: str, watched: bool) -> bool:
        """Whether somebody else looks after this node; returns whether it is to be `put` again."""
        if watched:
            self._watched.add(node)
        elif node in self._watched:
            self._watched.discard(node)
            return True
        return False

    def is_watched(self, node: str) -> bool:
        """Whether somebody else looks after this node."""
        return node in self._watched

    def until(
        self, now: float, most: int | None, over: Callable[[str, bool], float]
    ) -> Iterator[str]:
        """The nodes that are due by `now`, first those that are longest; they leave the queue.

        No more than `most` are looked at, if it is given. `over(node, asking)` says when a node is
        due: first what is known, then, if that is now, asking for whatever else there is.
        """
        queue, queued = self._queue, self._queued
        looked = 0
        while queue and queue[0][0] <= now and looked != most:
            looked += 1
            due, node = first = queue[0]
            if queued.get(node) != due or node in self._watched:
                heapq.heappop(queue)
                if queued.get(node) == due:  # else an earlier one took its place
                    del queued[node]
                continue
            when = over(node, False)
            if when <= due:
                when = over(node, True)
                if queue[0] is not first:  # something came to light that is to be seen to before
                    continue
            if when > due:
                queued[node] = when
                heapq.heapreplace(queue, (when, node))
                continue
            heapq.heappop(queue)
            del queued[node]
            yield node

    @property
    def first(self) -> float | None:
        """When to look at the next one; None: at none."""
        return self._queue[0][0] if self._queue else None

    def clear(self) -> None:
        """There is nobody to look after any more."""
        self._queue.clear()
        self._queued.clear()
        self._watched.clear()
