# SPDX-License-Identifier: LGPL-2.1-or-later
"""The keys that the running daemon uses: those that messages have to be signed with, and its own.

What may not be in this file: where a key comes from (`key`), and what is checked or signed with it.
"""

from __future__ import annotations

from collections.abc import Callable

from kdumpfence.daemon import key
from kdumpfence.daemon.errors import DaemonError
from kdumpfence.daemon.settings import Settings
from kdumpfence.keys import KeyFileError, Keys
from kdumpfence.text import shown
from kdumpfence.wire import is_packet_name


class Keyring:
    """Those of these settings. DaemonError if messages have to be signed and there are no keys."""

    def __init__(self, settings: Settings, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._said = ""
        #: The cluster's keys if messages have to be signed.
        self.cluster: Keys | None = None
        if settings.auth != "none":
            try:
                self.cluster = key.of_cluster(settings.key_file)
            except KeyFileError as error:
                raise DaemonError(str(error)) from None

    def answers(self, settings: Settings) -> tuple[str | None, Keys | None]:
        """As which node questions are answered, and with whose keys; says so if it is news."""
        if not settings.answer:
            return None, None
        name = settings.name
        known = is_packet_name(name)
        if known:
            keys, level, how = key.of_node(settings.key_file, name, self.cluster)
            said = f"answering questions as node '{name}', {how}"
        else:
            keys, level = None, "warning"
            said = f"not answering questions: set node, for {shown(name)} cannot be one's name"
        if said != self._said:
            self._said = said
            self._say(level, said)
        return (name if known else None), keys

    def reload(self, path: str) -> Keys | None:
        """Read the cluster's keys again; None if messages need not be signed.

        KeyFileError if they cannot be had: then those from before stay.
        """
        if self.cluster is not None:
            self.cluster = key.of_cluster(path)
        return self.cluster
