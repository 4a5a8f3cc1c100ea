# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sockets of a Listener: its own and those of others' making, their port, queue and guard."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from kdumpfence import filters, sockets
from kdumpfence.listener.sockets import open_sockets
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.listener.conftest import A, B, MakeListener, in_use, kinds, say, wait_for

SO_LOCK_FILTER = 44
IPV6_FREEBIND = 78

#: The first has an address that this machine lacks, so what comes from there is forged.
NODES = {"node1": ["2001:db8::1"], "node2": ["::1"]}


def forge(port: int) -> None:
    """What any user can do: a message to this machine, from an address that it does not have."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.bind(("2001:db8::1", 0))
        sock.sendto(OWN_MESSAGE, ("::1", port))


def depth(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_sockets_of_others_making_are_used_and_closed(listen: MakeListener) -> None:
    given = [udp(), udp()]
    ports = [sock.getsockname()[1] for sock in given]
    say(A, ports[0])  # what came before there was a Listener is heard
    listening = listen([A, B], sockets=given)
    assert listening.port == ports[0]
    say(B, ports[1])
    listening.several(2)
    listening.close()
    assert [sock.fileno() for sock in given] == [-1, -1]


def test_a_queue_that_was_made_deep_with_more_rights_stays_so(
    listen: MakeListener, root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = 1 << 24
    (given,) = open_sockets([socket.AF_INET], 0)
    sockets.deepen(given, queue)
    assert depth(given) == 2 * queue
    monkeypatch.setattr(sockets, "_SO_RCVBUFFORCE", -1)  # as the kernel refuses it: an error
    shallow = udp()
    listen([A], sockets=[given, shallow], receive_buffer=2 * queue)
    assert depth(given) == 2 * queue
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    assert depth(shallow) == 2 * min(2 * queue, most)


def test_a_socket_that_is_none_of_udp_is_refused(listen: MakeListener) -> None:
    with socket.socket() as tcp, pytest.raises(ValueError, match="not a UDP socket"):
        listen([A], sockets=[tcp])
    with socket.socket(type=socket.SOCK_DGRAM) as loose:
        with pytest.raises(ValueError, match="not bound"):
            listen([A], sockets=[loose])
        assert loose.fileno() >= 0, "it stays the caller's"
    with pytest.raises(ValueError, match="at least one"):
        listen([A], sockets=[])


def test_a_port_that_another_program_holds_is_refused_and_nothing_stays_open(
    listen: MakeListener,
) -> None:
    first = listen([A])
    before = in_use()
    with pytest.raises(OSError, match=rf"port {first.port}/udp: Address already in use") as error:
        listen([A], port=first.port)
    assert error.value.strerror is not None
    assert in_use() == before
    first.after_message(A)


def test_where_no_descriptor_is_left_it_says_so_and_nothing_stays_open(
    listen: MakeListener, leaves_nothing: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[object] = []
    refused: list[int | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: complaints.append(about.exc_value))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = in_use()[1] + 20
    for left in range(20):
        with contextlib.ExitStack() as undo:
            undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            while (used := os.dup(0)) < first:  # without a gap below
                undo.callback(os.close, used)
            os.close(used)
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + left, hard))
            try:
                listening = listen([A])
            except OSError as error:
                refused.append(error.errno)
                continue
        listening.close()
        break
    gc.collect()
    assert refused == [errno.EMFILE] * left
    assert left >= 6  # two sockets and two pipes at least
    assert leaves_nothing()
    assert complaints == []


@pytest.mark.usefixtures("root", "ipv6")
def test_any_port_is_one_that_is_free_for_both_families() -> None:
    code = """
import socket
from kdumpfence import Listener
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write("50000 50003")
held = []
for port in (50000, 50001, 50002):
    held.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    held[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    held[-1].bind(("::", port))
for _ in range(10):
    with Listener(["192.0.2.1"], port=0) as listener:
        print(listener.port)
"""
    command = ["unshare", "--net", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (["50003"] * 10, "")


@pytest.mark.usefixtures("ipv6")
def test_one_family_alone(listen: MakeListener) -> None:
    listening = listen([A], family="ipv4")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", listening.port))
    listening.after_message(A)


# --------------------------------------------------------- what the machine sends itself


@pytest.mark.usefixtures("ipv6")
def test_a_socket_that_heard_before_it_was_guarded_is_emptied(listen: MakeListener) -> None:
    given = udp("::1")
    port = given.getsockname()[1]
    forge(port)
    listening = listen(NODES, sockets=[given])
    forge(port)
    assert listening.after_message("::1").node == "node2"
    assert listening.counted() == {"accepted": 1, "short": 1}


@pytest.mark.usefixtures("ipv6")
def test_what_came_between_two_listeners_with_one_socket_is_heard(listen: MakeListener) -> None:
    given = udp("::1")
    kept = given.dup()
    listen(NODES, sockets=[given]).close()
    say("::1", kept.getsockname()[1])
    forge(kept.getsockname()[1])
    assert listen(NODES, sockets=[kept]).only_event().node == "node2"


@pytest.mark.usefixtures("ipv6")
def test_the_guard_stays_when_rubbish_was_kept_out_and_is_again_let_in(
    listen: MakeListener,
) -> None:
    listening = listen(NODES, sockets=[udp("::1")])
    reading_thread = listening._in_use
    for up in (True, False):
        reading_thread._fence(up)
        reading_thread._fenced_until = time.monotonic() + 60 if up else 0.0
        forge(listening.port)
    listening.say("::1")
    began = listening.until(lambda events: "began" in kinds(events))
    assert [event.node for event in began if event.kind == "began"] == ["node2"]
    assert listening.counted()["accepted"] == 1


def test_a_socket_whose_filter_cannot_be_had_is_refused(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    with udp() as given:
        given.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
        with pytest.raises(OSError, match="has a filter that cannot be removed"):
            listen([A], sockets=[given])
    monkeypatch.setattr(filters, "attach", refuse)
    with pytest.raises(OSError, match="port 0/udp: cannot attach a socket filter: no memory"):
        listen([A])


def is_refused(sock: socket.socket) -> bool:
    try:
        sock.send(OWN_MESSAGE)
    except ConnectionRefusedError:
        return True
    return False


def test_it_listens_on_the_addresses_that_it_was_given_and_no_others(
    listen: MakeListener, ipv6: None
) -> None:
    here, there = "127.7.4.8", ip_address("127.7.4.9")
    listening = listen([A, "::1"], host=[here, there, "::1", "127.7.4.8"])
    bound = [sock.getsockname()[0] for sock in listening._in_use._sockets]
    assert bound == [here, str(there), "::1"]
    with udp(A) as sock:
        sock.sendto(OWN_MESSAGE, (str(there), listening.port))
        assert listening.only_event().node == A
        sock.connect(("127.0.0.1", listening.port))
        sock.send(OWN_MESSAGE)
        wait_for(lambda: is_refused(sock))
    assert listening.after_message("::1").node == "::1"
    assert listening.snapshot().deaf == ""


@pytest.mark.parametrize(("host", "families"), [("0.0.0.0", [2]), ("::", [10]), (None, [2, 10])])
def test_all_addresses_of_a_family_are_one(
    listen: MakeListener, ipv6: None, host: str | None, families: list[int]
) -> None:
    listening = listen([A], host=host)
    assert [sock.family for sock in listening._in_use._sockets] == families


def test_an_address_of_another_machine_is_not_listened_on(listen: MakeListener) -> None:
    before = in_use()
    with pytest.raises(
        OSError, match=r"192\.0\.2\.77 port \d+/udp: Cannot assign requested"
    ) as why:
        listen([A], host=["127.0.0.1", "192.0.2.77"])
    assert why.value.errno == errno.EADDRNOTAVAIL
    assert in_use() == before
