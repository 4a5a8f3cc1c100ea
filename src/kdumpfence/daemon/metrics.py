# SPDX-License-Identifier: GPL-2.0-or-later
"""What kdumpfenced tells Prometheus, and whether it is well: /metrics and /health.

The daemon publishes figures when it has new ones; a request is answered from the newest, in a
thread of its own, and waits for nothing. That thread is the one small HTTP server here: what a
client can cost it is bounded in connections, bytes and seconds. What may not be in this file:
the walk over all nodes, and what is made of a figure.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kdumpfence import wire
from kdumpfence._version import __version__

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Of one connection: seconds from first to last, and bytes of the request.
PATIENCE = 5.0
MOST_REQUEST = 8192

#: Connections at a time; one more, and the oldest has to go.
MOST_CONNECTIONS = 32

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


class Metrics:
    """The figures in the form that Prometheus reads.

    `health` says what is wrong, "" if nothing is. Raises MetricsError without prometheus-client.
    """

    def __init__(self, health: Callable[[], str]) -> None:
        try:
            import prometheus_client
            from prometheus_client import core
        except ImportError:
            raise MetricsError(
                "[metrics] port is set, but this Python has no prometheus-client: "
                "install it, or take the port out"
            ) from None
        self._core = core
        self._health = health
        self._figures = Figures()
        self._started = time.time()
        self._registry = prometheus_client.CollectorRegistry()
        self._latest = prometheus_client.generate_latest
        self._dump_seconds = prometheus_client.Histogram(
            "kdumpfence_dump_seconds",
            "How long dumps took, from their first message to their last",
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._registry.register(self)

    def publish(self, figures: Figures) -> None:
        """These are the figures from now on."""
        self._figures = figures

    def dump_ended(self, seconds: float) -> None:
        """A dump is over; so long it was from first to last message."""
        self._dump_seconds.observe(max(0.0, seconds))

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return self._latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All but the histogram, for the registry."""
        now = self._figures
        gauge, counter = self._core.GaugeMetricFamily, self._core.CounterMetricFamily
        yield gauge("kdumpfence_dumping", "Nodes that are dumping now", now.dumping)
        yield counter("kdumpfence_dumps", "Dumps that began", now.dumps)
        yield gauge("kdumpfence_nodes", "Nodes that are known", now.nodes)
        yield gauge("kdumpfence_unresolved", "Nodes with a name without an address", now.unresolved)
        datagrams = counter(
            "kdumpfence_datagrams", "Datagrams that came to the port", labels=["verdict"]
        )
        for verdict, count in now.counts.items():
            datagrams.add_metric([verdict], count)
        yield datagrams
        nodes = gauge(
            "kdumpfence_node_dump_start_time_seconds",
            "First message of a dump that is under way; of the oldest dumps only",
            labels=["node"],
        )
        for node, since in now.oldest:
            nodes.add_metric([node], since)
        yield nodes
        yield gauge(
            "kdumpfence_oldest_dump_start_time_seconds",
            "First message of the oldest dump under way, 0 without one",
            now.oldest_since,
        )
        yield gauge(
            "kdumpfence_last_event_timestamp_seconds",
            "When anything last happened to a node, 0 before that",
            now.last_event,
        )
        yield counter(
            "kdumpfence_history_errors",
            "Attempts to write to the history that failed",
            now.history_errors,
        )
        yield gauge(
            "kdumpfence_history_held", "Dumps that wait to be written to it", now.history_held
        )
        yield counter(
            "kdumpfence_history_lost", "Dumps that it lacks for want of room", now.history_lost
        )
        yield counter(
            "kdumpfence_log_lines_left_out", "Lines that the log was spared", now.log_left_out
        )
        yield gauge(
            "kdumpfence_settings_refused",
            "1 if the settings file was refused when it was last read",
            float(now.settings_refused),
        )
        yield gauge(
            "kdumpfence_deaf",
            "1 if messages may not reach the daemon, since others hold its port too, say",
            float(now.deaf),
        )
        yield gauge("kdumpfence_healthy", "What /health says: 1 is well", float(not self._health()))
        yield gauge("kdumpfence_start_time_seconds", "When the daemon started", self._started)
        build = gauge("kdumpfence_build_info", "Always 1", labels=["version", "core", "python"])
        build.add_metric([__version__, wire.IMPLEMENTATION, platform.python_version()], 1)
        yield build

    def answer(self, path: str) -> tuple[str, str, bytes]:
        """Status, type and content for what is asked for."""
        if path == "/metrics":
            return "200 OK", "text/plain; version=0.0.4; charset=utf-8", self.page()
        if path == "/health":
            trouble = self._health()
            status = "503 Service Unavailable" if trouble else "200 OK"
            return status, "text/plain; charset=utf-8", f"{trouble or 'well'}\n".encode()
        return "404 Not Found", "text/plain", b"there are /metrics and /health\n"


# ------------------------------------------------------------------ the HTTP server


class _Connection:
    """One client: what it asked so far, or what it is still to be given."""

    __slots__ = ("answer", "asked", "deadline", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.deadline = time.monotonic() + PATIENCE
        self.asked = b""
        self.answer: memoryview | None = None


class Server:
    """Answers GET and HEAD, each connection once, in one thread of its own.

    `answer` gets a path and gives status, content type and content. It listens from the
    beginning (MetricsError if it cannot), and answers from `start` on.
    """

    def __init__(
        self, address: str, port: int, answer: Callable[[str], tuple[str, str, bytes]]
    ) -> None:
        self._answer = answer
        self._connections: dict[int, _Connection] = {}
        self._poll = select.poll()
        self._thread: threading.Thread | None = None
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            self._listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._listener.bind((address, port))
                self._listener.listen(MOST_CONNECTIONS)
            except OSError:
                self._listener.close()
                raise
        except OSError as error:
            raise MetricsError(
                f"metrics cannot listen on {address} port {port}: {os.strerror(error.errno or 0)}"
            ) from None
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Answer from now on."""
        thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        thread.start()
        self._thread = thread  # not before: `close` waits for it

    def close(self) -> None:
        """End at once; whoever is still being answered is cut off."""
        os.write(self._stop_write, b".")
        if self._thread is not None:
            self._thread.join(1.0)
            if self._thread.is_alive():
                return  # it still makes a page; its sockets go with the process
        for connection in self._connections.values():
            connection.sock.close()
        self._listener.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _run(self) -> None:
        self._poll.register(self._stop_read, select.POLLIN)
        self._poll.register(self._listener, select.POLLIN)
        while True:
            deadlines = [connection.deadline for connection in self._connections.values()]
            patience = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
            for fd, _ in self._poll.poll(None if patience is None else patience * 1000 + 1):
                if fd == self._stop_read:
                    return
                if fd == self._listener.fileno():
                    self._accept()
                elif fd in self._connections:
                    self._serve(self._connections[fd])
            now = time.monotonic()
            for connection in list(self._connections.values()):
                if connection.deadline <= now:
                    self._drop(connection)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            time.sleep(0.01)  # no descriptor to be had, say: not in a hurry, then
            return
        sock.setblocking(False)
        if len(self._connections) >= MOST_CONNECTIONS:
            self._drop(next(iter(self._connections.values())))
        self._connections[sock.fileno()] = _Connection(sock)
        self._poll.register(sock, select.POLLIN)

    def _drop(self, connection: _Connection) -> None:
        fd = connection.sock.fileno()
        self._poll.unregister(fd)
        del self._connections[fd]
        connection.sock.close()

    def _serve(self, connection: _Connection) -> None:
        """Go on with a client that can be read from or written to."""
        try:
            if connection.answer is None:
                part = connection.sock.recv(MOST_REQUEST)
                connection.asked += part
                whole = b"\r\n\r\n" in connection.asked or b"\n\n" in connection.asked
                if not part or (len(connection.asked) > MOST_REQUEST and not whole):
                    self._drop(connection)
                    return
                if not whole:
                    return
                connection.answer = memoryview(self._reply(connection.asked))
                self._poll.modify(connection.sock, select.POLLOUT)
            sent = connection.sock.send(connection.answer)
            connection.answer = connection.answer[sent:]
            if not connection.answer:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_WR)
                self._drop(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)

    def _reply(self, asked: bytes) -> bytes:
        words = asked.split(b"\n", 1)[0].split()
        more = ""
        if len(words) != 3 or not words[2].startswith(b"HTTP/1"):
            status, kind, content = "400 Bad Request", "text/plain", b"no request\n"
        elif words[0] not in (b"GET", b"HEAD"):
            status, kind, content = "405 Method Not Allowed", "text/plain", b"GET or HEAD\n"
            more = "Allow: GET, HEAD\r\n"
        else:
            path = words[1].split(b"?", 1)[0].decode("latin-1")
            try:
                status, kind, content = self._answer(path)
            except Exception as error:  # a fault of ours must not end the thread
                status, kind = "500 Internal Server Error", "text/plain"
                content = f"{type(error).__name__}\n".encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
            f"{more}Connection: close\r\n\r\n"
        )
        return head.encode() + (b"" if words[:1] == [b"HEAD"] else content)
