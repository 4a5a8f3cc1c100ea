# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a Listener refuses, and a reading thread in trouble. What it hears is in test_hearing."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

import kdumpfence
from kdumpfence.listener import listener, reader
from kdumpfence.listener.listener import Listener
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.listener.conftest import NETWORK, A, B, MakeListener, in_use, wait_for


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"family": "ipv5"}, "family 'ipv5': must be one of auto, ipv4, ipv6"),
        ({"port": 65536}, "port 65536: must be 0 to 65535"),
        ({"max_admitted": -1}, "max_admitted -1"),
        ({"max_admitted": 1 << 32}, "max_admitted 4294967296: must be 0 to 4294967295"),
        ({"receive_buffer": 0}, "receive_buffer 0"),
        ({"receive_buffer": 1 << 31}, "receive_buffer 2147483648"),
        ({"port": "7410"}, "port '7410': expected a whole number"),
        ({"max_admitted": True}, "max_admitted True: expected a whole number"),
        ({"silence_timeout": 0}, "silence_timeout 0: must be more than 0 seconds"),
        ({"silence_timeout": None}, "silence_timeout None: expected a number of seconds"),
        ({"silence_timeout": float("inf")}, "silence_timeout inf: must be a number of seconds"),
        ({"repeat_interval": -1}, "repeat_interval -1: must be a number of seconds, 0 or more"),
        ({"networks": ["192.0.2.1/24"]}, "network '192.0.2.1/24': .*has host bits set"),
        ({"networks": ["nonsense"]}, "network 'nonsense'"),
        ({"networks": ["::/0"], "family": "ipv4"}, "network '::/0': not an ipv4 network"),
        ({"networks": ["::ffff:192.0.2.0/120"], "family": "ipv6"}, "not an ipv6 network"),
        ({"networks": ["fe80::%lo/64"]}, "network 'fe80::%lo/64': .*without %"),
        ({"networks": ["224.0.0.0/4"]}, "network '224.0.0.0/4': no node can have an address in it"),
        ({"nodes": ["::1"], "family": "ipv4"}, "node '::1': not an ipv4 address"),
        ({"nodes": ["192.0.2.010"]}, "node '192.0.2.010': neither .* without leading zeros"),
        ({"nodes": ["a,b"]}, "node 'a,b': neither a host name nor an IP address"),
        ({"nodes": {"a": ["192.0.2.1,;"]}}, "node 'a': address ';': neither a host name nor an IP"),
        ({"nodes": {"a": ["10.0.0.1/24"]}}, "IP address; a network is given in networks"),
        ({"nodes": {"a": [ip_interface("10.0.0.1/24")]}}, "'10.0.0.1/24': neither a host name"),
        ({"nodes": ["fe80::1%lo/64"]}, "node 'fe80::1%lo/64': neither a host name nor an IP"),
        ({"nodes": {"a": [ip_network("10.0.0.0/24")]}}, "expected a string or an address"),
        ({"nodes": {"a": ip_address("10.0.0.1")}}, "node 'a': expected a list of addresses"),
        ({"nodes": {"a": [b"10.0.0.1"]}}, "expected a string or an address"),
        ({"nodes": 5}, "nodes: expected a list or a mapping, not int"),
        ({"host": "node1"}, "host 'node1': not an IP address of this machine"),
        ({"host": "10.0.0.1/24"}, "host '10.0.0.1/24': neither a host name nor an IP address"),
        ({"host": "224.0.0.1"}, "host '224.0.0.1': no node can have this address"),
        ({"host": ["127.0.0.1", "::1"], "family": "ipv4"}, "host '::1': not an ipv4 address"),
        ({"host": "0.0.0.0", "family": "ipv6"}, "host '0.0.0.0': not an ipv6 address"),
        ({"host": []}, "host: at least one address"),
        ({"counting": "maybe"}, "counting 'maybe': must be one of auto, kernel, user"),
        ({"counting": 5}, "counting 5: expected a string or what kernel.counting.load made"),
        ({"counting": None}, "counting None: expected a string"),
        ({"host": "127.0.0.1", "sockets": []}, "host: not with sockets, which are bound already"),
        ({"nodes": {"[::1]": ["::2"]}}, "an address for a name, but not as one of its addresses"),
        ({"nodes": "node1"}, "expected a list"),
        ({"networks": "192.0.2.0/24"}, "expected a list"),
    ],
)
def test_what_cannot_be_is_refused(
    listen: MakeListener, arguments: dict[str, Any], why: str
) -> None:
    before = in_use()
    with pytest.raises(TypeError if "expected a" in why else ValueError, match=why):
        listen(**arguments)
    assert in_use() == before


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("silence", 0.2, "silence_timeout"),
        ("repeat", 0.0, "repeat_interval"),
        ("room", 0, "max_admitted"),
        ("queue", 65536, "receive_buffer"),
        ("answer", "node9", "answer_as"),
    ],
)
def test_what_a_parameter_was_called_at_first_still_works_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, old: str, value: Any, new: str
) -> None:
    queues: list[int] = []
    monkeypatch.setattr(listener, "deepen", lambda _, size: queues.append(size))
    options: dict[str, Any] = {old: value}
    with pytest.warns(DeprecationWarning, match=f"'{old}' is called '{new}' now") as caught:
        listening = kdumpfence.Listener([A], [NETWORK], port=0, **options)
    with listening:
        assert caught[0].filename == __file__
        with udp(B) as sock:
            sock.sendto(OWN_MESSAGE, ("127.0.0.1", listening.port))
        wait_for(lambda: sum(listening.counts.values()))
        if old == "silence":
            assert [
                one.kind for one in (listening.next_event(), listening.next_event()) if one
            ] == [
                "began",
                "silent",
            ]
        elif old == "repeat":
            assert B in listening
            assert listening._events._dumps.repeat == 0.0
        elif old == "room":
            assert listening.counts["crowded"] == 1
        elif old == "answer":
            assert listening.snapshot().answers_as == "node9"
        else:
            assert set(queues) == {value}


def test_a_parameter_that_there_never_was_is_refused() -> None:
    options: dict[str, Any] = {"silense": 5}
    with pytest.raises(TypeError, match="unexpected keyword argument 'silense'"):
        kdumpfence.Listener([A], port=0, **options)


def test_a_reading_thread_that_dies_is_no_secret(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    listening = listen([A])
    monkeypatch.setattr(reader.Reader, "_look_after", fail)
    with pytest.raises(RuntimeError, match="the reading thread has died"):
        listening.until(bool)


@pytest.mark.slow
def test_while_the_kernel_is_short_of_memory_nobody_is_declared_silent(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = threading.Event()
    refused: set[int] = set()

    class Short(reader.Receiver):  # type: ignore[misc,name-defined]
        def count(self, deadline_ns: int | None, *others: Any) -> int:
            if short.is_set():
                refused.add(len(others))  # none: it is to read what has come so far
                raise OSError(errno.ENOMEM, "no memory")
            return int(super().count(deadline_ns, *others))

    monkeypatch.setattr(reader, "Receiver", Short)
    listening = listen([A], silence_timeout=1.0)
    assert listening.after_message(A).kind == "began"
    short.set()
    listening._in_use.poke()
    wait_for(lambda: refused)
    listening.say(A, OWN_MESSAGE + b"more")  # of which the kernel counts none
    # Who is counted in the kernel is looked after when somebody looks.
    wait_for(lambda: listening.events(0) == [] and 0 in refused)
    assert listening.events(0.5) == []
    short.clear()
    silent = listening.only_event()
    assert (silent.kind, silent.messages) == ("silent", 2)


def test_the_package_has_it_and_the_agent_does_not_pay_for_it() -> None:
    assert kdumpfence.Listener is Listener
    assert {"Listener", "Event", "Dump", "Snapshot", "Dumps"} <= set(dir(kdumpfence))
    code = (
        "import sys, kdumpfence, kdumpfence.agent.main, kdumpfence.sender.main; "
        "print(*(name for name in sys.modules if name in ('typing', 'threading') "
        "or name.startswith('kdumpfence.listener'))); kdumpfence.Listener"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    with pytest.raises(AttributeError, match="no attribute 'Listner'"):
        _ = kdumpfence.Listner  # type: ignore[attr-defined]
