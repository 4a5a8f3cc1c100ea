# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real kdumpfenced, on loopback, with everything of its own below one folder."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from kdumpfence import wire
from kdumpfence.client import Client, ClientError, Status
from kdumpfence.daemon.history import History, HistoryError
from kdumpfence.daemon.history_reading import Past
from tests.conftest import udp, unused_port
from tests.support.netlab import Host

PROGRAM = (sys.executable, "-m", "kdumpfence.daemon")
COMMAND = (sys.executable, "-m", "kdumpfence.cli")
NODE = "127.3.0.7"
MESSAGE = wire.encode("little")
Found = TypeVar("Found")


def until(look: Callable[[], Found], seconds: float = 60) -> Found:
    """What `look` finds as soon as it finds something."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"nothing within {seconds} s"
        time.sleep(0.02)


def patched(change: str) -> list[str]:
    """The program with something of it changed: these lines of Python come before it starts."""
    names = "control, forwarder, health, history, http, loop, main, privileges, recorder, teller"
    return [
        sys.executable,
        "-c",
        f"import os, time\nfrom kdumpfence.daemon import {names}\n{change}\nmain.script()\n",
    ]


class Kdumpfenced:
    """One daemon: its settings, its process, and what it says."""

    def __init__(self, folder: Path, core: str = "compiled", counting: str = "user") -> None:
        self.folder = folder
        self.core = core
        self.counting = counting
        self.port = unused_port()
        self.metrics_port = unused_port()
        self.http_port = unused_port()
        self.settings = folder / "kdumpfenced.toml"
        self.history = folder / "history.sqlite"
        self.control = folder / "control"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(
        self,
        top: str = 'networks = ["127.0.0.0/8"]',
        nodes: str = "",
        log: str = "",
        metrics: str = "",
        history: str = "",
        http: bool = False,
    ) -> None:
        """Write the settings file."""
        self.settings.write_text(
            f'port = {self.port}\nqueue = "1M"\n{top}\n'
            f'[listen]\ncounting = "{self.counting}"\n'
            f'[history]\npath = "{self.history}"\n{history}\n[control]\npath = "{self.control}"\n'
            f"[metrics]\nport = {self.metrics_port}\n{metrics}\n[log]\n{log}\n[nodes]\n{nodes}\n"
            + (f"[http]\nport = {self.http_port}\n" if http else "")
        )

    def environment(self) -> dict[str, str]:
        """That of a shell, with this core."""
        return {**os.environ, "KDUMPFENCE_PURE": "1" if self.core == "pure" else "0"}

    def start(
        self,
        wrapper: Sequence[str] = (),
        wait: bool = True,
        environment: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """Start it; return as soon as it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*wrapper, *program, "--config", str(self.settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment(), **(environment or {})},
                pass_fds=pass_fds,
            )
        if wait:
            until(self.answers)

    def start_on(self, host: Host) -> None:
        """Start it on a host of a lab, on the usual port."""
        with self.log.open("a") as log:
            self.process = host.popen(  # type: ignore[assignment]
                [*PROGRAM, "--config", self.settings], stdout=log, stderr=log
            )
        until(self.answers)

    def answers(self) -> bool:
        """Whether it does already; it must not have ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        with contextlib.suppress(ClientError):
            self.status()
            return True
        return False

    def run(
        self, *arguments: str, wrapper: Sequence[str] = (), program: Sequence[str] = PROGRAM
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end, which should be soon."""
        return subprocess.run(
            [*wrapper, *program, "--config", str(self.settings), *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; the exit status."""
        self.send(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        assert self.process is not None
        return self.process.wait(60)

    def reload(self) -> None:
        """Let it read its settings again."""
        self.send(signal.SIGHUP)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    # What it says

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text() if self.log.exists() else ""

    def says(self, text: str) -> str:
        """Wait for a line that has this text."""

        def look() -> str:
            return next((line for line in self.said().splitlines() if text in line), "")

        try:
            return until(look)
        except AssertionError:
            raise AssertionError(f"{text!r} is not said: {self.said()}") from None

    def status(self) -> Status:
        """Ask it."""
        with Client(str(self.control)) as client:
            return client.status()

    def dumping(self) -> set[str]:
        """The nodes that it says are dumping."""
        return {dump.node for dump in self.status().dumps}

    def get(self, path: str) -> tuple[int, str]:
        """A page of its web server: HTTP status and text."""
        url = f"http://127.0.0.1:{self.metrics_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def page_with(self, text: str) -> str:
        """Its metrics, as soon as they have that."""

        def look() -> str:
            page = self.get("/metrics")[1]
            return page if text in page else ""

        return until(look)

    def is_well(self) -> bool:
        """What /health says."""
        return self.get("/health") == (200, "well\n")

    def past(self, node: str | None = None) -> list[Past]:
        """What its history holds; [] before it has one, or if it was killed at once."""
        try:
            with contextlib.closing(History(str(self.history), writable=False)) as history:
                return history.past(node, most=10**6)
        except HistoryError as error:
            if "no history at" not in str(error):
                raise
            return []

    # What it hears

    def hear(self, *nodes: str, data: bytes = MESSAGE) -> None:
        """Let these addresses send a message to it."""
        for node in nodes:
            with udp(node) as sock:
                sock.sendto(data, ("127.0.0.1" if ":" not in node else "::1", self.port))

    def hears(self, *nodes: str) -> None:
        """Let these addresses send a message; return as soon as they alone are dumping."""
        self.hear(*nodes)
        until(lambda: self.dumping() == set(nodes))

    def storm(self, *options: str) -> subprocess.Popen[bytes]:
        """`kdumpfence storm` on its port, started; its summary is JSON."""
        return subprocess.Popen(
            [*COMMAND, "storm", f"--port={self.port}", "--json", *options],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@contextlib.contextmanager
def neighbour(program: str, *arguments: str) -> Iterator[None]:
    """A process of the user nobody that has done this, and keeps what it opened meanwhile."""
    nobody = (
        "import contextlib, os, socket, sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    )
    ready = "print('ready', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", nobody + program + ready, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        process.communicate("")


class Manager:
    """A service manager's end of sd_notify."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(self.path)
        self.heard: list[str] = []

    def read(self, seconds: float = 0.0) -> list[str]:
        """All lines that came, waiting that long for one more."""
        while select.select([self._sock], [], [], seconds)[0]:
            self.heard += self._sock.recv(65536).decode().split("\n")
            seconds = 0.0
        return self.heard

    def hears(self, line: str, seconds: float = 60) -> None:
        """Wait for a line that begins so."""
        end = time.monotonic() + seconds
        while not any(one.startswith(line) for one in self.read(0.1)):
            assert time.monotonic() < end, f"no {line}: {self.heard}"

    def close(self) -> None:
        """Nobody listens any more."""
        self._sock.close()
