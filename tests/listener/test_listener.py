# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Listener refuses, and a reading thread in trouble. What it hears is in test_hearing."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from typing import Any

import pytest

import kdumpfence
from kdumpfence.listener import reader
from kdumpfence.listener.listener import Listener
from tests.listener.conftest import A, MakeListener, in_use, wait_for


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"family": "ipv5"}, "family 'ipv5': must be one of auto, ipv4, ipv6"),
        ({"port": 65536}, "port 65536: must be 0 to 65535"),
        ({"room": -1}, "room -1"),
        ({"room": 1 << 32}, "room 4294967296: must be 0 to 4294967295"),
        ({"queue": 0}, "queue 0"),
        ({"queue": 1 << 31}, "queue 2147483648"),
        ({"silence": 0}, "silence 0"),
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
        ({"nodes": {"[::1]": ["::2"]}}, "an address for a name, but not as one of its addresses"),
        ({"nodes": "node1"}, "expected a list"),
        ({"networks": "192.0.2.0/24"}, "expected a list"),
    ],
)
def test_what_cannot_be_is_refused(
    listen: MakeListener, arguments: dict[str, Any], why: str
) -> None:
    before = in_use()
    with pytest.raises(TypeError if "list" in why else ValueError, match=why):
        listen(**arguments)
    assert in_use() == before


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
    listening = listen([A], silence=1.0)
    assert listening.after_message(A).kind == "began"
    short.set()
    listening._in_use.poke()
    wait_for(lambda: refused)
    listening.say(A)
    wait_for(lambda: 0 in refused)
    assert listening.events(0.5) == []
    short.clear()
    silent = listening.next_event()
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
