# SPDX-License-Identifier: LGPL-2.1-or-later
"""The main loop of kdumpfenced: wires the rooms together, and says whose turn it is.

What happens goes its way in `teller`, what is shown is made in `published`, new settings are
applied in `in_force`. What may not be in this file: sockets of messages, SQL, the form of any
output, and any decision but whose turn it is.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import select
import time

from kdumpfence.daemon import (
    api,
    control,
    counting,
    directories,
    handing_on,
    http,
    privileges,
    relay,
    status,
    systemd,
)
from kdumpfence.daemon.errors import DaemonError, starting_threads
from kdumpfence.daemon.formats import many
from kdumpfence.daemon.health import Health
from kdumpfence.daemon.history import History, HistoryInUse
from kdumpfence.daemon.in_force import SettingsInForce, wants_repeats
from kdumpfence.daemon.keyring import Keyring
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.port import open_port
from kdumpfence.daemon.published import Published
from kdumpfence.daemon.questions import Questions
from kdumpfence.daemon.recorder import Recorder
from kdumpfence.daemon.reload import Reload
from kdumpfence.daemon.settings import Settings
from kdumpfence.daemon.status_server import Server
from kdumpfence.daemon.teller import Teller
from kdumpfence.daemon.told import Told
from kdumpfence.daemon.waits import Waits
from kdumpfence.listener.events import Dump
from kdumpfence.listener.listener import Listener
from kdumpfence.signals import Wakeup

#: Seconds: the longest round of the main loop.
PULSE = 0.5

#: Seconds at the end, once all is written, for handing on to the database what it does not have,
#: at most.
LAST_HANDED_ON = 2.0

#: Seconds between two looks at how old what the history holds is.
TRIM_EVERY = 3600.0

#: Seconds between two looks whether its file is still there.
LOOK_EVERY = 1.0

#: Dumps under way below which a collection of garbage takes no time worth speaking of.
CALM = 2000


class Daemon:
    """Everything while it runs. Opens what it needs; DaemonError if it cannot work."""

    def __init__(self, settings: Settings, service: systemd.Notify, journal: Journal) -> None:
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
        #: To the database, if there is one.
        self.forwarder = handing_on.forwarder(
            settings, self.recorder, lambda: self.in_force.settings
        )
        self.health = Health(journal, self.recorder, self.forwarder)
        self.told = Told()
        self.questions = Questions()
        self._next_figures = self._next_trim = self._next_look = self._next_stand = 0.0
        with contextlib.ExitStack() as undo:
            with starting_threads():
                self._open(settings, undo)
            self._undo = undo.pop_all()

    def _open(self, settings: Settings, undo: contextlib.ExitStack) -> None:
        # First what may need rights, then their end, and only then threads and strangers.
        sockets = open_port(settings, self.journal.say)
        for sock in sockets:
            undo.callback(sock.close)
        way = counting.load(settings, sockets, self.journal.say)
        directories.make(settings)
        self.published = Published(
            settings,
            self.told,
            self._known,
            self.health,
            self.recorder,
            self.journal,
            self.forwarder,
            self.questions,
            self.service,
        )
        handler = self.published.handler
        if handler is not None:
            where = settings.metrics_address, settings.metrics_port
            self.health.pages.append(http.Pages(*where, handler, self.journal.say))
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
        keyring = Keyring(settings, self.journal.say)
        answer, keys = keyring.answers(settings)
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
                keys=keyring.cluster or keys,
                counting=way,
                tell_repeats=wants_repeats(settings, self.journal),
            )
        except ValueError as error:
            raise DaemonError(str(error)) from None
        undo.callback(self.listener.close)
        self.in_force = SettingsInForce(
            settings,
            self.listener,
            self.told,
            self.journal,
            self.recorder,
            self.health,
            keyring,
            way,
        )
        self.published.open_page(settings, self.listener.listens_for)
        self.teller = Teller(
            self.listener,
            self.recorder,
            self.told,
            self.journal,
            self.published,
            self.forwarder,
            self._news,
        )
        self.teller.restore(before)
        if self.forwarder is not None:
            self.forwarder.start()
        passed_on = relay.Relay(self.listener.port, lambda: keyring.cluster)
        undo.callback(passed_on.close)
        sources = control.Sources(
            self._known,
            self.listener.listens_for,
            proof=self.in_force.proof,
            doubt=self.health.doubt,
            look=self.teller.look,
            trouble=self.health.trouble,
            waits=Waits(self.told, self.listener, passed_on, settings.auth).answer,
        )
        self.questions.answers = control.Answers(self.told, sources)

    def _known(self, nodes: list[str]) -> list[Dump | None]:
        """Their dumps, without a look who fell silent: that is told when it is written."""
        return self.listener.dumps(nodes, fresh=False)

    def _news(self) -> None:
        """Those who wait for what is told have something to read."""
        self.control.news()
        for pages in self.health.pages:
            pages.news()

    # The main loop

    def run(self) -> None:
        """Work until `ending` says why it is to end."""
        with starting_threads():
            for pages in self.health.pages:
                pages.start()
        self._publish()
        self._ready()
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
        self.teller.take()
        now = time.monotonic()
        self._follow_settings()
        if now >= self._next_trim:
            self._next_trim = now + TRIM_EVERY
            self._trim()
        if now >= self._next_stand:
            self._next_stand = now + self.in_force.settings.repeat
            self.teller.stand()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self.recorder.look()
            self._look_at_database()
        with starting_threads():
            for pages in self.health.pages:
                pages.look()
        if now >= self._next_figures:
            self._publish()
        self.journal.flush()
        self.health.beat()
        self.service.alive()

    def _follow_settings(self) -> None:
        if self.reload.wanted and not self.reload.under_way:
            self.service.reloading()
            self.reload.start()
        result = self.reload.result()
        if result is not None:
            if self.in_force.apply(result):
                self._next_trim = 0.0  # the history may have to be smaller
            self._ready()

    def _ready(self) -> None:
        self.service.ready(self.published.summary(self.in_force.settings))

    def _trim(self) -> None:
        removed = self.recorder.trim(self.in_force.settings.history_days * 86400)
        if removed:
            self.journal.say("info", f"history: removed {many(removed, 'old dump', 'old dumps')}")
        if len(self.told) < CALM:
            gc.collect()  # there is hardly anything: no object refers to itself here

    def _look_at_database(self) -> None:
        if self.forwarder is not None:
            handing_on.look(
                self.forwarder,
                self.recorder,
                len(self.told),
                self.health.trouble(),
                self.journal.say,
            )

    def _publish(self) -> None:
        self._next_figures = time.monotonic() + PULSE / 2
        now = self.listener.snapshot(fresh=False, dumps=False)
        self.health.look(now)
        self.published.publish(now, self.in_force.settings)

    # The end

    def close(self) -> None:
        """Write down what is still to be had, and close everything."""
        self.service.stopping()
        self.teller.finish(self.service.alive)
        if self.forwarder is not None:
            self.forwarder.finish(LAST_HANDED_ON)
            self._look_at_database()
        self._undo.close()
        self.journal.flush(last=True)
        self.journal.say("info", f"kdumpfenced is stopping: {self.ending or 'internal error'}")
        self.journal.flush()
