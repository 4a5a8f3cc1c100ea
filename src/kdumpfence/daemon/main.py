# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfenced: listens for a whole cloud, writes down who dumps, and tells it.

It wires the rooms together and decides nothing itself: settings, Listener, History, the log,
metrics, the control socket, and systemd. One rule holds all through: **what happened is written
to the history first, and told only then**, so no event that anybody was told of is lost with a
kill -9. When the history cannot be written, listening goes on; see `Recorder`.

What may not be in this file: sockets of messages, SQL, the form of any output.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from kdumpfence import signals, wire
from kdumpfence._version import __version__
from kdumpfence.addresses import FAMILIES
from kdumpfence.daemon import metrics, privileges, status_socket, systemd
from kdumpfence.daemon.history import PATH as HISTORY
from kdumpfence.daemon.history import History, HistoryError, HistoryInUse
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.settings import (
    DEFAULT_PATH,
    KEYS,
    Settings,
    SettingsError,
    changes,
    load,
    many,
)
from kdumpfence.listener import deafness
from kdumpfence.listener.dumps import Dump, Event, length
from kdumpfence.listener.listener import Listener, Snapshot
from kdumpfence.listener.sockets import open_sockets
from kdumpfence.sockets import deepen
from kdumpfence.text import one_line

if TYPE_CHECKING:
    from types import FrameType

PROGRAM = "kdumpfenced"

#: Seconds: the longest round of the main loop, and after how many without one it is not well.
PULSE = 0.5
STUCK_AFTER = 10.0

#: Events that are written down at a time, about: each time the disk has to confirm it.
BATCH = 32_768

#: Seconds for which they are gathered, at most: there may always be one more.
GATHER = 0.1

#: Seconds between two tries to write to a history that failed: doubled from the first to the
#: last.
RETRY_FIRST = 0.5
RETRY_LAST = 10.0

#: Seconds for which what happened waits for the history before it is told all the same.
HOLD = 2.0

#: Dumps that wait for the history at most. One takes some 500 bytes.
MOST_HELD = 262_144

#: Seconds at the end for writing down what was heard, at most: systemd waits for ten.
LAST_WORDS = 3.0

#: Seconds between two looks at how old what the history holds is.
TRIM_EVERY = 3600.0

#: Seconds between two looks whether its file is still there.
LOOK_EVERY = 1.0

#: Seconds between two tries to have the port for metrics.
METRICS_RETRY = 10.0

#: Faults of a settings file that the log tells; a journal that gets a hundred thousand lines
#: at once would leave out the last one, which says what follows from them.
MOST_FAULTS = 50

#: Dumps under way below which a collection of garbage takes no time worth speaking of.
CALM = 2000


class DaemonError(Exception):
    """Why it cannot work; one line."""


# ------------------------------------------------------------------ the history


class Recorder:
    """The history, and a memory for what it could not take.

    While it fails, what happened is held back: for `HOLD` seconds from everybody, since it may
    be a short lock; then it is told, marked as not recorded, for somebody may have to decide
    whether a node's power is cut, and the next try goes on. Of each dump only the newest is
    held, and of dumps MOST_HELD at most: then those that were held longest are given up, and
    counted; those of nodes that nobody named before all others.
    """

    def __init__(
        self,
        path: str,
        complain: Callable[[str, str], None],
        open_history: Callable[[str], History] = History,
        clock: Callable[[], float] = time.monotonic,
        most_held: int = MOST_HELD,
    ) -> None:
        #: Dumps that the history may have, and the nodes whose dumps go before all others.
        self.most = 1 << 60
        self.named: Container[str] = ()
        self._path = path
        self._complain = complain
        self._open_history = open_history
        self._clock = clock
        self._most_held = most_held
        self._history: History | None = None
        self._held: dict[tuple[str, float], Event] = {}
        # Those of them whose node nobody named, which are given up first.
        self._strangers: dict[tuple[str, float], None] = {}
        self._untold: list[Event] = []
        self._failing_since: float | None = None
        self._next_try = 0.0
        self._delay = RETRY_FIRST
        self._read = False
        self._amended: list[str] = []
        #: What is wrong with it, "" if nothing is.
        self.trouble = ""
        self.errors = 0
        #: Dumps that were given up.
        self.lost = 0

    @property
    def held(self) -> int:
        """Dumps whose newest is not written."""
        return len(self._held)

    def under_way(self) -> list[Dump]:
        """What was under way when the history was written last; [] if it cannot be read.

        HistoryInUse if another daemon writes to it.
        """
        now = self._clock()
        try:
            dumps = self._opened().under_way()
        except HistoryInUse:
            raise
        except HistoryError as error:
            self._failed(error, now)
            return []
        self._read = True
        return dumps

    def record(self, events: list[Event]) -> list[tuple[Event, bool]]:
        """Write this and what is held; what may be told now, and whether it is written."""
        about_dumps = [event for event in events if event.kind != "overflow"]
        told = [(event, True) for event in events if event.kind == "overflow"]
        if self._failing_since is None and not about_dumps:
            return told
        now = self._clock()
        if self._failing_since is None or now >= self._next_try:
            try:
                history = self._opened()
                everything = [*self._left_over(history), *self._held.values(), *about_dumps]
                history.record(everything, self.most, self.named)
            except HistoryError as error:
                self._failed(error, now)
                now = self._clock()
            else:
                self._worked()
                told += [(event, True) for event in [*self._untold, *about_dumps]]
                self._untold.clear()
                return told
        self._hold(about_dumps)
        if self._failing_since is not None and now - self._failing_since >= HOLD:
            told += [(event, False) for event in self._untold]
            self._untold.clear()
        return told

    def _left_over(self, history: History) -> list[Event]:
        """The ends of what was under way before the start, if that could not be read then.

        It cannot be restored any more; what still sends has begun anew meanwhile.
        """
        if self._read:
            return []
        ends = [
            Event("silent", dump.node, time.time(), *dump[1:])
            for dump in history.under_way()
            if (dump.node, dump.since) not in self._held
        ]
        self._read = True
        return ends

    def look(self) -> None:
        """See whether the file is still where it was, and look after it if it is not."""
        if self._failing_since is None and self._history is not None:
            now = self._clock()
            try:
                self._history.look()
            except HistoryError as error:
                self._failed(error, now)

    def trim(self, age: float) -> int:
        """Remove what was over for so many seconds of a daemon's life, and what is too much;
        how many dumps were removed.
        """
        if self._failing_since is not None or self._history is None:
            return 0
        now = self._clock()
        try:
            return self._history.trim(age, self.most)
        except HistoryError as error:
            self._failed(error, now)
            return 0

    def mark(self) -> None:
        """`named` has changed."""
        if self._failing_since is None and self._history is not None:
            now = self._clock()
            try:
                self._history.mark(self.named)
            except HistoryError as error:
                self._failed(error, now)

    def finish(self) -> list[tuple[Event, bool]]:
        """Try for the last time; what is still to be told then, whether it is written or not."""
        self._next_try = 0.0
        told = self.record([])
        told += [(event, False) for event in self._untold]
        self._untold.clear()
        return told

    def close(self) -> None:
        """Close the file; says what could not be written."""
        if self._held:
            dumps = many(len(self._held), "dump", "dumps")
            self._complain("error", f"history: what was last heard of {dumps} is not in it")
        if self._history is not None:
            self._history.close()
            self._history = None

    def _opened(self) -> History:
        if self._history is None:
            self._history = self._open_history(self._path)
            for line in self._history.amended:
                if line not in self._amended:
                    self._amended.append(line)
                    self._complain("warning", f"history: {line}")
            self._history.mark(self.named)
        return self._history

    def _hold(self, events: list[Event]) -> None:
        for event in events:
            key = (event.node, event.since)
            self._held.pop(key, None)
            self._held[key] = event
            self._strangers.pop(key, None)
            if event.node not in self.named:
                self._strangers[key] = None
        while len(self._held) > self._most_held:
            key = next(iter(self._strangers or self._held))
            del self._held[key]
            self._strangers.pop(key, None)
            self.lost += 1
        # Between a failure and the end of HOLD this can be no more than happened in a moment.
        self._untold += events

    def _failed(self, error: HistoryError, now: float) -> None:
        """What was tried at `now` did not work."""
        self.errors += 1
        if self._failing_since is None:
            self._failing_since = now
            self._delay = RETRY_FIRST
        if str(error) != self.trouble:
            self.trouble = str(error)
            self._complain("error", f"history: {error}; listening goes on, and it is tried again")
        # What was repaired meanwhile has to be opened anew. But a file that nobody else finds any
        # more would be lost with that: it puts itself back first.
        if self._history is not None and self._history.in_place:
            self._history.close()
            self._history = None
        self._next_try = self._clock() + self._delay
        self._delay = min(2 * self._delay, RETRY_LAST)

    def _worked(self) -> None:
        if self._failing_since is not None:
            seconds = self._clock() - self._failing_since
            self._complain(
                "warning",
                f"history: works again after {seconds:.1f} s; {len(self._held)} dumps were caught "
                f"up, {self.lost} were lost",
            )
        self._failing_since = None
        self.trouble = ""
        self._held.clear()
        self._strangers.clear()


# ------------------------------------------------------------------ the daemon


class _Reload(NamedTuple):
    """What came of reading the settings again."""

    settings: Settings | None
    faults: list[str]


class Daemon:
    """Everything while it runs. Opens what it needs; DaemonError if it cannot work."""

    def __init__(self, settings: Settings, service: systemd.Notify, journal: Journal) -> None:
        self.settings = settings
        self.service = service
        self.journal = journal
        #: Set from signal handlers.
        self.ending = ""
        self.reload_wanted = False
        self._reloading = False
        self._reloaded: _Reload | None = None
        self._refused = False
        self._beat = time.monotonic()
        self._started = time.monotonic()
        #: What was told of each node that is dumping, in the order in which they began.
        self._under_way: dict[str, Event] = {}
        self._dumps = 0
        self._last_event = 0.0
        self._next_figures = 0.0
        self._next_status = 0.0
        self._next_trim = 0.0
        self._next_look = 0.0
        self._said_status = ""
        self._shared: list[str] = []
        self._own: list[str] = []
        #: Why messages may not reach it, and what was the reason at the last look.
        self._deaf = self._deaf_before = ""
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.metrics: metrics.Metrics | None = None
        self._server: metrics.Server | None = None
        self._no_server = ""
        self._next_server = 0.0
        with contextlib.ExitStack() as undo:
            with _threads():
                self._open(undo)
            self._undo = undo.pop_all()

    def _open(self, undo: contextlib.ExitStack) -> None:
        settings = self.settings
        # First what may need rights, then their end, and only then threads and strangers.
        sockets = self._sockets()
        for sock in sockets:
            undo.callback(sock.close)
        _make_directories(settings)
        if settings.metrics_port:
            self.metrics = metrics.Metrics(self.trouble)
            self._open_server()
            undo.callback(self._close_server)
        privileges.drop()
        self.control = status_socket.Server(settings.control_path, settings.control_mode)
        if status_socket.is_open_to_all(settings.control_path):
            self.journal.say(
                "warning",
                f"control socket {settings.control_path}: everybody can write to its directory, "
                "and take its place: put it into one of its own",
            )
        undo.callback(self.control.close)
        self.recorder = Recorder(
            settings.history_path, self.journal.say, partial(History, mode=settings.history_mode)
        )
        self.recorder.most, self.recorder.named = settings.history_most, settings.nodes
        undo.callback(self.recorder.close)
        try:
            before = self.recorder.under_way()
        except HistoryInUse as error:
            raise DaemonError(f"history: {error}") from None
        try:
            self.listener = Listener(
                settings.nodes,
                settings.networks,
                port=settings.port,
                family=settings.family,
                silence=settings.silence,
                repeat=settings.repeat,
                room=settings.room,
                sockets=sockets,
                queue=settings.queue,
            )
        except ValueError as error:
            raise DaemonError(str(error)) from None
        undo.callback(self.listener.close)
        self._restore(before)

    def _sockets(self) -> list[socket.socket]:
        chosen = FAMILIES[self.settings.family]
        wanted = (socket.AF_INET, socket.AF_INET6) if chosen == 0 else (chosen,)
        sockets = systemd.passed_sockets(self.settings.port, wanted)
        if sockets:
            self.journal.say("debug", f"{len(sockets)} sockets were passed")
            why = "no socket for it was passed"
        else:
            sockets = open_sockets(wanted, self.settings.port)
            for sock in sockets:
                deepen(sock, self.settings.queue)
            why = "this machine does not have it"
        heard = {sock.family for sock in sockets}
        for family, name in ((socket.AF_INET, "IPv4"), (socket.AF_INET6, "IPv6")):
            if family in wanted and family not in heard:
                self.journal.say("warning", f"nothing is heard over {name}: {why}")
        try:
            deafness.rivals(sockets, self.settings.port)
        except OSError as error:
            self.journal.say(
                "warning", f"who else holds the port cannot be seen: sock_diag: {error.strerror}"
            )
        return sockets

    def _open_server(self) -> None:
        """Answer for metrics, or say why not: anybody may have that port, so it is no reason to
        end.
        """
        assert self.metrics is not None
        self._next_server = time.monotonic() + METRICS_RETRY
        try:
            self._server = metrics.Server(
                self.settings.metrics_address, self.settings.metrics_port, self.metrics.answer
            )
        except metrics.MetricsError as error:
            if not self._no_server:
                self.journal.say("error", f"{error}; it is tried again")
            self._no_server = str(error)
        else:
            self._no_server = ""

    def _restore(self, dumps: list[Dump]) -> None:
        """What was under way before the restart goes on.

        That of a node which is none of ours any more falls silent like any other.
        """
        self.listener.restore(dumps)
        for dump in dumps:
            event = Event("dumping", dump.node, dump.last, *dump[1:])
            self._under_way[dump.node] = event
            self.journal.event(event, kind="restored")

    # The main loop

    def run(self) -> None:
        """Work until `ending` says why it is to end."""
        self._start_server()
        self._figures()
        self.service.ready(self._summary())
        poller = select.poll()
        poller.register(self.listener.fileno(), select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        pulse = min(PULSE, (self.service.watchdog or PULSE * 4) / 4)
        while not self.ending:
            poller.poll(pulse * 1000)
            self._round()

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()

    def _start_server(self) -> None:
        if self._server is not None:
            with _threads():
                self._server.start()

    def _round(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        self._take()
        now = time.monotonic()
        if self.reload_wanted and not self._reloading:
            self._read_settings()
        if self._reloaded is not None:
            self._apply(self._reloaded)
        if now >= self._next_trim:
            self._trim(now)
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self.recorder.look()
        if self._no_server and now >= self._next_server:
            self._open_server()
            self._start_server()
        if now >= self._next_figures:
            self._figures()
        self.journal.flush()
        self._beat = time.monotonic()
        self.service.alive()

    def _take(self) -> None:
        """What happened is written down, and told then."""
        events: list[Event] = []
        until = time.monotonic() + GATHER
        while len(events) < BATCH and time.monotonic() < until:
            more = self.listener.events(0)
            if not more:
                break
            events += more
        self._tell(self.recorder.record(events))

    def _tell(self, events: list[tuple[Event, bool]]) -> None:
        for event, recorded in events:
            self.journal.event(event, recorded=recorded)
            if event.kind == "overflow":
                continue
            self._last_event = event.when
            if event.kind == "silent":
                self._under_way.pop(event.node, None)
                if self.metrics is not None:
                    self.metrics.dump_ended(length(event))
            else:
                self._dumps += event.kind == "began"
                self._under_way[event.node] = event

    def _trim(self, now: float) -> None:
        self._next_trim = now + TRIM_EVERY
        removed = self.recorder.trim(self.settings.history_days * 86400)
        if removed:
            self.journal.say("info", f"history: {removed} old dumps were removed")
        if len(self._under_way) < CALM:
            gc.collect()  # there is hardly anything: no object refers to itself here

    def trouble(self) -> str:
        """What is wrong, in a line; "" if all is well. From any thread."""
        silent = time.monotonic() - self._beat
        if silent > STUCK_AFTER:
            return f"the main loop has not gone round for {silent:.0f} s"
        if self._deaf:
            return self._deaf
        if self.recorder.trouble:
            return f"history: {self.recorder.trouble}"
        return ""

    def _troubles(self) -> list[str]:
        """All that is wrong, a line each."""
        troubles = [self.trouble(), self._deaf, self._no_server]
        if self.recorder.trouble:
            troubles.append(f"history: {self.recorder.trouble}")
        if self._refused:
            troubles.append("settings: refused; those from before are in force")
        return [trouble for trouble in dict.fromkeys(troubles) if trouble]

    # What is told

    def _figures(self) -> None:
        """Publish what control socket and metrics tell."""
        self._next_figures = time.monotonic() + PULSE / 2
        now = self.listener.snapshot()
        self._complain_of_shared(now)
        self._tell_of_own(now)
        self._complain_of_deafness(now)
        if self.metrics is not None:
            oldest = [
                (event.node, event.since)
                for event in islice(self._under_way.values(), max(1, self.settings.metrics_nodes))
            ]
            self.metrics.publish(
                metrics.Figures(
                    dumping=len(self._under_way),
                    oldest=oldest[: self.settings.metrics_nodes],
                    oldest_since=oldest[0][1] if oldest else 0.0,
                    nodes=now.nodes,
                    unresolved=len(now.unresolved),
                    counts=now.counts,
                    last_event=self._last_event,
                    dumps=self._dumps,
                    history_errors=self.recorder.errors,
                    history_lost=self.recorder.lost,
                    log_left_out=self.journal.left_out,
                    history_held=self.recorder.held,
                    settings_refused=self._refused,
                    deaf=bool(self._deaf),
                )
            )
        # Only what was told; but with the newest that is known of it.
        told = (dump for dump in reversed(now.dumps) if dump.node in self._under_way)
        self.control.publish(
            status_socket.Status(
                version=__version__,
                up=time.monotonic() - self._started,
                when=now.when,
                nodes=now.nodes,
                unresolved=now.unresolved[: status_socket.MOST_UNRESOLVED],
                dumping=len(self._under_way),
                dumps=list(islice(told, status_socket.MOST)),
                counts=now.counts,
                troubles=self._troubles(),
                unresolved_nodes=len(now.unresolved),
            )
        )
        summary = self._summary()
        moment = time.monotonic()
        if summary != self._said_status and moment >= self._next_status:
            self._said_status = summary
            self._next_status = moment + 1.0
            self.service.status(summary)

    def _complain_of_shared(self, now: Snapshot) -> None:
        if now.shared != self._shared:
            self._shared = now.shared
            if now.shared:
                shown = ", ".join(now.shared[:10]) + ", ..." * (len(now.shared) > 10)
                self.journal.say("warning", f"several nodes have {shown}: heard for none of them")

    def _tell_of_own(self, now: Snapshot) -> None:
        if now.own != self._own:
            self._own = now.own
            if now.own:
                shown = ", ".join(now.own[:10]) + ", ..." * (len(now.own) > 10)
                self.journal.say("info", f"this machine itself has {shown}: not heard as a node")

    def _complain_of_deafness(self, now: Snapshot) -> None:
        # At the second look: a process that was stopped looks deaf until it has read again.
        if now.deaf == self._deaf_before != self._deaf:
            self._deaf = now.deaf
            if now.deaf:
                self.journal.say("error", f"messages may be missed: {now.deaf}")
            else:
                self.journal.say("warning", "messages are heard again")
        self._deaf_before = now.deaf

    def _summary(self) -> str:
        text = f"dumping: {len(self._under_way)}; nodes in the settings: {len(self.settings.nodes)}"
        if self._deaf:
            text += f"; messages may be missed: {self._deaf}"
        if self.recorder.trouble:
            text += f"; history: {self.recorder.trouble}"
        return text

    # Signals and settings

    def wake(self) -> None:
        """Let the main loop go round now; from signal handlers and threads."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b".")

    def _read_settings(self) -> None:
        """In a thread: a hundred thousand nodes take seconds to read."""
        self.reload_wanted = False
        self._reloading = True
        self.service.reloading()
        try:
            with _threads():
                threading.Thread(target=self._reread, name="settings", daemon=True).start()
        except DaemonError as error:
            self._reloaded = _Reload(None, [f"{self.settings.path}: {error}"])

    def _reread(self) -> None:
        try:
            self._reloaded = _Reload(load(self.settings.path), [])
        except SettingsError as error:
            self._reloaded = _Reload(None, error.faults)
        except Exception as error:  # a fault of ours must not leave the manager waiting
            self._reloaded = _Reload(None, [f"{type(error).__name__}: {error}"])
        self.wake()

    def _apply(self, reload: _Reload) -> None:
        self._reloaded = None
        self._reloading = False
        self._refused = reload.settings is None
        if reload.settings is None:
            for fault in reload.faults[:MOST_FAULTS]:
                self.journal.say("error", fault)
            left = len(reload.faults) - MOST_FAULTS
            if left > 0:
                self.journal.say("error", f"and {many(left, 'fault', 'faults')} more: see --check")
            self.journal.say("error", "settings refused: those from before stay in force")
        else:
            self._use(reload.settings)
        self.service.ready(self._summary())

    def _use(self, new: Settings) -> None:
        old = self.settings
        at_once, after_restart = changes(old, new)
        kept = {key: getattr(old, key) for key in _fixed()}
        nodes, said = self._use_nodes(new.nodes)
        self.settings = dataclasses.replace(new, **kept, nodes=nodes)
        if at_once:
            said.append(f"{', '.join(at_once)} changed")
        self.journal.level, self.journal.lines = new.log_level, new.log_lines
        self.recorder.most = new.history_most
        if nodes != old.nodes:
            self.recorder.named = nodes
            self.recorder.mark()
        self._next_trim = 0.0
        self.journal.say("info", "settings read again: " + ("; ".join(said) or "no change"))
        if after_restart:
            self.journal.say(
                "warning",
                f"settings: {', '.join(after_restart)} changed, which needs a restart: "
                "the old value stays in force until then",
            )

    def _use_nodes(
        self, wanted: Mapping[str, tuple[str, ...]]
    ) -> tuple[dict[str, tuple[str, ...]], list[str]]:
        """Listen for these nodes; those it listens for now, and what changed in words.

        What the settings in force do not allow, as an IPv6 address while `family` waits for a
        restart, leaves its node as it was.
        """
        before = self.settings.nodes
        after = {name: addresses for name, addresses in before.items() if name in wanted}
        removed = before.keys() - wanted.keys()
        dumping = len(removed & self._under_way.keys())
        if dumping:
            what = many(dumping, "removed node was", "removed nodes were")
            self.journal.say("warning", f"settings: {what} dumping: told as silent from now on")
        for name in removed:
            self.listener.remove(name)
        for name, addresses in wanted.items():
            if before.get(name) != addresses:
                try:
                    self.listener.add(name, addresses)
                except ValueError as error:
                    self.journal.say("error", f"settings: {error}: not taken before a restart")
                else:
                    after[name] = addresses
        counts = (
            (len(after.keys() - before.keys()), "added"),
            (len(before.keys() - after.keys()), "removed"),
            (sum(before.get(name, to) != to for name, to in after.items()), "changed"),
        )
        return after, [f"{many(count, 'node', 'nodes')} {what}" for count, what in counts if count]

    # The end

    def close(self) -> None:
        """Write down what is still to be had, and close everything."""
        self.service.stopping()
        poller = select.poll()
        poller.register(self.listener.fileno(), select.POLLIN)
        until = time.monotonic() + LAST_WORDS
        with contextlib.suppress(OSError, RuntimeError):
            self._take()
            # A hundred thousand nodes that panic are more than a round takes.
            while poller.poll(0) and time.monotonic() < until:
                self._take()
                self.service.alive()
        self._tell(self.recorder.finish())
        with contextlib.suppress(OSError, RuntimeError):
            self.recorder.record(self._unwritten())
        self._undo.close()
        self.journal.flush(last=True)
        self.journal.say("info", f"{PROGRAM} ends: {self.ending or 'it cannot go on'}")
        self.journal.flush()

    def _unwritten(self) -> list[Event]:
        """Where the dumps are that were told of, if that is further than the history has it.

        While one goes on it is written every `repeat` seconds only. If the node is not heard
        again after a restart, its dump would end too early by as much.
        """
        now = self.listener.snapshot()
        events = []
        for dump in now.dumps:
            told = self._under_way.get(dump.node)
            if told is not None and told.since == dump.since and told.last < dump.last:
                events.append(Event("dumping", dump.node, now.when, *dump[1:]))
        return events


def _make_directories(settings: Settings) -> None:
    """Those of control socket and history, if they are missing."""
    history = os.path.dirname(settings.history_path)
    private = 0o750 if settings.history_mode & 0o040 else 0o700
    for folder, mode in ((os.path.dirname(settings.control_path), 0o755), (history, private)):
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode)
            os.chmod(folder, mode)  # whatever the umask
    if history == os.path.dirname(HISTORY):  # nobody else's
        with contextlib.suppress(OSError):
            if stat.S_IMODE(os.stat(history).st_mode) & ~private:
                os.chmod(history, private)


@contextlib.contextmanager
def _threads() -> Iterator[None]:
    """A thread that cannot be had is an error in one line."""
    try:
        yield
    except RuntimeError as error:
        raise DaemonError(f"{error}: so many processes and threads are not allowed") from None


def _fixed() -> list[str]:
    return [key.attribute for key in KEYS if key.restart]


# ------------------------------------------------------------------ the program


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise DaemonError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, description="Listens for dumping nodes, and tells who they are.")
    parser.add_argument(
        "--config", default=DEFAULT_PATH, metavar="PATH", help=f"settings file ({DEFAULT_PATH})"
    )
    parser.add_argument(
        "--check", action="store_true", help="check the settings, say what they mean, and end"
    )
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"{PROGRAM} {__version__} ({wire.IMPLEMENTATION} core)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; the exit status."""
    try:
        given = _parser().parse_args(argv)
        if given.check:
            return _check(given.config)
        return _serve(given.config)
    except SettingsError as error:
        return _complain(error.faults)
    except (
        DaemonError,
        systemd.NotifyError,
        metrics.MetricsError,
        privileges.PrivilegesError,
        status_socket.ControlError,
    ) as error:
        return _complain([str(error)])
    except signals.Ended as error:
        return _complain([f"ended by {error} before it listened"])
    except MemoryError:
        return _complain(["out of memory"])
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return _complain([f"{where}{error.strerror or error}"])


def _check(path: str) -> int:
    """Say what the settings mean."""
    settings = load(path)
    for line in settings.meaning():
        print(one_line(line))
    if settings.metrics_port:
        metrics.Metrics(lambda: "")
    return 0


def _serve(path: str) -> int:
    signals.install()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    service = systemd.Notify()
    settings = load(path)
    journal = Journal(settings.log_level, settings.log_lines)
    daemon = Daemon(settings, service, journal)
    try:
        _handle_signals(daemon)
        # Everything that stays until the end has been made by now. From here on `_trim` says
        # when: with 100,000 dumps under way a collection stops every thread for 0.1 to 0.2 s.
        gc.collect()
        gc.freeze()
        gc.disable()
        # Whoever asks for the status takes turns with the main loop: short ones, so that an
        # answer waits for a few milliseconds when a hundred thousand nodes panic.
        sys.setswitchinterval(0.001)
        journal.say(
            "info",
            f"{PROGRAM} {__version__} ({wire.IMPLEMENTATION} core) hears port {settings.port} for "
            f"{many(len(settings.nodes), 'node', 'nodes')} and "
            f"{many(len(settings.networks), 'network', 'networks')}",
        )
        journal.flush()
        daemon.run()
    finally:
        daemon.close()
    return 1 if daemon.recorder.held else 0


def _handle_signals(daemon: Daemon) -> None:
    def end(number: int, frame: FrameType | None) -> None:
        daemon.ending = daemon.ending or signal.Signals(number).name
        daemon.wake()

    def reload(number: int, frame: FrameType | None) -> None:
        daemon.reload_wanted = True
        daemon.wake()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, reload)


def _complain(lines: list[str]) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in lines:
            print(f"{PROGRAM}: {one_line(line)}", file=sys.stderr, flush=True)
    return 1


def script() -> None:
    """The program. Leaves at once: a look-up that hangs must not hold it."""
    # The log goes to descriptor 2: if whoever started this closed it, nothing else may get it.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    status = main()
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    script()
