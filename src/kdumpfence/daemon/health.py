# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is wrong with the daemon at the moment: logged when it begins, told to whoever asks.

What may not be in this file: how any of it is found out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdumpfence.daemon.formats import many
from kdumpfence.daemon.http import Pages
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.recorder import Recorder
from kdumpfence.listener.listener import Snapshot

if TYPE_CHECKING:
    from kdumpfence.daemon.forwarder import Forwarder

#: Seconds without a round of the main loop after which it is not well.
STUCK_AFTER = 10.0


class Health:
    """Of a daemon with this log and this recorder, which may hand on to a database."""

    def __init__(
        self, journal: Journal, recorder: Recorder, forwarder: Forwarder | None = None
    ) -> None:
        self._journal = journal
        self._recorder = recorder
        self._forwarder = forwarder
        #: Those for metrics and for questions over HTTP, as far as there are any.
        self.pages: list[Pages] = []
        #: Whether the settings file was refused when it was last read.
        self.settings_refused = False
        #: Whether the same goes for the key file.
        self.keys_refused = False
        #: Why messages may not reach the daemon, and what was the reason at the last look.
        self.deaf = self._deaf_before = ""
        self._shared: Sequence[str] = ()
        self._own: Sequence[str] = ()
        self._asked_for = ""
        self._beat = time.monotonic()

    def beat(self) -> None:
        """The main loop has gone round."""
        self._beat = time.monotonic()

    def trouble(self) -> str:
        """What keeps the daemon from its work, in a line; "" if all is well. From any thread."""
        return self.doubt() or self._history()

    def doubt(self) -> str:
        """Why a dump may have been missed, in a line; "" if nothing is known of that. As above."""
        silent = time.monotonic() - self._beat
        if silent > STUCK_AFTER:
            return f"the main loop has been stuck for {silent:.0f} s"
        return self.deaf

    def troubles(self) -> list[str]:
        """All that is wrong, a line each."""
        troubles = [
            self.trouble(),
            self.deaf,
            *(pages.trouble for pages in self.pages),
            self._history(),
            self._database(),
            "settings refused: keeping the previous ones" if self.settings_refused else "",
            "key file refused: keeping the previous keys" if self.keys_refused else "",
        ]
        return [trouble for trouble in dict.fromkeys(troubles) if trouble]

    def _history(self) -> str:
        return f"history: {self._recorder.trouble}" if self._recorder.trouble else ""

    def _database(self) -> str:
        """Which does not keep the daemon from its work."""
        forwarder = self._forwarder
        if forwarder is None or not forwarder.trouble:
            return ""
        waiting = many(forwarder.waiting, "event waits", "events wait")
        return f"database: {forwarder.trouble}; {waiting}"

    def look(self, now: Snapshot) -> None:
        """Log what has changed."""
        if now.shared != self._shared:
            self._shared = now.shared
            self._ignore(
                "warning", now.shared, "belongs to several nodes", "belong to several nodes"
            )
        if now.own != self._own:
            self._own = now.own
            self._ignore(
                "info", now.own, "is an address of this machine", "are addresses of this machine"
            )
        # Once, whatever else is asked for: anybody can ask for anything.
        if now.asked_for and not self._asked_for:
            self._journal.say(
                "warning",
                f"asked for node '{now.asked_for}', but this one answers as '{now.answers_as}': "
                "set node if it is the same",
            )
        self._asked_for = now.asked_for
        # At the second look: a process that was stopped looks deaf until it has read again.
        if now.deaf == self._deaf_before != self.deaf:
            self.deaf = now.deaf
            if now.deaf:
                self._journal.say("error", f"messages may be missed: {now.deaf}")
            else:
                self._journal.say("warning", "messages are heard again")
        self._deaf_before = now.deaf

    def _ignore(self, level: str, addresses: Sequence[str], is_: str, are: str) -> None:
        if addresses:
            shown = ", ".join(addresses[:10]) + ", ..." * (len(addresses) > 10)
            what = f"{is_}; ignoring it" if len(addresses) == 1 else f"{are}; ignoring them"
            self._journal.say(level, f"{shown} {what}")
