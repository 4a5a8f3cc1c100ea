# SPDX-License-Identifier: LGPL-2.1-or-later
"""The main loop of kdumpfenced: wires the rooms together, and decides nothing itself.

Settings, Listener, Recorder, the log, metrics, the control socket, and systemd. What may not be
in this file: sockets of messages, SQL, the form of any output.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import math
import select
import socket
import time
from collections.abc import Collection

from kdumpfence._version import __version__
from kdumpfence.addresses import FAMILIES, socket_families
from kdumpfence.daemon import (
    api,
    control,
    counting,
    directories,
    http,
    key,
    metrics,
    privileges,
    relay,
    status,
    systemd,
)
from kdumpfence.daemon import forwarder as forwarding
from kdumpfence.daemon.errors import DaemonError, starting_threads
from kdumpfence.daemon.formats import many
from kdumpfence.daemon.health import Health
from kdumpfence.daemon.history import History, HistoryInUse
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.page.own import Own
from kdumpfence.daemon.page.site import Site
from kdumpfence.daemon.page.view import MOST_PAST
from kdumpfence.daemon.questions import Questions
from kdumpfence.daemon.recorder import Recorder
from kdumpfence.daemon.reload import Reload, Result, follow_nodes
from kdumpfence.daemon.settings import KEYS, Settings, changes
from kdumpfence.daemon.status_server import Server
from kdumpfence.daemon.told import Told
from kdumpfence.daemon.waits import Waits
from kdumpfence.database.connection import DatabaseError
from kdumpfence.keys import KeyFileError, Keys
from kdumpfence.listener import port_rivals
from kdumpfence.listener.events import ENDS, AnyEvent, Dump, Event, checked, length
from kdumpfence.listener.listener import Listener, Snapshot
from kdumpfence.listener.sockets import open_sockets, parsed_host
from kdumpfence.signals import Wakeup
from kdumpfence.sockets import deepen
from kdumpfence.text import shown
from kdumpfence.wire import is_packet_name

#: Seconds: the longest round of the main loop.
PULSE = 0.5

#: Events that are written down at a time, about: each time the disk has to confirm it.
BATCH = 32_768

#: Seconds for which they are gathered, at most: there may always be one more.
GATHER = 0.06

#: Seconds for which the history writes before those who answer see for themselves what was heard,
#: and between two times that they do.
SLOW = 0.1

#: Seconds at the end for writing down what was heard, at most: systemd waits for ten.
LAST_WORDS = 3.0

#: Seconds after that for handing on to the database what it does not have, at most.
LAST_HANDED_ON = 2.0

#: Seconds between two looks at how old what the history holds is.
TRIM_EVERY = 3600.0

#: Seconds between two looks whether its file is still there.
LOOK_EVERY = 1.0

#: Faults of a settings file that the log tells; a journal that gets a hundred thousand lines
#: at once would leave out the last one, which says what follows from them.
MOST_FAULTS = 50

#: Dumps under way below which a collection of garbage takes no time worth speaking of.
CALM = 2000


class Daemon:
    """Everything while it runs. Opens what it needs; DaemonError if it cannot work.

    Longer than other classes: this is the one place that knows all the rooms, and each of its
    methods only hands over from one to the next.
    """

    def __init__(self, settings: Settings, service: systemd.Notify, journal: Journal) -> None:
        self.settings = settings
        self.service = service
        self.journal = journal
        #: Why it is to end; set from signal handlers, as is `reload.wanted`.
        self.ending = ""
        self.wakeup = Wakeup()
        self.reload = Reload(settings.path, self.wakeup.wake)
        self.recorder = Recorder(
            settings.history_path,
            journal.say,
            functools.partial(
                History, mode=settings.history_mode, spool=bool(settings.history_database)
            ),
        )
        self.recorder.most, self.recorder.named = settings.history_most, settings.nodes
        self.health = Health(journal, self.recorder)
        #: To the database, if there is one.
        self.forwarder: forwarding.Forwarder | None = None
        self.metrics: metrics.Metrics | None = None
        #: The status page, and what it is made of.
        self._site: Site | None = None
        self._own: Own | None = None
        self._started = time.monotonic()
        self.told = Told()
        self._dumps = 0
        self._last_event = 0.0
        self._next_figures = self._next_status = self._next_trim = self._next_look = 0.0
        self._next_stand = 0.0
        self._stood = False  # whether the history has any
        self._said_status = self._said_answer = ""
        #: When the history was last given something to write that it has not written yet.
        self._writing_since = math.inf
        self._next_look_aside = 0.0
        #: The cluster's keys if messages have to be signed.
        self._believed: Keys | None = None
        with contextlib.ExitStack() as undo:
            with starting_threads():
                self._open(undo)
            self._undo = undo.pop_all()

    def _open(self, undo: contextlib.ExitStack) -> None:
        settings = self.settings
        # First what may need rights, then their end, and only then threads and strangers.
        sockets = _open_port(settings, self.journal)
        for sock in sockets:
            undo.callback(sock.close)
        self._counting = counting.load(settings, sockets, self.journal.say)
        directories.make(settings)
        if settings.metrics_port:
            self.metrics = metrics.Metrics(self.health.trouble)
            where = settings.metrics_address, settings.metrics_port
            handler: http.Handler = self.metrics.answer
            if settings.metrics_page:
                self._site = Site(self.metrics.answer, settings.metrics_address)
                handler = self._site.answer
            self.health.pages.append(http.Pages(*where, handler, self.journal.say))
        self.questions = Questions()
        if settings.http_port:
            self.health.pages.append(api.pages(settings, self.questions, self.journal.say))
        for pages in self.health.pages:
            undo.callback(pages.close)
        privileges.drop()
        self.control = Server(
            settings.control_path, settings.control_mode, questions=self.questions
        )
        if status.is_open_to_all(settings.control_path):
            self.journal.say(
                "warning",
                f"control socket {settings.control_path}: everybody can write to its directory "
                "and take its place: move it to a directory of its own",
            )
        undo.callback(self.control.close)
        undo.callback(self.recorder.close)
        if settings.auth != "none":
            try:
                self._believed = key.of_cluster(settings.key_file)
            except KeyFileError as error:
                raise DaemonError(str(error)) from None
        answer, keys = self._answer(settings)
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
                silence_timeout=settings.silence,
                repeat_interval=settings.repeat,
                max_admitted=settings.room,
                sockets=sockets,
                receive_buffer=settings.queue,
                auth=settings.auth,
                answer_as=answer,
                keys=self._believed or keys,
                counting=self._counting,
                tell_repeats=self._wants_repeats(),
            )
        except ValueError as error:
            raise DaemonError(str(error)) from None
        undo.callback(self.listener.close)
        self._open_page()
        self._restore(before)
        if settings.history_database:
            self.forwarder = self.health.forwarder = forwarding.Forwarder(
                settings.history_database,
                settings.history_path,
                self._as_listener,
                shows=self._site is not None,
            )
            self.forwarder.start()
        passed_on = relay.Relay(self.listener.port, lambda: self._believed)
        undo.callback(passed_on.close)
        sources = control.Sources(
            self._known,
            self.listener.listens_for,
            proof=self._proof,
            doubt=self.health.doubt,
            look=self._look,
            trouble=self.health.trouble,
            waits=Waits(self.told, self.listener, passed_on, settings.auth).answer,
        )
        self.questions.answers = control.Answers(self.told, sources)

    def _open_page(self) -> None:
        """From now on there is something to see on the status page."""
        if self._site is not None:
            self._site.source = self._own = Own(
                self.told,
                self._known,
                self.listener.listens_for,
                self.settings.name,
                self.settings.silence,
                self.health.trouble,
                self.recorder.past(MOST_PAST),
                lambda: self.forwarder.around() if self.forwarder is not None else None,
            )

    def _wants_repeats(self) -> bool:
        """That dumps go on: for the log, and for the database, which learns it no other way."""
        return self.journal.shows("debug") or bool(self.settings.history_database)

    def _answer(self, settings: Settings) -> tuple[str | None, Keys | None]:
        """As which node questions are answered, and with whose keys; says so if it is news."""
        if not settings.answer:
            return None, None
        name = settings.name
        known = is_packet_name(name)
        if known:
            keys, level, how = key.of_node(settings.key_file, name, self._believed)
            said = f"answering questions as node '{name}', {how}"
        else:
            keys, level = None, "warning"
            said = f"not answering questions: set node, for {shown(name)} cannot be one's name"
        if said != self._said_answer:
            self._said_answer = said
            self.journal.say(level, said)
        return (name if known else None), keys

    def _restore(self, dumps: list[Dump]) -> None:
        """What was under way before the restart goes on.

        That of a node which is none of ours any more is over: nobody listens for it. So is one
        whose times contradict each other, of a file that knows no better.
        """
        under_way = {dump.node for dump in dumps}
        over = [event for event in self.recorder.over() if event.node not in under_way]

        def ours(dump: Dump) -> bool:
            try:
                checked(dump)
            except ValueError:
                return False
            return self.listener.listens_for(dump.node)

        self.listener.restore(
            [dump for dump in dumps if ours(dump)],
            [event for event in over if ours(Dump(event.node, *event[3:]))],
        )
        for event in over:
            self.told.tell(event)
        for dump in dumps:
            event = Event("dumping", dump.node, dump.last, *dump[1:])
            self.told.tell(event)
            self.journal.event(event, kind="restored")
        now = time.time()
        gone = [Event("silent", dump.node, now, *dump[1:]) for dump in dumps if not ours(dump)]
        self._tell(self.recorder.record(gone))

    def _as_listener(self) -> forwarding.Listener:
        """As whom the database knows this daemon; from any thread."""
        outbox = self.recorder.outbox
        if outbox is None:
            raise DatabaseError("the history cannot be written, and so nothing be handed on")
        return forwarding.Listener(outbox.identity, self.settings.name, self.settings.silence)

    def _look_at_database(self) -> None:
        """Say what came of it, and let go of what it has."""
        found = self.forwarder
        if found is None:
            return
        for level, text in found.look():
            self.journal.say(level, text)
        found.figures = forwarding.Figures(len(self.told), self.health.trouble())
        upto = found.forgettable()
        if (upto or found.renumber) and self.recorder.hand_over(upto, found.renumber):
            found.renumber = 0

    # The main loop

    def run(self) -> None:
        """Work until `ending` says why it is to end."""
        with starting_threads():
            for pages in self.health.pages:
                pages.start()
        self._figures()
        self.service.ready(self._summary())
        poller = select.poll()
        poller.register(self.listener.fileno(), select.POLLIN)
        poller.register(self.wakeup, select.POLLIN)
        pulse = min(PULSE, (self.service.watchdog or PULSE * 4) / 4)
        while not self.ending:
            poller.poll(pulse * 1000)
            self.round()

    def round(self) -> None:
        """Do what there is to do, without waiting for more."""
        self.wakeup.clear()
        self._take()
        now = time.monotonic()
        if self.reload.wanted and not self.reload.under_way:
            self.service.reloading()
            self.reload.start()
        result = self.reload.result()
        if result is not None:
            self._apply(result)
        if now >= self._next_trim:
            self._trim(now)
        if now >= self._next_stand:
            self._stand(now)
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self.recorder.look()
            self._look_at_database()
        with starting_threads():
            for pages in self.health.pages:
                pages.look()
        if now >= self._next_figures:
            self._figures()
        self.journal.flush()
        self.health.beat()
        self.service.alive()

    def _take(self) -> None:
        """What happened is written down, and told then."""
        events: list[AnyEvent] = []
        until = time.monotonic() + GATHER
        while len(events) < BATCH and time.monotonic() < until:
            more = self.listener.events(0)
            if not more:
                break
            events += more
        self._writing_since = time.monotonic()
        told = self.recorder.record(events)
        self._writing_since = math.inf
        self._tell(told)

    def _look(self) -> None:
        """For the threads that answer: what was heard is seen to, though this one is writing."""
        now = time.monotonic()
        if now - self._writing_since > SLOW and now >= self._next_look_aside:
            self._next_look_aside = now + SLOW
            with contextlib.suppress(RuntimeError):
                self.listener.dumps([])

    def _tell(self, events: list[tuple[AnyEvent, bool]]) -> None:
        if events and self.forwarder is not None:
            self.forwarder.wake()
        for event, recorded in events:
            self.journal.event(event, recorded=recorded)
            if event.kind == "overflow":
                continue
            self._last_event = event.when
            before = self.told.tell(event, recorded)
            self._dumps += event.kind == "began"
            if event.kind in ENDS and self.metrics is not None:
                # One that contradicts an earlier end is no further dump.
                self.metrics.dump_ended(event.kind, None if before is None else length(event))
            if event.kind in ENDS and self._own is not None:
                self._own.ended(event)
        if events:
            self.control.news()
            for pages in self.health.pages:
                pages.news()

    def _stand(self, now: float) -> None:
        """Write down what no event tells: how far dumps are whose messages the kernel counts."""
        self._next_stand = now + self.settings.repeat
        figures = self.listener.figures()
        if figures or self._stood:
            self.recorder.stand(figures)
        self._stood = bool(figures)

    def _trim(self, now: float) -> None:
        self._next_trim = now + TRIM_EVERY
        removed = self.recorder.trim(self.settings.history_days * 86400)
        if removed:
            self.journal.say("info", f"history: removed {many(removed, 'old dump', 'old dumps')}")
        if len(self.told) < CALM:
            gc.collect()  # there is hardly anything: no object refers to itself here

    # What is told

    def _figures(self) -> None:
        """Publish what control socket, metrics and service manager tell."""
        moment = time.monotonic()
        self._next_figures = moment + PULSE / 2
        now = self.listener.snapshot(fresh=False, dumps=False)
        self.health.look(now)
        if self.metrics is not None:
            self.metrics.publish(self._for_metrics(now))
        # From the threads that answer, and only when somebody asks.
        published = functools.cache(
            functools.partial(self._status, now, moment - self._started, self.health.troubles())
        )
        self.questions.publish(published)
        if self._own is not None:
            self._own.publish(published)
        summary = self._summary()
        if summary != self._said_status and moment >= self._next_status:
            self._said_status = summary
            self._next_status = moment + 1.0
            self.service.status(summary)

    def _status(self, now: Snapshot, up: float, troubles: list[str]) -> status.Status:
        """From the thread that answers, and only when somebody asks."""
        return status.Status(
            version=__version__,
            up=up,
            when=now.when,
            nodes=now.nodes,
            unresolved=now.unresolved[: status.MOST_UNRESOLVED],
            dumping=len(self.told),
            # Only what was told; but with the newest that is known of it.
            dumps=control.current(self.told.newest(status.MOST), self._known),
            ended=[one.event for one in self.told.ended(None, status.MOST_ENDED)],
            counts=now.counts,
            troubles=troubles,
            unresolved_nodes=len(now.unresolved),
            counting=now.counting,
        )

    def _known(self, nodes: list[str]) -> list[Dump | None]:
        """Their dumps, without a look who fell silent: that is told when it is written."""
        return self.listener.dumps(nodes, fresh=False)

    def _proof(self, dump: Dump) -> str:
        """How the dump is known to be this node's."""
        if not dump.heard:
            return "history"  # nothing was heard of it since the start
        if self._believed is not None:
            return "signature"
        return "address" if dump.node in self.settings.nodes else "network"

    def _for_metrics(self, now: Snapshot) -> metrics.Figures:
        most = self.settings.metrics_nodes
        oldest = [(event.node, event.since) for event in self.told.oldest(max(1, most))]
        return metrics.Figures(
            dumping=len(self.told),
            oldest=oldest[:most],
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
            settings_refused=self.health.settings_refused or self.health.keys_refused,
            deaf=bool(self.health.deaf),
            answers=now.answers,
            counting_in_kernel=now.counting == "kernel",
            database_trouble=self.forwarder is not None and bool(self.forwarder.trouble),
            database_waiting=self.forwarder.waiting if self.forwarder is not None else 0,
            database_errors=self.forwarder.errors if self.forwarder is not None else 0,
            database_lost=self.recorder.outbox.lost if self.recorder.outbox is not None else 0,
        )

    def _summary(self) -> str:
        text = f"dumping: {len(self.told)}; nodes in the settings: {len(self.settings.nodes)}"
        if self.health.deaf:
            text += f"; messages may be missed: {self.health.deaf}"
        if self.recorder.trouble:
            text += f"; history: {self.recorder.trouble}"
        return text

    # Settings

    def _apply(self, result: Result) -> None:
        self.health.settings_refused = result.settings is None
        if result.settings is None:
            for fault in result.faults[:MOST_FAULTS]:
                self.journal.say("error", fault)
            left = len(result.faults) - MOST_FAULTS
            if left > 0:
                self.journal.say("error", f"and {many(left, 'fault', 'faults')} more: see --check")
            self.journal.say("error", "settings refused: keeping the previous ones")
        else:
            self._use(result.settings)
        self.service.ready(self._summary())

    def _use(self, new: Settings) -> None:
        old = self.settings
        at_once, after_restart = changes(old, new)
        kept = {key.attribute: getattr(old, key.attribute) for key in KEYS if key.restart}
        nodes, said = follow_nodes(self.listener, old.nodes, new.nodes, self.told, self.journal.say)
        self.settings = dataclasses.replace(new, **kept, nodes=nodes)
        if at_once:
            said.append(f"{', '.join(at_once)} changed")
        self.journal.level, self.journal.lines = new.log_level, new.log_lines
        self.listener.tell_repeats = self._wants_repeats()
        self.recorder.most = new.history_most
        said += self._reload_keys()
        answer, keys = self._answer(self.settings)
        if answer is not None:
            self.listener.answer_as(answer, keys)
        if nodes != old.nodes:
            self.recorder.named = nodes
            self.recorder.mark()
            counting.check_room(self._counting, self.settings, self.journal.say)
        self._next_trim = 0.0
        self.journal.say("info", "settings reloaded: " + ("; ".join(said) or "no change"))
        if after_restart:
            what = ", ".join(after_restart)
            self.journal.say("warning", f"settings: {what} changed: takes effect after a restart")

    def _reload_keys(self) -> list[str]:
        """Read the keys again that messages have to be signed with; what is new, in words."""
        self.health.keys_refused = False
        if self._believed is None:
            return []
        try:
            found = key.of_cluster(self.settings.key_file)
        except KeyFileError as error:
            self.health.keys_refused = True
            self.journal.say("error", f"{error}; keeping the previous keys")
            return []
        self._believed = found
        numbers = self.listener.reload_keys(found)
        return [f"keys {' and '.join(f'{number:08x}' for number in numbers)}"]

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
        if self.forwarder is not None:
            self.forwarder.finish(LAST_HANDED_ON)
            self._look_at_database()
        self._undo.close()
        self.journal.flush(last=True)
        self.journal.say("info", f"kdumpfenced is stopping: {self.ending or 'internal error'}")
        self.journal.flush()

    def _unwritten(self) -> list[Event]:
        """Where the dumps are that were told of, if that is further than the history has it.

        While one goes on it is written every `repeat` seconds only. If the node is not heard
        again after a restart, its dump would end too early by as much.
        """
        now = self.listener.snapshot()
        events = []
        for dump in now.dumps:
            told = self.told.get(dump.node)
            if told is not None and told.since == dump.since and told.last < dump.last:
                events.append(Event("dumping", dump.node, now.when, *dump[1:]))
        return events


def _check_addresses(sockets: list[socket.socket], addresses: Collection[str]) -> None:
    """Where systemd opened them, that is where it listens: the settings must not say otherwise."""
    for sock in sockets:
        where = sock.getsockname()[0]
        if addresses and where not in addresses:
            raise DaemonError(
                f"address: systemd passed a socket at {where}: set ListenDatagram= of "
                "kdumpfenced.socket to the same"
            )


def _open_port(settings: Settings, journal: Journal) -> list[socket.socket]:
    """The sockets on which it listens: those that systemd passed, or its own."""
    hosts = [parsed_host(one, FAMILIES["auto"]) for one in settings.address]
    wanted = {host.family for host in hosts} or socket_families(settings.family)
    sockets = systemd.passed_sockets(settings.port, tuple(wanted))
    if sockets:
        _check_addresses(sockets, settings.address)
        journal.say("debug", f"systemd passed {many(len(sockets), 'socket', 'sockets')}")
        why = "systemd passed no socket for it"
    else:
        sockets = open_sockets(wanted, settings.port, hosts)
        for sock in sockets:
            deepen(sock, settings.queue)
        why = "this machine does not have it"
    heard = {sock.family for sock in sockets}
    for family, name in ((socket.AF_INET, "IPv4"), (socket.AF_INET6, "IPv6")):
        if family in wanted and family not in heard:
            journal.say("warning", f"not listening over {name}: {why}")
    try:
        port_rivals.rivals(sockets, settings.port)
    except OSError as error:
        journal.say("warning", f"cannot check who else holds the port: sock_diag: {error.strerror}")
    return sockets
