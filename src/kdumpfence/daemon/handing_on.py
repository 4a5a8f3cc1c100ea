# SPDX-License-Identifier: LGPL-2.1-or-later
"""The main loop's part in handing on to the database: who does it, and what became of it.

Nothing here waits for the database. What may not be in this file: what the forwarder's thread does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kdumpfence.daemon.recorder import Recorder
from kdumpfence.daemon.settings import Settings
from kdumpfence.database.connection import DatabaseError

if TYPE_CHECKING:
    from kdumpfence.daemon.forwarder import Forwarder, Listener


def forwarder(
    settings: Settings, recorder: Recorder, in_force: Callable[[], Settings]
) -> Forwarder | None:
    """Who hands on what this recorder writes, not started yet; None if there is no database.

    `in_force`: the settings of that moment, from any thread.
    """
    if not settings.history_database:
        return None
    from kdumpfence.daemon.forwarder import Forwarder, Listener  # nobody else needs it

    def listener() -> Listener:
        """As whom the database knows this daemon."""
        outbox = recorder.outbox
        if outbox is None:
            raise DatabaseError("the history cannot be written, and so nothing be handed on")
        now = in_force()
        return Listener(outbox.identity, now.name, now.silence)

    shows = bool(settings.metrics_port) and settings.metrics_page
    return Forwarder(settings.history_database, settings.history_path, listener, shows=shows)


def look(
    found: Forwarder,
    recorder: Recorder,
    dumping: int,
    trouble: str,
    say: Callable[[str, str], None],
) -> None:
    """Say what came of it, and remove from the file what the database has.

    Others find there what is given here: how many nodes are dumping, and what is wrong.
    """
    for level, text in found.look():
        say(level, text)
    found.figures = found.figures._replace(dumping=dumping, trouble=trouble)
    upto = found.forgettable()
    refused = tuple(found.refused)
    if (upto or found.renumber or refused) and recorder.hand_over(upto, found.renumber, refused):
        found.renumber = 0
        del found.refused[: len(refused)]
