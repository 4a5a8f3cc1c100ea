# SPDX-License-Identifier: GPL-2.0-or-later
"""The sender as a process, on loopback, with both cores. Networks that fail: tests/network."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time

import pytest

from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.programs.helpers import SENDER, environment, start, wait_for_line


def node(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    sock = udp(host, port)
    sock.settimeout(20)
    return sock


def run(core_name: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SENDER, *argv],
        env=environment(core_name),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def received(sock: socket.socket) -> list[bytes]:
    got = []
    sock.setblocking(False)
    try:
        while True:
            got.append(sock.recv(100))
    except BlockingIOError:
        return got


def test_a_count_is_the_number_of_messages(core_name: str) -> None:
    sock = node()
    done = run(core_name, "-p", str(sock.getsockname()[1]), "-c", "3", "-i", "1", "127.0.0.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert received(sock) == [OWN_MESSAGE] * 3
    sock.close()


def test_the_message_is_in_the_byte_order_of_this_machine(core_name: str) -> None:
    sock = node()
    run(core_name, "-p", str(sock.getsockname()[1]), "-c", "1", "127.0.0.1")
    assert sock.recv(100) == struct.pack("=II", 0x1B302A40, 1)
    sock.close()


def test_every_node_gets_its_messages(core_name: str) -> None:
    first = node("127.0.0.1")
    port = first.getsockname()[1]
    others = [node(f"127.0.0.{number}", port) for number in range(2, 30)]
    six = node("::1", port)
    hosts = [sock.getsockname()[0] for sock in (first, *others, six)]
    done = run(core_name, "-p", str(port), "-c", "2", "-i", "1", *hosts)
    assert (done.returncode, done.stderr) == (0, "")
    for sock in (first, *others, six):
        assert received(sock) == [OWN_MESSAGE] * 2
        sock.close()


def test_without_a_count_the_first_messages_come_a_second_apart(core_name: str) -> None:
    sock = node()
    sender = start([SENDER, "-p", str(sock.getsockname()[1]), "127.0.0.1"], core_name)
    sock.recv(100)
    began = time.monotonic()
    for _ in range(3):
        sock.recv(100)
    # Three gaps of a second, not of ten.
    assert 2 < time.monotonic() - began < 10
    sender.terminate()
    sender.communicate(timeout=20)
    sock.close()


def test_a_name_that_does_not_resolve_holds_up_nobody(core_name: str) -> None:
    sock = node()
    port = str(sock.getsockname()[1])
    sender = start([SENDER, "-p", port, "nosuchnode.invalid", "127.0.0.1"], core_name)
    assert sock.recv(100) == OWN_MESSAGE
    time.sleep(0.5)
    assert sender.poll() is None
    sender.terminate()
    _, err = sender.communicate(timeout=20)
    assert err.startswith("[error]: node 'nosuchnode.invalid': ")
    assert err.endswith("; will try again\n")
    assert err.count("\n") == 1
    sock.close()


@pytest.mark.slow
def test_with_a_count_nobody_reached_in_a_minute_is_status_1(core_name: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [SENDER, "-c", "1", "-i", "1", "nosuchnode.invalid"],
        env=environment(core_name),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert time.monotonic() - began >= 60  # the network might have been late
    assert "[error]: node 'nosuchnode.invalid' was never reached\n" in done.stderr


def test_with_a_count_one_reached_is_status_0_and_the_others_are_named(core_name: str) -> None:
    sock = node()
    port = str(sock.getsockname()[1])
    done = run(core_name, "-p", port, "-c", "1", "-i", "1", "127.0.0.1", "nosuchnode.invalid")
    assert done.returncode == 0
    assert "node 'nosuchnode.invalid' was never reached" in done.stderr
    sock.close()


def test_two_names_of_one_address_are_both_reached(core_name: str) -> None:
    sock = node()
    port = str(sock.getsockname()[1])
    done = run(core_name, "-p", port, "-f", "ipv4", "-c", "1", "-i", "60", "127.0.0.1", "localhost")
    assert (done.returncode, done.stderr) == (0, "")
    assert received(sock) == [OWN_MESSAGE]
    sock.close()


def test_an_address_of_the_other_family_is_named(core_name: str) -> None:
    done = run(core_name, "-f", "ipv6", "127.0.0.1")  # it need not wait for anything
    assert done.returncode == 1
    assert "node '127.0.0.1': not an ipv6 address" in done.stderr


def test_port_unreachable_means_that_it_left(core_name: str) -> None:
    closed = node()
    port = closed.getsockname()[1]
    closed.close()
    done = run(core_name, "-p", str(port), "-c", "2", "-i", "1", "127.0.0.1")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(core_name: str, number: signal.Signals) -> None:
    sock = node()
    sender = start([SENDER, "-v", "-p", str(sock.getsockname()[1]), "127.0.0.1"], core_name)
    assert wait_for_line(sender, "[debug]: message sent to node '127.0.0.1'")
    sender.send_signal(number)
    out, err = sender.communicate(timeout=20)
    assert sender.returncode == 128 + number
    assert out.endswith(f"[debug]: ended by {number.name}\n")
    assert err == ""
    sock.close()


@pytest.mark.parametrize(
    "argv", [[], ["-c", "3"], ["--bogus", "a"], ["-i", "0", "a"], ["-p", "1junk", "a"]]
)
def test_bad_input_is_status_1_and_says_what_is_wrong(core_name: str, argv: list[str]) -> None:
    done = run(core_name, *argv)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("[error]: ")
    assert "Traceback" not in done.stderr


def test_version_and_help(core_name: str) -> None:
    assert f"{core_name} core" in run(core_name, "-V").stdout
    assert run(core_name, "-h").stdout.startswith("Usage: fence_kdump_send [options] NODE...")


def test_it_sleeps_when_there_is_nothing_to_do(core_name: str) -> None:
    # A name that never resolves, a count that has passed its patience, an ICMP error
    # that waits to be read: none of them may make the loop spin.
    closed = node()
    port = closed.getsockname()[1]
    closed.close()
    sender = start([SENDER, "-p", str(port), "-i", "60", "127.0.0.1", "x.invalid"], core_name)
    time.sleep(3)
    with open(f"/proc/{sender.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    sender.terminate()
    sender.communicate(timeout=20)
    assert seconds < 1  # a spinning loop would have taken nearly three


def test_one_socket_a_family_however_many_nodes(core_name: str) -> None:
    sock = node()
    port = str(sock.getsockname()[1])
    hosts = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(2000)]
    sender = start([SENDER, "-v", "-p", port, "127.0.0.1", "::1", *hosts], core_name)
    # Whichever family is first, messages for the second have left after a second round.
    assert wait_for_line(sender, "[debug]: message sent to node '::1' (::1), number 2")
    folder = f"/proc/{sender.pid}/fd"
    counts = []
    for _ in range(50):  # now and then there is one more, to the system log
        with contextlib.suppress(OSError):
            links = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]
            counts.append(sum(link.startswith("socket:") for link in links))
        time.sleep(0.01)
    assert min(counts) == 2
    sender.kill()
    sender.communicate()
    sock.close()
