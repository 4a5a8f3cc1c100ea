# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGHUP: the settings file is read again while the daemon runs.

What may not be in this file: what the daemon does with new settings (`in_force`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from kdumpfence.daemon.errors import DaemonError, starting_threads
from kdumpfence.daemon.settings import Settings
from kdumpfence.daemon.settings_file import SettingsError, load


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
