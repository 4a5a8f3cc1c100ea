# SPDX-License-Identifier: LGPL-2.1-or-later
"""The settings in force: what of new ones is done at once, and what waits for a restart.

What may not be in this file: how the settings file is read again (`reload`), and what is in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from kdumpfence.daemon import counting
from kdumpfence.daemon.formats import many
from kdumpfence.daemon.health import Health
from kdumpfence.daemon.keyring import Keyring
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.recorder import Recorder
from kdumpfence.daemon.reload import Result
from kdumpfence.daemon.settings import KEYS, Settings, changes
from kdumpfence.daemon.told import Told
from kdumpfence.keys import KeyFileError
from kdumpfence.listener.events import Dump
from kdumpfence.listener.listener import Listener

#: Faults of a settings file that the log tells; a journal that gets a hundred thousand lines
#: at once would leave out the last one, which says what follows from them.
MOST_FAULTS = 50

Nodes = Mapping[str, tuple[str, ...]]


class SettingsInForce:
    """The settings with which the daemon started, and what became of them.

    `way`: who counts messages, as `counting.load` found it.
    """

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        told: Told,
        journal: Journal,
        recorder: Recorder,
        health: Health,
        keyring: Keyring,
        way: counting.Way,
    ) -> None:
        self.settings = settings
        self._listener = listener
        self._told = told
        self._journal = journal
        self._recorder = recorder
        self._health = health
        self._keyring = keyring
        self._way = way

    def proof(self, dump: Dump) -> str:
        """How the dump is known to be this node's."""
        if not dump.heard:
            return "history"  # nothing was heard of it since the start
        if self._keyring.cluster is not None:
            return "signature"
        return "address" if dump.node in self.settings.nodes else "network"

    def apply(self, result: Result) -> bool:
        """Go over to these settings, or say what is wrong with them; whether they are in force."""
        self._health.settings_refused = result.settings is None
        if result.settings is None:
            self._refuse(result.faults)
            return False
        self._use(result.settings)
        return True

    def _refuse(self, faults: list[str]) -> None:
        for fault in faults[:MOST_FAULTS]:
            self._journal.say("error", fault)
        left = len(faults) - MOST_FAULTS
        if left > 0:
            self._journal.say("error", f"and {many(left, 'fault', 'faults')} more: see --check")
        self._journal.say("error", "settings refused: keeping the previous ones")

    def _use(self, new: Settings) -> None:
        old = self.settings
        at_once, after_restart = changes(old, new)
        kept = {key.attribute: getattr(old, key.attribute) for key in KEYS if key.restart}
        nodes, said = _follow_nodes(
            self._listener, old.nodes, new.nodes, self._told, self._journal.say
        )
        self.settings = dataclasses.replace(new, **kept, nodes=nodes)
        if at_once:
            said.append(f"{', '.join(at_once)} changed")
        self._journal.level, self._journal.lines = new.log_level, new.log_lines
        self._listener.tell_repeats = wants_repeats(self.settings, self._journal)
        self._recorder.most = new.history_most
        said += self._reload_keys()
        answer, keys = self._keyring.answers(self.settings)
        if answer is not None:
            self._listener.answer_as(answer, keys)
        if nodes != old.nodes:
            self._recorder.named = nodes
            self._recorder.mark()
            counting.check_room(self._way, self.settings, self._journal.say)
        self._journal.say("info", "settings reloaded: " + ("; ".join(said) or "no change"))
        if after_restart:
            what = ", ".join(after_restart)
            self._journal.say("warning", f"settings: {what} changed: takes effect after a restart")

    def _reload_keys(self) -> list[str]:
        """Read the keys again that messages have to be signed with; what is new, in words."""
        self._health.keys_refused = False
        try:
            found = self._keyring.reload(self.settings.key_file)
        except KeyFileError as error:
            self._health.keys_refused = True
            self._journal.say("error", f"{error}; keeping the previous keys")
            return []
        if found is None:
            return []
        numbers = self._listener.reload_keys(found)
        return [f"keys {' and '.join(f'{number:08x}' for number in numbers)}"]


def wants_repeats(settings: Settings, journal: Journal) -> bool:
    """That dumps go on: for the log, and for the database, which learns it no other way."""
    return journal.shows("debug") or bool(settings.history_database)


def _follow_nodes(
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
