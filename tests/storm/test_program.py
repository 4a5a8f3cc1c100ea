# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence storm as a process, heard by a plain socket of Python's own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence import decode
from kdumpfence.wire import OWN_MESSAGE, Rejected
from tests.support.labs import lab
from tests.support.netlab import Host
from tests.support.programs import BIN, environment
from tests.support.storms import Storm

pytestmark = pytest.mark.slow

STORM = [str(BIN / "kdumpfence"), "storm"]
SO_MEMINFO, DROPS = 55, 8
SO_RCVBUFFORCE = 33

#: As many datagrams as a queue of the usual size is sure to hold.
FEW = 200


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        if os.geteuid() == 0:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 25)
        yield sock


def heard(sock: socket.socket) -> list[tuple[str, bytes]]:
    """(Source, datagram) of all that lies in the queue, which must not have overflowed."""
    found = []
    while True:
        try:
            data, address = sock.recvfrom(65535, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        found.append((address[0], data))
    lost = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)
    assert struct.unpack_from("=I", lost, 4 * DROPS)[0] == 0
    return found


def port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def storm(core: str, listener: socket.socket, *argv: str, status: int = 0) -> dict[str, Any]:
    """Run a storm to its end; its summary."""
    with Storm(port(listener), *argv, core=core, stderr=subprocess.PIPE) as played:
        summary = played.told(120)
        assert played.process.stderr is not None
        assert (played.process.returncode, played.process.stderr.read()) == (status, b"")
    assert summary["core"] == core
    return summary


@pytest.fixture
def live(core_name: str, listener: socket.socket) -> Iterator[Callable[..., Storm]]:
    """Begin a storm that tells of itself; it has done so once. None outlives the test."""
    with contextlib.ExitStack() as begun:

        def begin(*argv: str, wrapper: tuple[str, ...] = ()) -> Storm:
            played = Storm(
                port(listener), "--live", *argv,
                wrapper=wrapper, core=core_name, stderr=subprocess.PIPE,
            )  # fmt: skip
            begun.enter_context(played)
            assert played.process.stderr is not None
            line = played.process.stderr.readline()
            assert re.fullmatch(rb"\d+ s: \d+ sent, \d+ a second\n", line)
            return played

        yield begin


def run(core: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the program as it is installed."""
    return subprocess.run(
        [*STORM, *argv],
        env=environment(core), capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def names(count: int, network: str = "127.0") -> list[str]:
    return [f"{network}.{number >> 8}.{number & 255}" for number in range(1, count + 1)]


def test_each_node_is_heard_once_in_a_round(core_name: str, listener: socket.socket) -> None:
    summary = storm(core_name, listener, "--nodes", str(FEW))
    assert heard(listener) == [(name, OWN_MESSAGE) for name in names(FEW)]
    assert (summary["sent"], summary["kinds"]) == (FEW, {"valid": FEW})
    assert (summary["failed"], summary["missing"], summary["ended"]) == ({}, 0, "complete")


def test_thousands_of_nodes_are_heard_in_every_round(
    core_name: str, listener: socket.socket, root: None
) -> None:
    storm(core_name, listener, "--nodes", "5000", "--rounds", "3", "--byteorder", "both")
    found = heard(listener)
    assert Counter(name for name, _ in found) == dict.fromkeys(names(5000), 3)
    orders: dict[str, set[str]] = {}
    for name, data in found:
        orders.setdefault(name, set()).add(decode(data).byteorder)
    assert set(map(frozenset, orders.values())) == {frozenset(["little"]), frozenset(["big"])}
    assert abs(sum(found == {"big"} for found in orders.values()) - 2500) <= 1


def test_nodes_that_panic_together_repeat_themselves(
    core_name: str, listener: socket.socket
) -> None:
    summary = storm(core_name, listener, "--nodes", "50", "--interval", "1",
                    "--panic-within", "0.4", "--duration", "2.5")  # fmt: skip
    found = [name for name, data in heard(listener) if data == OWN_MESSAGE]
    assert len(found) == 150 == summary["sent"]
    first = found[:50]
    assert sorted(first) == sorted(names(50))
    assert first != names(50), "they would not be in the order of their addresses"
    assert found == 3 * first
    assert summary["seconds"] >= 2.5


def test_a_mix_has_its_shares_and_each_kind_its_senders(
    core_name: str, listener: socket.socket
) -> None:
    mix = {"valid": 2, "foreign": 5, "empty": 1, "short": 2, "magic": 3, "version": 1, "long": 1}
    given = ",".join(f"{kind}={share}" for kind, share in mix.items())
    summary = storm(core_name, listener, "--nodes", "20", "--rounds", "1", "--mix", given,
                    "--foreigners", "10", "--foreign-from", "127.77.0.0/16")  # fmt: skip
    found: Counter[str] = Counter()
    for name, data in heard(listener):
        if name.startswith("127.77."):
            assert name in names(10, "127.77")
            kind = "foreign"
        else:
            assert name in names(20)
            kind = "valid"
        try:
            kind = "long" if decode(data).trailer else kind
        except Rejected as rejected:
            assert kind == "valid"
            kind = rejected.reason if data else "empty"
        found[kind] += 1
    assert found == {kind: 10 * share for kind, share in mix.items()} == summary["kinds"]


def test_the_same_seed_makes_the_same_storm(core_name: str, listener: socket.socket) -> None:
    argv = ["--nodes", "20", "--mix", "valid,random,magic,foreign", "--count", str(FEW),
            "--interval", "0.1", "--panic-within", "0.1", "--foreigners", "7"]  # fmt: skip
    seed = str(storm(core_name, listener, *argv)["seed"])
    first = heard(listener)
    storm(core_name, listener, *argv, "--seed", seed)
    assert heard(listener) == first
    storm(core_name, listener, *argv, "--seed", str(int(seed) + 1))
    other = heard(listener)
    assert len(other) == FEW == len(first)
    assert other != first


def test_both_cores_make_the_same_storm(listener: socket.socket) -> None:
    argv = ["--nodes", "20", "--mix", "valid,random,short,foreign", "--count", "99", "--seed", "5"]
    storm("compiled", listener, *argv)
    first = heard(listener)
    storm("pure", listener, *argv)
    assert heard(listener) == first


def test_a_duration_has_what_its_rate_promises(core_name: str, listener: socket.socket) -> None:
    summary = storm(core_name, listener, "--rate", "150.5", "--duration", "1", "--nodes", "7")
    found = Counter(name for name, _ in heard(listener))
    assert sum(found.values()) == 151 == summary["sent"]
    assert set(found.values()) <= {151 // 7, 151 // 7 + 1}
    assert summary["late"] < summary["seconds"] < 10


def test_the_greatest_rate_ends_with_its_duration(core_name: str, listener: socket.socket) -> None:
    summary = storm(core_name, listener, "--duration", "0.3")
    assert summary["sent"] > 300
    assert 0.3 <= summary["seconds"] < 10
    assert summary["rate"] == pytest.approx(summary["sent"] / summary["seconds"])


def test_the_summary_is_also_for_reading(core_name: str, listener: socket.socket) -> None:
    argv = ("--mix", "valid,foreign=2", "--seed", "4", "--nodes", "3")
    done = run(core_name, f"--port={port(listener)}", *argv)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("datagrams sent: 9, in 0.0")
    assert lines[1:] == [
        "3 valid, 6 foreign",
        "from 127.0.0.1 to 127.0.0.3 and 127.128.0.1 to 127.128.3.232, seed 4",
    ]


# --------------------------------------------------------------------- how it is ended


@pytest.mark.parametrize(
    ("number", "end"),
    [
        (signal.SIGINT, ()),
        (signal.SIGTERM, ("--duration", "100")),
        (signal.SIGHUP, ("--count", "1000000")),
    ],
    ids=["SIGINT, endless", "SIGTERM, cut short", "SIGHUP, cut short"],
)
def test_a_signal_ends_it_with_its_summary(
    live: Callable[..., Storm],
    listener: socket.socket,
    number: signal.Signals,
    end: tuple[str, ...],
) -> None:
    running = live("--rate", "50", *end)
    running.stop(number)
    summary = running.told(20)
    assert summary["ended"] == number.name
    # What was due in the last moments of the first second may have been late.
    assert summary["sent"] == len(heard(listener)) > 25
    assert running.process.returncode == (128 + number if end else 0)


def test_one_that_was_started_with_nohup_outlives_its_terminal(
    live: Callable[..., Storm], listener: socket.socket
) -> None:
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    running = live("--rate", "50", "--duration", "1.6", wrapper=ignoring)
    running.stop(signal.SIGHUP)
    assert running.told(20)["ended"] == "complete"
    assert running.process.returncode == 0
    assert len(heard(listener)) == 80


def test_one_that_was_stopped_makes_up_for_it(
    live: Callable[..., Storm], listener: socket.socket
) -> None:
    running = live("--rate", "100", "--count", "300")
    running.stop(signal.SIGSTOP)
    listener.settimeout(0.3)
    # Nothing more comes: it really stands still.
    while heard_one(listener):
        pass
    running.stop(signal.SIGCONT)
    summary = running.told(20)
    assert summary["sent"] == 300
    assert summary["late"] > 0.2


def heard_one(sock: socket.socket) -> bool:
    try:
        sock.recv(65535)
    except socket.timeout:  # TimeoutError from 3.10 on
        return False
    return True


def test_nobody_reading_the_live_figures_holds_nothing_up(
    core_name: str, listener: socket.socket
) -> None:
    closed = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    argv = ("--rate", "100", "--duration", "1.5", "--live")
    with Storm(port(listener), *argv, wrapper=closed, core=core_name) as played:
        assert played.told(60)["sent"] == 150
    assert played.process.returncode == 0
    assert len(heard(listener)) == 150


def test_it_says_nothing_on_stderr_unless_asked(core_name: str, listener: socket.socket) -> None:
    # `storm` looks: stderr is empty.
    storm(core_name, listener, "--rate", "20", "--duration", "1.2")


# ------------------------------------------------------------------- what it does not do


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["192.0.2.1"], "192.0.2.1 is not a loopback address"),
        (["--from", "198.51.100.0/24"], "source 198.51.100.1 is not an address of this machine"),
        (["--mix", "foreign", "--count", "1", "--foreign-from", "198.51.100.0/24"],
         "source 198.51.100.1 is not an address of this machine"),
        (["::1", "--from", "2001:db8::/64"], "source 2001:db8::1 is not an address of this"),
        (["192.0.2.1", "--not-loopback"], "nothing can be sent from 127.0.0.1 to 192.0.2.1: "),
        (["--nodes", "many"], "argument --nodes: 'many': not a number of nodes"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_and_nothing_is_sent(
    core_name: str, listener: socket.socket, argv: list[str], complaint: str
) -> None:
    done = run(core_name, f"--port={port(listener)}", *argv)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"kdumpfence: {complaint}")
    assert done.stderr.count("\n") == 1
    assert heard(listener) == []


@pytest.fixture
def host() -> Iterator[Host]:
    """A host of its own, with its own routes."""
    with lab() as opened:
        yield opened.host("here")


def run_there(host: Host, core: str, *argv: str) -> subprocess.CompletedProcess[str]:
    switch = f"KDUMPFENCE_PURE={int(core == 'pure')}"
    return host.run(["env", switch, *STORM, "--port", "17410", *argv])


def listening(host: Host, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = host.open_socket(family, socket.SOCK_DGRAM)
    sock.bind((address, 17410))
    return sock


def test_a_network_that_a_route_makes_local_can_be_played(core_name: str, host: Host) -> None:
    for address, network, first in (
        ("::1", "fd00:9::/64", "fd00:9::"),
        ("127.0.0.1", "198.51.100.0/24", "198.51.100."),
    ):
        refused = run_there(host, core_name, address, "--from", network)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "not an address of this machine" in refused.stderr
        host.tool("ip", "route", "add", "local", network, "dev", "lo")
        with listening(host, address) as sock:
            done = run_there(host, core_name, address, "--from", network)
            assert (done.returncode, done.stderr) == (0, "")
            names = [f"{first}{number:{'x' if ':' in first else 'd'}}" for number in range(1, 101)]
            assert heard(sock) == [(name, OWN_MESSAGE) for name in names]


def test_an_address_among_them_that_is_not_ours_is_never_used(core_name: str, host: Host) -> None:
    for number in (1, 2, 4):
        host.tool("ip", "address", "add", f"192.0.2.{number}/32", "dev", "lo")
        host.tool("ip", "address", "add", f"fd00:9::{number}/128", "dev", "lo")
    with listening(host, "127.0.0.1") as sock:
        # Over IPv4 the kernel says so when it comes to it: 192.0.2.3.
        done = run_there(host, core_name, "--from", "192.0.2.0/24", "--nodes", "4", "--json")
        summary = json.loads(done.stdout)
        assert done.returncode == 1
        assert (summary["sent"], summary["kinds"]) == (3, {"valid": 3})
        assert list(summary["failed"].values()) == [1]
        assert [name for name, _ in heard(sock)] == ["192.0.2.1", "192.0.2.2", "192.0.2.4"]
    with listening(host, "::1") as sock:
        done = run_there(host, core_name, "::1", "--from", "fd00:9::/64", "--nodes", "4")
        assert done.stderr == (
            "kdumpfence: source fd00:9::3 is not an address of this machine; "
            "a storm uses no others\n"
        )
        assert heard(sock) == []


def test_other_machines_are_reached_when_the_danger_is_accepted(core_name: str) -> None:
    with lab() as opened:
        here, there = opened.host("here"), opened.host("there")
        opened.link(here, there, ["10.0.0.1/24"], ["10.0.0.2/24"])
        with listening(there, "10.0.0.2") as sock:
            argv = ["10.0.0.2", "--from", "10.0.0.1/32"]
            refused = run_there(here, core_name, *argv)
            assert refused.returncode == 1
            assert "10.0.0.2 is not a loopback address" in refused.stderr
            assert heard(sock) == []
            done = run_there(here, core_name, *argv, "--not-loopback")
            assert (done.returncode, done.stderr) == (0, "")
            sock.settimeout(10)
            data, source = sock.recvfrom(100)
            assert (data, source[0]) == (OWN_MESSAGE, "10.0.0.1")


def test_only_its_own_descriptors_are_open(live: Callable[..., Storm]) -> None:
    running = live("--rate", "50")
    # While it writes a line it has its output open a second time.
    for _ in range(100):
        folder = Path(f"/proc/{running.process.pid}/fd")
        kinds = [os.readlink(one) for one in folder.iterdir()]
        if len(kinds) == 4:
            break
        time.sleep(0.01)
    assert sum(kind.startswith("socket:") for kind in kinds) == 1
    assert len(kinds) == 4
