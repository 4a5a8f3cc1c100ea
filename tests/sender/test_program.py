# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sender as a process on loopback, in each of its forms. tests/system/network: bad networks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

import kdumpfence
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import CORES, udp
from tests.sender.conftest import run
from tests.support import mute
from tests.support.programs import FORMS, environment, sender, start, unwarned, wait_for_line

Node = socket.socket


def node(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    sock = udp(host, port)
    sock.settimeout(20)
    return sock


def received(sock: Node) -> list[bytes]:
    got = []
    sock.setblocking(False)
    try:
        while True:
            got.append(sock.recv(100))
    except BlockingIOError:
        return got


@pytest.mark.slow
def test_a_count_is_the_number_of_messages(form: str, sock: Node, port: str) -> None:
    done = run(form, "-p", port, "-c", "3", "-i", "1", "127.0.0.1")
    assert (done.returncode, done.stdout, unwarned(done.stderr)) == (0, "", "")
    assert received(sock) == [OWN_MESSAGE] * 3


def test_the_message_is_in_the_byte_order_of_this_machine(form: str, sock: Node, port: str) -> None:
    run(form, "-p", port, "-c", "1", "127.0.0.1")
    assert sock.recv(100) == struct.pack("=II", 0x1B302A40, 1)


@pytest.mark.slow
def test_every_node_gets_its_messages(form: str) -> None:
    first = node("127.0.0.1")
    port = first.getsockname()[1]
    others = [node(f"127.0.0.{number}", port) for number in range(2, 30)]
    six = node("::1", port)
    hosts = [sock.getsockname()[0] for sock in (first, *others, six)]
    done = run(form, "-p", str(port), "-c", "2", "-i", "1", *hosts)
    assert (done.returncode, unwarned(done.stderr)) == (0, "")
    for sock in (first, *others, six):
        assert received(sock) == [OWN_MESSAGE] * 2
        sock.close()


def test_a_node_that_was_given_twice_is_told_once(form: str, sock: Node, port: str) -> None:
    hosts = [f"127.2.{n // 250}.{n % 250 + 1}" for n in range(500)]
    given = ["127.0.0.1", *hosts, "127.0.0.1", *hosts, "127.0.0.1"]
    done = run(form, "-v", "-p", port, "-c", "1", *given)
    assert (done.returncode, unwarned(done.stderr)) == (0, "")
    told = [line.split("'")[1] for line in done.stdout.splitlines() if "message sent" in line]
    assert told == ["127.0.0.1", *hosts]
    assert received(sock) == [OWN_MESSAGE]


@pytest.mark.slow
def test_without_a_count_the_first_messages_come_a_second_apart(
    form: str, sock: Node, port: str
) -> None:
    began = time.monotonic()
    running = start([sender(form), "-p", port, "127.0.0.1"], form)
    for _ in range(4):
        sock.recv(100)
    # Three gaps of a second, not of ten.
    assert 3 <= time.monotonic() - began < 20
    running.terminate()
    running.communicate(timeout=20)


@pytest.mark.slow
def test_a_name_that_does_not_resolve_holds_up_nobody(form: str, sock: Node, port: str) -> None:
    running = start([sender(form), "-p", port, "nosuchnode.invalid", "127.0.0.1"], form)
    assert sock.recv(100) == OWN_MESSAGE
    said = wait_for_line(running, "[error]: node 'nosuchnode.invalid': ", stream="stderr")
    assert said.endswith("; will try again\n")
    time.sleep(0.5)
    assert running.poll() is None
    running.terminate()
    _, err = running.communicate(timeout=20)
    assert err == ""


@pytest.mark.slow
def test_with_a_count_nobody_reached_in_a_minute_is_status_1() -> None:
    began = time.monotonic()
    argv = ["-c", "1", "-i", "1", "nosuchnode.invalid"]
    running = [start([sender(form), *argv], form) for form in FORMS]  # a minute for all of them
    for one in running:
        _, errors = one.communicate(timeout=120)
        assert one.returncode == 1
        assert time.monotonic() - began >= 60  # the network might have been late
        assert "[error]: node 'nosuchnode.invalid' was never reached\n" in errors


@pytest.mark.slow
def test_with_a_count_one_reached_is_status_0_and_the_others_are_named(
    form: str, sock: Node, port: str
) -> None:
    done = run(form, "-p", port, "-c", "1", "-i", "1", "127.0.0.1", "nosuchnode.invalid")
    assert done.returncode == 0
    assert "node 'nosuchnode.invalid' was never reached" in done.stderr


def test_two_names_of_one_address_are_both_reached(form: str, sock: Node, port: str) -> None:
    done = run(form, "-p", port, "-f", "ipv4", "-c", "1", "-i", "60", "127.0.0.1", "localhost")
    assert (done.returncode, unwarned(done.stderr)) == (0, "")
    assert received(sock) == [OWN_MESSAGE]


def test_an_address_of_the_other_family_is_named(form: str) -> None:
    done = run(form, "-f", "ipv6", "127.0.0.1")  # it need not wait for anything
    assert done.returncode == 1
    assert "node '127.0.0.1': not an ipv6 address" in done.stderr


@pytest.mark.parametrize("refuse", [True, False], ids=["refuses", "is mute"])
@pytest.mark.parametrize("form", [form for form in FORMS if form != "static"])
@pytest.mark.slow
def test_where_the_kernel_cannot_tell_what_left_it_is_believed(
    form: str,
    sock: socket.socket,
    port: str,
    refuse: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_PRELOAD", mute.library(tmp_path, refuse))
    six = node("::1", int(port))
    done = run(form, "-p", port, "-c", "2", "-i", "1", "127.0.0.1", "::1")
    assert (done.returncode, unwarned(done.stderr)) == (0, "")
    assert received(sock) == received(six) == [OWN_MESSAGE] * 2
    six.close()


@pytest.mark.slow
def test_port_unreachable_means_that_it_left(form: str) -> None:
    closed = node()
    port = closed.getsockname()[1]
    closed.close()
    done = run(form, "-p", str(port), "-c", "2", "-i", "1", "127.0.0.1")
    assert (done.returncode, unwarned(done.stderr)) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(form: str, sock: Node, port: str, number: signal.Signals) -> None:
    running = start([sender(form), "-v", "-p", port, "127.0.0.1"], form)
    assert wait_for_line(running, "[debug]: message sent to node '127.0.0.1'")
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 128 + number
    assert out.endswith(f"[debug]: ended by {number.name}\n")
    assert unwarned(err) == ""


@pytest.mark.parametrize(
    ("argv", "complaints"), [([], 0), (["-c", "3"], 0), (["--bogus"], 1), (["-i", "10x"], 1)]
)
def test_without_a_node_it_is_status_1_and_the_usage(
    form: str, argv: list[str], complaints: int
) -> None:
    done = run(form, *argv)
    assert (done.returncode, done.stdout) == (1, "")
    assert "[error]: no node given\nUsage: fence_kdump_send" in done.stderr
    assert done.stderr.count("[warning]: ") == complaints
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "given",
    [
        '-p|PORT|-c|1|-i|10"',
        '"-p|PORT|-c|1"',
        "-p|PORT,|-c|1;",
        "-p|PORT|-c|1|-i|ten",
        "-p|PORT|-c|1|-f|ipv5",
        "-p PORT -c 1 -i 1min",
        "--port|PORT|--bogus|7|-c1",
        "-xp|PORT|-c|1|-i||-f|",
    ],
)
def test_options_that_cannot_be_read_do_not_cost_the_message(
    form: str, sock: Node, port: str, given: str
) -> None:
    argv = given.replace("PORT", port).split("|")
    running = start([sender(form), *argv, "127.0.0.1"], form)
    assert sock.recv(100) == OWN_MESSAGE
    running.terminate()
    _, errors = running.communicate(timeout=20)
    if "1min" not in given:
        assert "[warning]: " in unwarned(errors)
    assert "[error]: " not in errors or "ten" in given


def test_a_few_descriptors_are_enough(form: str, sock: Node, port: str) -> None:
    command = [sender(form), "-p", port, "-c", "1", "127.0.0.1", "::1", "a.b"]
    process = subprocess.Popen(
        ["sh", "-c", 'ulimit -n 8; exec "$@"', "sh", *command], env=environment(form)
    )
    assert sock.recv(100) == OWN_MESSAGE
    process.kill()
    process.wait()


def test_a_check_shows_the_way_whatever_the_options_and_tells_of_them(form: str) -> None:
    done = run(form, "--check", "-i", "10x", "127.0.0.1")
    assert done.stdout == "node '127.0.0.1' (127.0.0.1): is this machine\n"
    assert done.stderr == (
        "[warning]: interval '10x': not a whole number of seconds (1 to 2147483647); using 10\n"
    )
    assert done.returncode == 1


def test_version_and_help(form: str) -> None:
    core = f"{form} core" if form in CORES else "native"
    version = f"fence_kdump_send {kdumpfence.__version__} (kdumpfence, {core})\n"
    assert run(form, "-V").stdout == version
    assert run(form, "-h").stdout.startswith("Usage: fence_kdump_send [options] NODE...")


@pytest.mark.slow
def test_it_sleeps_when_there_is_nothing_to_do(form: str) -> None:
    # A name that never resolves, a count that has passed its patience, an ICMP error
    # that waits to be read: none of them may make the loop spin.
    closed = node()
    port = closed.getsockname()[1]
    closed.close()
    running = start([sender(form), "-p", str(port), "-i", "60", "127.0.0.1", "x.invalid"], form)
    time.sleep(3)
    with open(f"/proc/{running.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    running.terminate()
    running.communicate(timeout=20)
    assert seconds < 1  # a spinning loop would have taken nearly three


@pytest.mark.slow
def test_one_socket_a_family_however_many_nodes(form: str, sock: Node, port: str) -> None:
    six = node("::1", int(port))
    hosts = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(2000)]
    running = start([sender(form), "-p", port, "127.0.0.1", "::1", *hosts], form)
    for _ in range(2):  # whichever family is first, then the second has had its turn, too
        assert six.recv(100) == OWN_MESSAGE
    folder = f"/proc/{running.pid}/fd"
    counts = []
    for _ in range(50):  # now and then there is one more, to the system log
        with contextlib.suppress(OSError):
            links = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]
            counts.append(sum(link.startswith("socket:") for link in links))
        time.sleep(0.01)
    # Two families, and the one by which the kernel tells of changes in the network.
    assert min(counts) == 3
    running.kill()
    running.communicate()
    six.close()
