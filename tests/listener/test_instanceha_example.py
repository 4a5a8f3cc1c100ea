# SPDX-License-Identifier: LGPL-2.1-or-later
"""examples/instanceha.py: what InstanceHA finds in its dictionary, as docs/clouds.md has it."""

from __future__ import annotations

import collections
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import unused_port
from tests.listener.conftest import PATIENCE, A, B, C, say, wait_for
from tests.listener.examples import example
from tests.listener.test_states import status

instanceha: Any = example("instanceha")


class Service:
    """What of InstanceHA the thread uses, and how it decides by that."""

    def __init__(self, udp_ip: str = "") -> None:
        self.udp_ip = udp_ip
        self.kdump_lock = threading.Lock()
        self.kdump_hosts_timestamp: dict[str, float] = collections.defaultdict(float)
        self.kdump_listener_stop_event = threading.Event()
        self.config = self
        self.port = unused_port()

    def get_udp_port(self) -> int:
        return self.port

    def times(self) -> dict[str, float]:
        with self.kdump_lock:
            return dict(self.kdump_hosts_timestamp)

    def is_fenced(self, host: str) -> bool:
        """Whether it is evacuated without cutting its power, with KDUMP_TIMEOUT 30."""
        return time.monotonic() - self.times().get(host, 0.0) <= 30

    def may_be_enabled(self, host: str) -> bool:
        """Whether its dump is over, as far as that can be told from here."""
        return time.monotonic() - self.times().get(host, 0.0) >= 60


class Names:
    """The name service of a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = {A: "compute-1.example.org", B: "compute-2.example.org"}
        self.addresses = {name: [address] for address, name in self.names.items()}
        self.asked: list[str] = []
        self.slow = threading.Event()
        self.slow.set()
        self.slow_for = ""
        monkeypatch.setattr(socket, "gethostbyaddr", self.name)
        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)

    def name(self, address: str) -> tuple[str, list[str], list[str]]:
        self.asked.append(address)
        if address == self.slow_for:
            self.slow.wait()
        if address not in self.names:
            raise socket.herror("unknown host")
        return self.names[address], [], [address]

    def look_up(self, name: str, port: None, type: int) -> list[Any]:
        del port, type
        if len(name) > 63:
            raise UnicodeError("label too long")
        return [(0, 0, 0, "", (address, 0)) for address in self.addresses.get(name, ())]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names(monkeypatch)
    yield made
    made.slow.set()


Start = Callable[..., Service]


@pytest.fixture
def start(names: Names, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Runs the thread for a service, and ends it after the test."""
    del names
    started: list[tuple[Service, threading.Thread]] = []

    def make(**options: Any) -> Service:
        service = Service(**options)
        thread = threading.Thread(target=instanceha.listen, args=(service, ["127.0.0.0/8"]))
        thread.start()
        started.append((service, thread))
        table = Path("/proc/net/udp")
        wait_for(lambda: f":{service.port:04X} 00000000:0000" in table.read_text())
        return service

    yield make
    for service, thread in started:
        service.kdump_listener_stop_event.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_host_that_dumps_is_fenced_and_not_enabled(start: Start) -> None:
    service = start()
    assert not service.is_fenced("compute-1")
    before = time.monotonic()
    say(A, service.port)
    wait_for(service.times)
    (host, heard), *others = service.times().items()
    assert (host, others) == ("compute-1", [])
    assert before <= heard <= time.monotonic()
    assert service.is_fenced("compute-1")
    assert not service.may_be_enabled("compute-1")
    assert service.may_be_enabled("compute-2")


def test_the_time_is_that_of_the_last_message(start: Start, names: Names) -> None:
    service = start()
    say(A, service.port)
    wait_for(service.times)
    first = service.times()["compute-1"]

    def moves_on() -> bool:
        say(A, service.port)
        return service.times()["compute-1"] > first

    wait_for(moves_on)
    assert names.asked == [A]


def test_it_goes_on_being_so_when_the_host_says_that_its_dump_is_over(start: Start) -> None:
    service = start()
    say(A, service.port, status("dumping", 1))
    wait_for(service.times)
    first = service.times()["compute-1"]
    say(A, service.port, status("finished", 2))
    wait_for(lambda: service.times()["compute-1"] > first)


def test_a_host_without_a_name_is_looked_up_again_and_logged(
    start: Start, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    service = start()

    def asked_twice() -> bool:
        say(C, service.port)
        return len(names.asked) > 1

    with caplog.at_level(logging.WARNING):
        wait_for(asked_twice)
    assert f"{C} is dumping: it has no name that leads back to it" in caplog.text
    names.names[C] = "compute-3"
    names.addresses["compute-3"] = [C]

    def is_there() -> bool:
        say(C, service.port)
        return "compute-3" in service.times()

    wait_for(is_there)


@pytest.mark.parametrize("claimed", ["compute-2.example.org", "x" * 64])
def test_a_name_that_does_not_lead_back_is_nobodys(
    start: Start, names: Names, claimed: str
) -> None:
    service = start()
    names.names[C] = claimed

    def asked_twice() -> bool:  # so the first answer was not believed
        say(C, service.port)
        return len(names.asked) > 1

    wait_for(asked_twice)
    say(A, service.port)
    wait_for(service.times)
    assert list(service.times()) == ["compute-1"]


def test_a_name_service_that_hangs_delays_nobody_else(start: Start, names: Names) -> None:
    service = start()
    names.slow.clear()
    names.slow_for = A
    say(A, service.port)
    wait_for(lambda: names.asked == [A])
    say(B, service.port)
    wait_for(service.times)
    assert list(service.times()) == ["compute-2"]
    names.slow.set()
    wait_for(lambda: service.is_fenced("compute-1"))


def test_what_is_old_is_forgotten(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    service = start()
    service.kdump_hosts_timestamp["compute-9"] = time.monotonic() - instanceha.FORGET - 60
    service.kdump_hosts_timestamp["compute-8"] = time.monotonic() - 100
    say(A, service.port)
    wait_for(lambda: "compute-1" in service.times())
    assert list(service.times()) == ["compute-8", "compute-1"]


def test_what_is_no_message_is_nobodys(start: Start, names: Names) -> None:
    service = start()
    for rubbish in (b"", b"x", b"rubbish!", bytes(2000)):
        say(B, service.port, rubbish)
    say(A, service.port)
    wait_for(service.times)
    assert names.asked == [A]


def test_it_listens_on_the_address_that_the_service_has(start: Start) -> None:
    service = Service(udp_ip="127.0.0.1")
    thread = threading.Thread(target=instanceha.listen, args=(service, ["127.0.0.0/8"]))
    thread.start()
    wait_for(lambda: f"0100007F:{service.port:04X}" in Path("/proc/net/udp").read_text())
    service.kdump_listener_stop_event.set()
    thread.join(PATIENCE)


def test_a_burst_of_two_thousand_hosts_is_in_the_dictionary(start: Start, names: Names) -> None:
    addresses = [f"127.8.{number // 200}.{number % 200 + 1}" for number in range(2000)]
    for address in addresses:
        names.names[address] = f"host{address.replace('.', '-')}.example.org"
        names.addresses[names.names[address]] = [address]
    service = start()
    for address in addresses:
        say(address, service.port)
    wait_for(lambda: len(service.times()) == len(addresses))
