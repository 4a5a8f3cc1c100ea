# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGHUP: settings that are read again while the daemon runs, and nodes that come and go with that.

What may not be in this file: what the daemon does with other new settings (`loop`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kdumpfence.daemon.errors import DaemonError, starting_threads
from kdumpfence.daemon.formats import many
from kdumpfence.daemon.settings import Settings
from kdumpfence.daemon.settings_file import SettingsError, load
from kdumpfence.listener.listener import Listener

Nodes = Mapping[str, tuple[str, ...]]


class Result(NamedTuple):
    """What came of reading the file again: settings, or what is wrong with them."""

    settings: Settings | None
    faults: list[str]


class Reload:
    """Reads the settings file again, in a thread: a hundred thousand nodes take seconds.

    `wake` is called from there when there is a `result`.
    """

    def __init__(self, path: str, wake: Callable[[], None]) -> None:
        self._path = path
        self._wake = wake
        self._result: Result | None = None
        #: Set from signal handlers.
        self.wanted = False
        self.under_way = False

    def start(self) -> None:
        """Begin."""
        self.wanted = False
        self.under_way = True
        try:
            with starting_threads():
                threading.Thread(target=self._read, name="settings", daemon=True).start()
        except DaemonError as error:
            self._result = Result(None, [f"{self._path}: {error}"])

    def result(self) -> Result | None:
        """What came of it, once."""
        result, self._result = self._result, None
        if result is not None:
            self.under_way = False
        return result

    def _read(self) -> None:
        try:
            self._result = Result(load(self._path), [])
        except SettingsError as error:
            self._result = Result(None, error.faults)
        except Exception as error:  # a fault of ours must not leave the manager waiting
            self._result = Result(None, [f"{type(error).__name__}: {error}"])
        self._wake()


def follow_nodes(
    listener: Listener,
    before: Nodes,
    wanted: Nodes,
    dumping: Iterable[str],
    say: Callable[[str, str], None],
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Listen for the nodes that are wanted; those it listens for now, and what changed in words.

    What the settings in force do not allow, as an IPv6 address while `family` waits for a
    restart, leaves its node as it was.
    """
    after = {name: addresses for name, addresses in before.items() if name in wanted}
    removed = before.keys() - wanted.keys()
    cut_off = len(removed.intersection(dumping))
    if cut_off:
        one = "removed node was still dumping; reporting it as silent"
        more = "removed nodes were still dumping; reporting them as silent"
        say("warning", f"settings: {many(cut_off, one, more)}")
    for name in removed:
        listener.remove(name)
    for name, addresses in wanted.items():
        if before.get(name) != addresses:
            try:
                listener.add(name, addresses)
            except ValueError as error:
                say("error", f"settings: {error}: takes effect after a restart")
            else:
                after[name] = addresses
    counts = (
        (len(after.keys() - before.keys()), "added"),
        (len(before.keys() - after.keys()), "removed"),
        (sum(before.get(name, to) != to for name, to in after.items()), "changed"),
    )
    return after, [f"{many(count, 'node', 'nodes')} {what}" for count, what in counts if count]
