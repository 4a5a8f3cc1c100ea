# SPDX-License-Identifier: GPL-2.0-or-later
"""Listeners in processes of their own: stopped, flooded, ended by signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.listener.conftest import PATIENCE, wait_for

PROGRAM = Path(__file__).with_name("program.py")
A, B = "127.7.4.1", "127.7.4.2"


class Program:
    """The running program; `said` is what it printed so far."""

    def __init__(self, core_name: str, **options: Any) -> None:
        environment = {**os.environ, "KDUMPFENCE_PURE": "1" if core_name == "pure" else "0"}
        options.setdefault("queue", 1 << 20)
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.said: list[list[Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def wait_for(self, enough: Callable[[list[list[Any]]], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not enough(self.said):
            assert time.monotonic() < end, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.01)

    @property
    def port(self) -> int:
        self.wait_for(bool)
        return int(self.said[0][1])

    def kinds(self) -> list[str]:
        return [thing[0] for thing in self.said[1:]]

    def stop(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.process.pid}/stat")
        wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def counts(self) -> tuple[dict[str, int], bool]:
        before = self.kinds().count("counts")
        self.process.send_signal(signal.SIGUSR1)
        self.wait_for(lambda _: self.kinds().count("counts") > before)
        _, counts, fenced = [thing for thing in self.said if thing[0] == "counts"][-1]
        return counts, fenced

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(core_name: str) -> Iterator[Callable[..., Program]]:
    """Starts the program with each core, and ends it after the test."""
    with contextlib.ExitStack() as started:

        def make(**options: Any) -> Program:
            program = Program(core_name, **options)
            started.callback(program.end)
            return program

        yield make


@contextlib.contextmanager
def dumping(host: str, port: int) -> Iterator[None]:
    """A node that says every 0.1 s that it is dumping."""
    over = threading.Event()

    def send() -> None:
        with udp(host) as sock:
            while not over.is_set():
                sock.sendto(OWN_MESSAGE, ("127.0.0.1", port))
                over.wait(0.1)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_a_listener_that_was_stopped_hears_what_came_meanwhile_before_it_decides(
    start: Callable[..., Program],
) -> None:
    program = start(nodes={"node1": [A]}, silence=2.0)
    with dumping(A, program.port):
        program.wait_for(lambda _: program.kinds() == ["began"])
        for _ in range(2):
            program.stop()
            time.sleep(2.5)
            program.go_on()
            time.sleep(0.4)
        assert program.kinds() == ["began"]
    program.wait_for(lambda _: program.kinds() == ["began", "silent"])


@pytest.mark.slow
def test_a_listener_that_was_stopped_notices_who_fell_silent_meanwhile(
    start: Callable[..., Program],
) -> None:
    program = start(nodes={"node1": [A], "node2": [B]}, silence=2.0)
    with dumping(A, program.port):
        with dumping(B, program.port):
            program.wait_for(lambda _: program.kinds() == ["began", "began"])
            program.stop()
        with udp("127.0.0.1") as own:  # what lay in the queue is read, and node2 is over
            own.sendto(b"", ("127.0.0.1", program.port))
        time.sleep(2.5)
        program.go_on()
        program.wait_for(lambda _: len(program.kinds()) == 3)
        assert program.said[-1][:2] == ["silent", "node2"]


@pytest.mark.slow
def test_an_overfull_queue_is_counted_and_told_and_rubbish_then_kept_out(
    start: Callable[..., Program],
) -> None:
    program = start(nodes={"node1": [A]}, queue=65536)
    with udp(B) as stranger, udp(A) as node:
        target = ("127.0.0.1", program.port)
        assert not program.counts()[1]
        program.stop()
        for _ in range(2000):
            stranger.sendto(b"rubbish!", target)
        program.go_on()
        program.wait_for(lambda _: "overflow" in program.kinds())
        (overflow,) = (thing for thing in program.said if thing[0] == "overflow")
        counts, fenced = program.counts()
        assert overflow[1] == "unread"
        assert overflow[5] == counts["unread"] > 1000
        assert counts["unread"] + counts["magic"] == 2000
        assert fenced
        # From now on rubbish takes no room, and the message finds some.
        program.stop()
        for _ in range(2000):
            stranger.sendto(b"rubbish!", target)
        node.sendto(OWN_MESSAGE, target)
        program.go_on()
        program.wait_for(lambda _: "began" in program.kinds())
        counts, _ = program.counts()
        assert counts["unread"] + counts["magic"] == 4000


def test_an_agent_beside_it_hears_the_same_message(
    start: Callable[..., Program], core_name: str, root: None
) -> None:
    program = start(nodes={"node1": [A]})
    command = ["-m", "kdumpfence.agent", "-n", A, "-p", str(program.port), "-t", "20", "-v"]
    agent = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None
        while "waiting for message" not in agent.stdout.readline():
            assert agent.poll() is None
        with dumping(A, program.port):
            assert agent.wait(PATIENCE) == 0
            program.wait_for(lambda _: program.kinds() == ["began"])
    finally:
        agent.kill()
        agent.communicate()


def test_a_signal_ends_it_cleanly(start: Callable[..., Program]) -> None:
    program = start(nodes={"node1": [A]})
    assert program.port
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(PATIENCE) == 0


def test_a_program_that_ends_without_closing_ends(core_name: str) -> None:
    code = "import kdumpfence; l = kdumpfence.Listener(['127.7.4.1'], port=0); print(l.events(0.1))"
    environment = {**os.environ, "KDUMPFENCE_PURE": "1" if core_name == "pure" else "0"}
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "[]\n"
    assert "ResourceWarning: unclosed <kdumpfence.Listener" in done.stderr
