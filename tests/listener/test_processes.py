# SPDX-License-Identifier: LGPL-2.1-or-later
"""Listeners in processes of their own: stopped, flooded, ended by signals."""

from __future__ import annotations

import contextlib
import json
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
from tests.listener.conftest import PATIENCE, A, B, say, wait_for
from tests.support import programs

PROGRAM = Path(__file__).with_name("program.py")


class Program:
    """The running program, which prints what it has to say to this file."""

    def __init__(self, core_name: str, output: Path, **options: Any) -> None:
        options.setdefault("receive_buffer", 1 << 20)
        self.output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(options)],
                stdout=file,
                env=programs.environment(core_name),
            )
        wait_for(lambda: self.said)
        self.port = int(self.said[0][1])

    @property
    def said(self) -> list[list[Any]]:
        """What it printed so far."""
        whole = self.output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def kinds(self) -> list[str]:
        """What happened so far."""
        return [thing[0] for thing in self.said[1:]]

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It does nothing meanwhile (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.process.pid}/stat")
        wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
        yield
        self.process.send_signal(signal.SIGCONT)

    def counts(self) -> tuple[dict[str, int], bool]:
        """The counts, and whether rubbish is kept out."""
        before = self.kinds().count("counts")
        self.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: self.kinds().count("counts") > before)
        _, counts, fenced = [thing for thing in self.said if thing[0] == "counts"][-1]
        return counts, fenced


Start = Callable[..., Program]


@pytest.fixture
def start(core_name: str, counting: str, tmp_path: Path) -> Iterator[Start]:
    """Starts the program with each core in both ways, and ends it after the test."""
    started: list[Program] = []

    def make(**options: Any) -> Program:
        options.setdefault("counting", counting)
        started.append(Program(core_name, tmp_path / "said", **options))
        return started[-1]

    yield make
    for program in started:
        program.process.kill()
        program.process.wait()


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
    start: Start,
) -> None:
    program = start(nodes={"node1": [A]}, silence_timeout=2.0)
    with dumping(A, program.port):
        wait_for(lambda: program.kinds() == ["began"])
        for _ in range(2):
            with program.stopped():
                time.sleep(2.5)
            time.sleep(0.4)
        assert program.kinds() == ["began"]
    wait_for(lambda: program.kinds() == ["began", "silent"])


@pytest.mark.slow
def test_a_listener_that_was_stopped_notices_who_fell_silent_meanwhile(start: Start) -> None:
    program = start(nodes={"node1": [A], "node2": [B]}, silence_timeout=2.0)
    with dumping(A, program.port), contextlib.ExitStack() as stack:
        with dumping(B, program.port):
            wait_for(lambda: program.kinds() == ["began", "began"])
            stack.enter_context(program.stopped())
        # What lay in the queue is read, and node2 is over.
        say("127.0.0.1", program.port, b"")
        time.sleep(2.5)
        stack.close()
        wait_for(lambda: len(program.kinds()) == 3)
        assert program.said[-1][:2] == ["silent", "node2"]


@pytest.mark.slow
def test_an_overfull_queue_is_counted_and_told_and_rubbish_then_kept_out(start: Start) -> None:
    program = start(nodes={"node1": [A]}, receive_buffer=65536)
    with udp(B) as stranger:

        def rubbish() -> None:
            for _ in range(2000):
                stranger.sendto(b"rubbish!", ("127.0.0.1", program.port))

        assert not program.counts()[1]
        with program.stopped():
            rubbish()
        wait_for(lambda: "overflow" in program.kinds())
        (overflow,) = (thing for thing in program.said if thing[0] == "overflow")
        counts, fenced = program.counts()
        assert overflow[3] == "unread"
        assert overflow[4] == counts["unread"] > 1000
        assert counts["unread"] + counts["magic"] == 2000
        assert fenced
        # From now on rubbish takes no room, and the message finds some.
        with program.stopped():
            rubbish()
            say(A, program.port)
        wait_for(lambda: "began" in program.kinds())
        counts, _ = program.counts()
        assert counts["unread"] + counts["magic"] == 4000


@pytest.mark.usefixtures("root")
def test_an_agent_beside_it_hears_the_same_message(start: Start, core_name: str) -> None:
    program = start(nodes={"node1": [A]})
    command = [programs.AGENT, "-n", A, "-p", str(program.port), "-t", "20", "-v"]
    agent = programs.start(command, core_name)
    try:
        programs.agent_waits(agent)
        with dumping(A, program.port):
            assert agent.wait(PATIENCE) == 0
            wait_for(lambda: program.kinds() == ["began"])
    finally:
        agent.kill()
        agent.communicate()


def test_a_signal_ends_it_cleanly(start: Start) -> None:
    program = start(nodes={"node1": [A]})
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(PATIENCE) == 0


def test_a_program_that_ends_without_closing_ends(core_name: str) -> None:
    code = "import kdumpfence; l = kdumpfence.Listener(['127.7.4.1'], port=0); print(l.events(0.1))"
    process = programs.start([sys.executable, "-W", "default", "-c", code], core_name)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, "[]\n")
    assert "ResourceWarning: unclosed <kdumpfence.Listener" in errors
