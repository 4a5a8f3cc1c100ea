# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Listener to whom all nodes seem to have one address, as behind a Service of Kubernetes.

docs/containers.md promises that signed messages end that, and that the Listener's questions get
through. The router here forgets nothing and lets in nothing but answers.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from kdumpfence import Listener, keys
from kdumpfence.sockets import prepare_udp
from tests.daemon.running import until
from tests.support.messages import PORT
from tests.support.netlab import Host, Lab
from tests.system.network.nat import Nat
from tests.system.network.programs import Programs

pytestmark = pytest.mark.slow

ROUTER, OWN = "192.0.2.254", "192.0.2.2"
KEY_FILE = "/etc/kdump-key"
CLUSTER = keys.Keys((keys.key_id(bytes(32)), bytes(32)))
NAMES = ("hidden1", "hidden2")


@pytest.fixture
def hidden(lab: Lab, survivor: Host) -> Iterator[list[Host]]:
    """Two crashed nodes behind one router."""
    router = lab.host("router")
    router.set_sysctl("net/ipv4/ip_forward", "0")
    hosts = [lab.host(name) for name in NAMES]
    for number, host in enumerate(hosts):
        lab.link(host, router, [f"10.5.{number}.1/24"], [f"10.5.{number}.254/24"])
        host.tool("ip", "route", "add", "default", "via", f"10.5.{number}.254")
        host.crash()
        own = CLUSTER.of(NAMES[number])
        assert own is not None
        host.write_file(KEY_FILE, own.text())
        (host.root / KEY_FILE[1:]).chmod(0o600)
    lab.link(router, survivor, [f"{ROUTER}/24"], [f"{OWN}/24"])
    with Nat(router, "eth0", ROUTER), Nat(router, "eth1", ROUTER):
        yield hosts


def listening(survivor: Host, **options: Any) -> Listener:
    """One on the survivor, to whom it does not matter where messages come from."""
    sock = survivor.open_socket(socket.AF_INET)
    prepare_udp(sock)
    sock.bind(("", PORT))
    return Listener(networks=["0.0.0.0/0"], sockets=[sock], **options)


@pytest.mark.parametrize("programs", ["native"], indirect=True)
@pytest.mark.parametrize("signed", [False, True])
def test_signed_messages_tell_apart_whom_an_address_does_not(
    programs: Programs, survivor: Host, hidden: list[Host], signed: bool
) -> None:
    options = {"auth": "sha256", "keys": CLUSTER} if signed else {}
    seen = set(NAMES) if signed else {ROUTER}
    with contextlib.closing(listening(survivor, **options)) as listener:
        for host, name in zip(hidden, NAMES):
            programs.sender(host, "--node", name, "--key-file", KEY_FILE, "-i", "1", OWN)
        until(lambda: {dump.node for dump in listener.snapshot().dumps} >= seen)
        until(lambda: listener.counts["accepted"] >= 4)
        dumps = listener.snapshot().dumps
    assert {dump.node for dump in dumps} == seen
    assert {address for dump in dumps for address in dump.addresses} == {ROUTER}
