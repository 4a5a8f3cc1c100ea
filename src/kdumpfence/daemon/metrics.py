# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kdumpfenced tells Prometheus, and whether it is well: /metrics and /health.

The daemon publishes figures when it has new ones; a request is answered from the newest, and
waits for nothing. What may not be in this file: sockets, and how a figure comes about.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kdumpfence import wire
from kdumpfence._version import __version__
from kdumpfence.daemon.http import Reply, as_text
from kdumpfence.daemon.http_request import Request
from kdumpfence.listener.events import ENDS, Kind

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Seconds: the bounds of the histogram of dumps.
BUCKETS = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800)


class MetricsError(Exception):
    """Metrics cannot be had; one line says why."""


class Figures(NamedTuple):
    """What the daemon knows at a moment. Times are Unix time in seconds."""

    #: Dumps under way.
    dumping: int = 0
    #: (node, first message) of those that began first, as many as are to be told by name.
    oldest: Sequence[tuple[str, float]] = ()
    #: When the oldest of all began; 0: none is under way.
    oldest_since: float = 0.0
    #: Nodes that are known, and those of them with a name that has no address.
    nodes: int = 0
    unresolved: int = 0
    #: Datagrams by verdict.
    counts: Mapping[str, int] = {}
    #: When anything last happened to a node; 0: nothing did.
    last_event: float = 0.0
    #: Since the start: dumps that began, attempts to write to the history that failed, dumps
    #: that it lacks for want of room, lines that the log was spared.
    dumps: int = 0
    history_errors: int = 0
    history_lost: int = 0
    log_left_out: int = 0
    #: Dumps of which the history does not have the newest yet.
    history_held: int = 0
    #: Whether the settings file was refused when it was last read.
    settings_refused: bool = False
    #: Whether messages may not reach it.
    deaf: bool = False
    #: Questions that were answered.
    answers: int = 0
    #: Whether the kernel counts messages that say nothing new.
    counting_in_kernel: bool = False
    #: Whether a database does not get what happens, what it does not have yet, failures to hand
    #: something on, and events that were given up: too many, or refused.
    database_trouble: bool = False
    database_waiting: int = 0
    database_errors: int = 0
    database_lost: int = 0


#: What is just one of the Figures: name without its prefix -> help, field.
GAUGES = {
    "dumping": ("Nodes currently dumping", "dumping"),
    "nodes": ("Nodes in the settings", "nodes"),
    "unresolved": ("Nodes with an unresolved name", "unresolved"),
    "oldest_dump_start_time_seconds": (
        "Start of the oldest dump in progress, 0 if none",
        "oldest_since",
    ),
    "last_event_timestamp_seconds": ("Time of the last event, 0 if none", "last_event"),
    "history_held": ("Dumps waiting to be written to the history", "history_held"),
    "settings_refused": (
        "1 if the settings file was refused at the last reload",
        "settings_refused",
    ),
    "deaf": ("1 if messages may not reach the daemon", "deaf"),
    "counting_in_kernel": ("1 if the kernel counts repeated messages", "counting_in_kernel"),
    "database_trouble": ("1 if the database does not get what happens", "database_trouble"),
    "database_waiting": ("Events waiting to be handed on to the database", "database_waiting"),
}
COUNTERS = {
    "dumps": ("Dumps started", "dumps"),
    "history_errors": ("Failed writes to the history", "history_errors"),
    "history_lost": ("Dumps that never reached the history", "history_lost"),
    "log_lines_left_out": ("Log lines suppressed or lost", "log_left_out"),
    "answers": ("Questions answered", "answers"),
    "database_errors": ("Failed attempts to hand events on to the database", "database_errors"),
    "database_lost": ("Events that never reached the database", "database_lost"),
}


class Metrics:
    """The figures in the form that Prometheus reads.

    `health` says what is wrong, "" if nothing is; `page`: there is a status page at /, too. Raises
    MetricsError without prometheus-client.
    """

    def __init__(self, health: Callable[[], str], page: bool = False) -> None:
        try:
            import prometheus_client
            from prometheus_client import core
        except ImportError:
            raise MetricsError(
                "[metrics] port is set, but prometheus-client is not installed: "
                "install it, or remove the port"
            ) from None
        self._core = core
        self._health = health
        self._paths = "/, /metrics and /health" if page else "/metrics and /health"
        self._figures = Figures()
        self._started = time.time()
        self._registry = prometheus_client.CollectorRegistry()
        self._latest = prometheus_client.generate_latest
        self._dump_seconds = prometheus_client.Histogram(
            "kdumpfence_dump_seconds",
            "Length of dumps, from first to last message",
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._ends = dict.fromkeys(ENDS, 0)
        self._registry.register(self)

    def publish(self, figures: Figures) -> None:
        """These are the figures from now on."""
        self._figures = figures

    def dump_ended(self, how: Kind, seconds: float | None) -> None:
        """A dump is over, in one of ENDS; so long it was from first to last message.

        None: that was told already, with another end.
        """
        self._ends[how] += 1
        if seconds is not None:
            self._dump_seconds.observe(max(0.0, seconds))

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return self._latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All but the histogram, for the registry."""
        now = self._figures
        gauge, counter = self._core.GaugeMetricFamily, self._core.CounterMetricFamily
        for family, figures in ((gauge, GAUGES), (counter, COUNTERS)):
            for name, (text, figure) in figures.items():
                yield family(f"kdumpfence_{name}", text, float(getattr(now, figure)))
        datagrams = counter(
            "kdumpfence_datagrams", "Datagrams received on the port, by verdict", labels=["verdict"]
        )
        for verdict, count in now.counts.items():
            datagrams.add_metric([verdict], count)
        yield datagrams
        ended = counter("kdumpfence_dumps_ended", "Dumps that ended, by how", labels=["end"])
        for how, count in self._ends.items():
            ended.add_metric([how], count)
        yield ended
        nodes = gauge(
            "kdumpfence_node_dump_start_time_seconds",
            "Start of a dump in progress; at most [metrics] nodes of them, the oldest ones",
            labels=["node"],
        )
        for node, since in now.oldest:
            nodes.add_metric([node], since)
        yield nodes
        yield gauge("kdumpfence_healthy", "1 if /health is 200", float(not self._health()))
        yield gauge("kdumpfence_start_time_seconds", "Start time of the daemon", self._started)
        build = gauge("kdumpfence_build_info", "Always 1", labels=["version", "core", "python"])
        build.add_metric([__version__, wire.IMPLEMENTATION, platform.python_version()], 1)
        yield build

    def answer(self, request: Request) -> Reply:
        """What is asked for, as http.Handler."""
        if request.method not in ("GET", "HEAD"):
            return as_text(405, "GET or HEAD")._replace(headers=(("Allow", "GET, HEAD"),))
        if request.path == "/metrics":
            return Reply(200, "text/plain; version=0.0.4; charset=utf-8", self.page())
        if request.path == "/health":
            trouble = self._health()
            return as_text(503 if trouble else 200, trouble or "well")
        return as_text(404, f"there are {self._paths}")
