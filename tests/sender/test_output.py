# SPDX-License-Identifier: LGPL-2.1-or-later
"""An output that nobody reads holds up no sender, and neither stops nor ends it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import fill, udp
from tests.support.programs import environment, sender

#: Each costs a line of a thousand bytes on stderr: no name service knows it.
LONG_NAMES = [f"n{number}." + f"{'x' * 60}." * 16 + "invalid" for number in range(100)]


@pytest.fixture
def node() -> Iterator[socket.socket]:
    with udp("127.0.0.1") as sock:
        sock.settimeout(10)
        yield sock


def full_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    fill(write)
    os.set_blocking(write, True)
    return read, write


def pipe_without_reader() -> tuple[int, int]:
    read, write = os.pipe()
    os.close(read)
    return write, write


def full_socket() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        while True:
            ours.send(b"x" * 999)
    except BlockingIOError:
        ours.setblocking(True)
    return theirs.detach(), ours.detach()


def terminal() -> tuple[int, int]:
    return pty.openpty()


def stopped_terminal() -> tuple[int, int]:
    """Whoever sits there has pressed Ctrl-S."""
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    return master, slave


def terminal_with_little_room() -> tuple[int, int]:
    """There is some, so that poll(2) says that it can be written to, but none for a line."""
    master, slave = pty.openpty()
    os.set_blocking(slave, False)
    try:
        while True:
            os.write(slave, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(slave, True)
    os.read(master, 4000)
    time.sleep(0.1)
    return master, slave


OUTPUTS = [full_pipe, pipe_without_reader, full_socket, terminal, stopped_terminal,
           terminal_with_little_room]  # fmt: skip


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.__name__)
@pytest.mark.slow
def test_an_output_that_nobody_reads_holds_up_no_message(
    form: str, node: socket.socket, output: Callable[[], tuple[int, int]]
) -> None:
    reader, writer = output()
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    port = str(node.getsockname()[1])
    running = subprocess.Popen(
        [sender(form), "-v", "-p", port, "-i", "1", "127.0.0.1", *LONG_NAMES],
        stdout=writer, stderr=writer, env=environment(form),
    )  # fmt: skip
    try:
        assert [node.recv(100) for _ in range(4)] == [OWN_MESSAGE] * 4
        # The descriptor is others', too, who may rely on it to wait.
        assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 128 + signal.SIGTERM
    finally:
        running.kill()
        running.wait()
        os.close(reader)
        if writer != reader:
            os.close(writer)


@pytest.mark.slow
def test_a_terminal_that_is_not_to_be_written_to_from_the_background_stops_nobody(
    form: str, node: socket.socket
) -> None:
    master, slave = pty.openpty()
    port = str(node.getsockname()[1])
    # A shell with the terminal, which puts the sender into the background (set -m).
    script = 'stty tostop; set -m; "$@" & wait'
    running = subprocess.Popen(
        ["setsid", "-c", "sh", "-c", script, "sh", sender(form), "-v", "-p", port, "-i", "1",
         "-c", "3", "127.0.0.1"],
        stdin=slave, stdout=slave, stderr=slave, env=environment(form),
    )  # fmt: skip
    try:
        assert [node.recv(100) for _ in range(3)] == [OWN_MESSAGE] * 3
        assert running.wait(10) == 0
        assert b"message sent" in os.read(master, 4096)
    finally:
        running.kill()
        running.wait()
        os.close(master)
        os.close(slave)


@pytest.mark.slow
def test_a_full_file_ends_nobody(form: str, node: socket.socket) -> None:
    port = str(node.getsockname()[1])
    with open("/dev/full", "w", encoding="ascii") as full:
        running = subprocess.Popen(
            [sender(form), "-v", "-p", port, "-i", "1", "-c", "3", "127.0.0.1"],
            stdout=full, stderr=full, env=environment(form),
        )  # fmt: skip
    assert [node.recv(100) for _ in range(3)] == [OWN_MESSAGE] * 3
    assert running.wait(10) == 0


@pytest.mark.slow
def test_a_limit_to_the_size_of_files_ends_nobody(
    form: str, node: socket.socket, tmp_path: os.PathLike[str]
) -> None:
    port = str(node.getsockname()[1])
    path = os.path.join(tmp_path, "out")
    script = 'ulimit -f 1; exec "$@"'  # 512 bytes
    with open(path, "wb") as file:
        file.write(b"x" * 1024)
        file.flush()
        done = subprocess.run(
            ["sh", "-c", script, "sh", sender(form), "-v", "-p", port, "-i", "1", "-c", "2",
             "127.0.0.1"],
            stdout=file, stderr=file, env=environment(form), timeout=20, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert [node.recv(100) for _ in range(2)] == [OWN_MESSAGE] * 2
