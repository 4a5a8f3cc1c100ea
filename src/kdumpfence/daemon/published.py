# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon shows of itself: to those who ask, on the status page, to Prometheus and systemd.

The main loop has it published a few times a second; what takes time is only made when somebody
asks, by the thread that answers. What may not be in this file: the form of any output, and where
it is asked for.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kdumpfence._version import __version__
from kdumpfence.daemon import control, metrics, status, systemd
from kdumpfence.daemon.health import Health
from kdumpfence.daemon.http import Handler
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.page.own import Own
from kdumpfence.daemon.page.site import Site
from kdumpfence.daemon.page.view import MOST_PAST
from kdumpfence.daemon.questions import Questions
from kdumpfence.daemon.recorder import Recorder
from kdumpfence.daemon.settings import Settings
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import ENDS, Event, length
from kdumpfence.listener.listener import Snapshot

if TYPE_CHECKING:
    from kdumpfence.daemon.forwarder import Forwarder

#: Seconds between two lines for `systemctl status`.
SUMMARY_EVERY = 1.0


class Published:
    """Made of what these have. `figures`: see `control.Sources`.

    Raises MetricsError if there are to be metrics and they cannot be had.
    """

    def __init__(
        self,
        settings: Settings,
        told: Told,
        figures: control.Figures,
        health: Health,
        recorder: Recorder,
        journal: Journal,
        forwarder: Forwarder | None,
        questions: Questions,
        service: systemd.Notify,
    ) -> None:
        self._told = told
        self._figures = figures
        self._health = health
        self._recorder = recorder
        self._journal = journal
        self._forwarder = forwarder
        self._questions = questions
        self._service = service
        self.metrics: metrics.Metrics | None = None
        #: The status page, and what it is made of.
        self._site: Site | None = None
        self._own: Own | None = None
        if settings.metrics_port:
            self.metrics = metrics.Metrics(health.trouble, settings.metrics_page)
            if settings.metrics_page:
                self._site = Site(self.metrics.answer, settings.metrics_address)
        self._started = time.monotonic()
        #: Dumps that began since the start.
        self.dumps = 0
        self._last_event = 0.0
        self._said = ""
        self._next_summary = 0.0

    @property
    def handler(self) -> Handler | None:
        """Who answers on the metrics port, if there is one."""
        if self._site is not None:
            return self._site.answer
        return None if self.metrics is None else self.metrics.answer

    def open_page(self, settings: Settings, listens_for: Callable[[str], bool]) -> None:
        """From now on there is something to see on the status page."""
        if self._site is not None:
            self._site.source = self._own = Own(
                self._told,
                self._figures,
                listens_for,
                settings.name,
                settings.silence,
                self._health.trouble,
                self._recorder.past(MOST_PAST),
                self._forwarder.around if self._forwarder is not None else lambda: None,
            )

    def happened(self, event: Event, before: Event | None) -> None:
        """It was told just now; `before`: what was told of its dump last, if that was under way."""
        self._last_event = event.when
        self.dumps += event.kind == "began"
        if event.kind not in ENDS:
            return
        if self.metrics is not None:
            # One that contradicts an earlier end is no further dump.
            self.metrics.dump_ended(event.kind, None if before is None else length(event))
        if self._own is not None:
            self._own.ended(event)

    def publish(self, now: Snapshot, settings: Settings) -> None:
        """So it is now, with these settings in force."""
        moment = time.monotonic()
        if self.metrics is not None:
            self.metrics.publish(self._for_metrics(now, settings.metrics_nodes))
        # From the threads that answer, and only when somebody asks.
        published = functools.cache(
            functools.partial(self._status, now, moment - self._started, self._health.troubles())
        )
        self._questions.publish(published)
        if self._own is not None:
            self._own.publish(published)
        summary = self.summary(settings)
        if summary != self._said and moment >= self._next_summary:
            self._said = summary
            self._next_summary = moment + SUMMARY_EVERY
            self._service.status(summary)

    def summary(self, settings: Settings) -> str:
        """All of it in a line, for the service manager."""
        text = f"dumping: {len(self._told)}; nodes in the settings: {len(settings.nodes)}"
        if self._health.deaf:
            text += f"; messages may be missed: {self._health.deaf}"
        if self._recorder.trouble:
            text += f"; history: {self._recorder.trouble}"
        return text

    def _status(self, now: Snapshot, up: float, troubles: list[str]) -> status.Status:
        return status.Status(
            version=__version__,
            up=up,
            when=now.when,
            nodes=now.nodes,
            unresolved=now.unresolved[: status.MOST_UNRESOLVED],
            dumping=len(self._told),
            # Only what was told; but with the newest that is known of it.
            dumps=control.current(self._told.newest(status.MOST), self._figures),
            ended=[one.event for one in self._told.ended(None, status.MOST_ENDED)],
            counts=now.counts,
            troubles=troubles,
            unresolved_nodes=len(now.unresolved),
            counting=now.counting,
        )

    def _for_metrics(self, now: Snapshot, most: int) -> metrics.Figures:
        """`most`: dumps that are told by name."""
        oldest = [(event.node, event.since) for event in self._told.oldest(max(1, most))]
        health, recorder, forwarder = self._health, self._recorder, self._forwarder
        return metrics.Figures(
            dumping=len(self._told),
            oldest=oldest[:most],
            oldest_since=oldest[0][1] if oldest else 0.0,
            nodes=now.nodes,
            unresolved=len(now.unresolved),
            counts=now.counts,
            last_event=self._last_event,
            dumps=self.dumps,
            history_errors=recorder.errors,
            history_lost=recorder.lost,
            log_left_out=self._journal.left_out,
            history_held=recorder.held,
            settings_refused=health.settings_refused or health.keys_refused,
            deaf=bool(health.deaf),
            answers=now.answers,
            counting_in_kernel=now.counting == "kernel",
            database_trouble=forwarder is not None and bool(forwarder.trouble),
            database_waiting=forwarder.waiting if forwarder is not None else 0,
            database_errors=forwarder.errors if forwarder is not None else 0,
            database_lost=recorder.outbox.lost if recorder.outbox is not None else 0,
        )
