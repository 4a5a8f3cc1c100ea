# SPDX-License-Identifier: LGPL-2.1-or-later
"""Questions over real networks: on the agents' port, from anywhere, and from where nobody is."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.wire import PACKET_BYTES, Packet, decode_packet, encode_packet
from tests.conftest import CORES, load_core
from tests.support.messages import PORT
from tests.support.netlab import Host, Lab, Link, joined
from tests.support.programs import FORMS
from tests.system.network.datagrams import say_from_anywhere
from tests.system.network.programs import Listening, Programs, Running

pytestmark = pytest.mark.slow

_IPV6_FREEBIND = 78

nonces = (number.to_bytes(16, "big") for number in itertools.count(1))


@pytest.fixture(params=FORMS)
def programs(request: pytest.FixtureRequest) -> Programs:
    if request.param in CORES:
        load_core(request.param)
    return Programs(request.param, raw=True)


@pytest.fixture
def link(lab: Lab, node: Host, survivor: Host) -> Link:
    return lab.link(
        node,
        survivor,
        ["10.0.0.1/24", "10.0.0.7/24", "fd00::1/64", "fe80::1/64"],
        ["10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24", "fd00::2/64", "fe80::2/64", "fe80::3/64"],
    )


def opened(host: Host, address: str, port: int = 0) -> socket.socket:
    """A socket of this host with that address, which may be another's if it is an IPv6 one."""
    six = ":" in address
    sock = host.open_socket(socket.AF_INET6 if six else socket.AF_INET)
    if six:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    sock.bind(place(host, address, port))
    sock.settimeout(5)
    return sock


def place(host: Host, address: str, port: int) -> tuple[object, ...]:
    """What the system calls want of an address, on eth0 if it is link-local."""
    scope = 0
    if address.startswith(("fe80:", "ff02:")):
        with joined(host.pid, "net"):
            scope = socket.if_nametoindex("eth0")
    return (address, port, 0, scope) if ":" in address else (address, port)


def question() -> bytes:
    return encode_packet(Packet("question", "node1", nonce=next(nonces)))


def ask(sock: socket.socket, to: tuple[object, ...]) -> tuple[Packet, tuple[object, ...]]:
    """Ask until there is an answer, as agents do; what it says, and where it comes from."""
    asked = question()
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        sock.sendto(asked, to)
        sock.settimeout(0.2)
        with contextlib.suppress(socket.timeout):
            while True:
                data, source = sock.recvfrom(1000)
                packet = decode_packet(data)
                if packet is not None and packet.nonce == asked[40:56]:
                    assert len(data) == PACKET_BYTES
                    return packet, source
    raise AssertionError(f"no answer from {to}")


def lane_of(survivor: Host, running: Running, to: str) -> tuple[object, ...]:
    """Where this sender's messages to that address of the survivor come from."""
    with opened(survivor, to, PORT) as heard:
        return tuple(heard.recvfrom(1000)[1])


ADDRESSES = [
    ("10.0.0.2", "10.0.0.1"),
    ("10.0.0.2", "10.0.0.7"),  # not the first address of its interface
    ("fd00::2", "fd00::1"),
    ("fe80::2", "fe80::1"),
    ("fd00::2", "fe80::1"),
    ("fe80::2", "fd00::1"),
]


@pytest.mark.parametrize(("source", "target"), ADDRESSES)
def test_the_answer_comes_from_the_address_that_was_asked(
    programs: Programs, link: Link, node: Host, survivor: Host, source: str, target: str
) -> None:
    node.crash()
    programs.sender(node, "--state=started", "10.0.0.2")
    with opened(survivor, source) as sock:
        packet, came_from = ask(sock, place(survivor, target, PORT))
        assert came_from == place(survivor, target, PORT)
    assert (packet.name, packet.state) == ("node1", "started")


@pytest.mark.parametrize(("source", "target"), ADDRESSES)
def test_so_does_that_of_a_node_that_runs(
    core_name: str, link: Link, node: Host, survivor: Host, source: str, target: str
) -> None:
    Listening(node, core_name, "[]", "[]", answer="node1")
    with opened(survivor, source) as sock:
        packet, came_from = ask(sock, place(survivor, target, PORT))
        assert came_from == place(survivor, target, PORT)
    assert (packet.kind, packet.name) == ("alive", "node1")


@pytest.mark.parametrize(("source", "target"), ADDRESSES)
def test_whoever_has_the_same_port_elsewhere_is_answered_as_well(
    programs: Programs, link: Link, node: Host, survivor: Host, source: str, target: str
) -> None:
    node.crash()
    programs.sender(node, "10.0.0.9")
    with opened(survivor, source, PORT) as sock:
        assert ask(sock, place(survivor, target, PORT))[1] == place(survivor, target, PORT)


@pytest.mark.parametrize("source", ["10.0.0.2", "fd00::2", "fe80::2"])
def test_the_port_that_messages_leave_from_hears_questions_too(
    programs: Programs, link: Link, node: Host, survivor: Host, source: str
) -> None:
    to = f"{source}%{link.interface(node)}" if source.startswith("fe80") else source
    running = programs.sender(node, to)
    lane = lane_of(survivor, running, source)
    assert lane[1] != PORT
    with opened(survivor, source) as sock:
        assert ask(sock, lane)[1] == lane


def test_an_address_of_another_interface_is_answered_the_way_back(
    programs: Programs, lab: Lab, link: Link, node: Host, survivor: Host
) -> None:
    lab.link(node, lab.host("other"), ["10.1.0.1/24", "fd01::1/64"])
    for network, by in (("10.1.0.0/24", "10.0.0.1"), ("fd01::/64", "fd00::1")):
        survivor.tool("ip", "route", "add", network, "via", by)
    node.crash()
    programs.sender(node, "10.0.0.2")
    for source, target in (("10.0.0.2", "10.1.0.1"), ("fd00::2", "fd01::1")):
        with opened(survivor, source) as sock:
            assert ask(sock, place(survivor, target, PORT))[1] == place(survivor, target, PORT)


def two_ways(lab: Lab, node: Host, survivor: Host) -> None:
    """Another link, on which neither host answers for what it has on the first."""
    for host in (node, survivor):
        host.set_sysctl("net/ipv4/conf/all/arp_ignore", "1")
        host.set_sysctl("net/ipv4/conf/all/arp_announce", "2")
        for interfaces in ("all", "default", "eth0"):
            host.set_sysctl(f"net/ipv4/conf/{interfaces}/rp_filter", "0")
    lab.link(node, survivor, ["10.1.0.1/24", "fd01::1/64"], ["10.1.0.2/24", "fd01::2/64"])


CROSSED = pytest.mark.parametrize(
    ("source", "target"), [("10.0.0.2", "10.1.0.1"), ("fd00::2", "fd01::1")]
)


@CROSSED
def test_an_answer_goes_its_own_way_whichever_the_question_came(
    programs: Programs, lab: Lab, link: Link, node: Host, survivor: Host, source: str, target: str
) -> None:
    two_ways(lab, node, survivor)
    node.crash()
    programs.sender(node, "10.0.0.2")
    with opened(survivor, source) as sock:
        assert ask(sock, place(survivor, target, PORT))[1] == place(survivor, target, PORT)


@CROSSED
def test_so_does_that_of_a_node_that_runs_too(
    core_name: str, lab: Lab, link: Link, node: Host, survivor: Host, source: str, target: str
) -> None:
    two_ways(lab, node, survivor)
    Listening(node, core_name, "[]", "[]", answer="node1")
    with opened(survivor, source) as sock:
        assert ask(sock, place(survivor, target, PORT))[1] == place(survivor, target, PORT)


def test_answers_find_their_way_through_address_translation(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    # The survivor knows nothing of the node but where its message seems to come from.
    gateway = lab.host("gateway")
    lab.link(node, gateway, ["10.0.0.1/24"], ["10.0.0.254/24"])
    lab.link(gateway, survivor, ["10.2.0.254/24"], ["10.2.0.2/24"])
    inside, outside = opened(gateway, "10.0.0.254", PORT), opened(gateway, "10.2.0.254")
    with opened(survivor, "10.2.0.2", PORT) as heard, translation(inside, outside):
        programs.sender(node, "--node", "node1", "10.0.0.254")
        _, seems = heard.recvfrom(1000)
        assert seems == outside.getsockname()
        packet, came_from = ask(heard, seems)
        assert (packet.name, came_from) == ("node1", seems)


@contextlib.contextmanager
def translation(inside: socket.socket, outside: socket.socket) -> Iterator[None]:
    """What arrives at the one is sent on from the other."""
    over = threading.Event()

    def translate() -> None:
        client = None
        while not over.is_set():
            for sock in select.select([inside, outside], [], [], 0.05)[0]:
                data, source = sock.recvfrom(1000)
                if sock is inside:
                    client = source
                    outside.sendto(data, ("10.2.0.2", PORT))
                elif client is not None:
                    inside.sendto(data, client)

    thread = threading.Thread(target=translate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# ----------------------------------------------------------------------- not answered


def test_what_many_or_nobody_could_have_asked_is_not_answered(
    programs: Programs, link: Link, node: Host, survivor: Host
) -> None:
    node.crash()
    sender = programs.sender(node, "-vv", "10.0.0.2")
    with opened(survivor, "10.0.0.2") as sock, opened(survivor, "fe80::2") as six:
        ask(sock, ("10.0.0.1", PORT))
        ask(six, place(survivor, "fe80::1", PORT))
        # To all who are there.
        with opened(survivor, "10.0.0.3") as to_all, opened(survivor, "fe80::3") as six_to_all:
            to_all.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            to_all.sendto(question(), ("10.0.0.255", PORT))
            six_to_all.sendto(question(), place(survivor, "ff02::1", PORT))
        # From port 0, and in the node's own name.
        with survivor.open_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
            raw.bind(("10.0.0.4", 0))
            header = struct.pack(">4H", 0, PORT, 8 + PACKET_BYTES, 0)
            raw.sendto(header + question(), ("10.0.0.1", 0))
        with opened(survivor, "fd00::1", PORT) as liar:
            liar.sendto(question(), ("fd00::1", PORT))
        # From what is no node's address, or is none of IPv6.
        for source in ("::", "::ffff:10.0.0.4"):
            say_from_anywhere(survivor, source, "fd00::1", question())
        ask(sock, ("10.0.0.1", PORT))
        ask(six, place(survivor, "fe80::1", PORT))
    sender.process.terminate()
    out, _ = sender.process.communicate(timeout=20)
    asked = [line.split(" port ")[0] for line in out.splitlines() if "question from" in line]
    assert {*asked} == {
        "[debug]: question from 10.0.0.2", f"[debug]: question from fe80::2%{link.interface(node)}"
    }  # fmt: skip


def test_the_kernel_keeps_out_of_the_port_what_is_no_question(
    programs: Programs, link: Link, node: Host, survivor: Host
) -> None:
    node.crash()
    programs.sender(node, "10.0.0.2")
    for source, target, table in (("10.0.0.2", "10.0.0.1", "udp"), ("fd00::2", "fd00::1", "udp6")):
        with opened(survivor, source) as sock:
            to = place(survivor, target, PORT)
            ask(sock, to)
            assert dropped(node, table) == 0
            sock.sendto(b"rubbish", to)
            sock.sendto(question()[:-1], to)
            ask(sock, to)
            assert dropped(node, table) == 2


def dropped(node: Host, table: str) -> int:
    """How many datagrams to the port the kernel has dropped."""
    rows = [line.split() for line in node.tool("cat", f"/proc/net/{table}").stdout.splitlines()]
    (drops,) = [row[-1] for row in rows if row[1].endswith(f":{PORT:04X}")]
    return int(drops)


def test_a_node_that_has_not_crashed_leaves_the_port_to_others(
    programs: Programs, link: Link, node: Host, survivor: Host
) -> None:
    running = programs.sender(node, "10.0.0.2", "fd00::2")
    lane = lane_of(survivor, running, "10.0.0.2")
    with opened(survivor, "10.0.0.2") as sock:
        ask(sock, lane)
    for address in ("0.0.0.0", "::"):
        opened(node, address, PORT)


def test_a_check_answers_nobody(programs: Programs, link: Link, node: Host, survivor: Host) -> None:
    node.crash()
    server = node.hang_name_service()
    checking = programs.sender(node, "--check", "10.0.0.2", "name.example")
    server.settimeout(20)
    server.recv(1000)
    with opened(survivor, "10.0.0.2") as sock:
        sock.connect(("10.0.0.1", PORT))
        sock.send(question())
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1000)
    checking.process.kill()
    checking.process.communicate()


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
def test_a_port_that_another_program_has_is_taken_when_it_is_free(
    programs: Programs, link: Link, node: Host, survivor: Host, address: str
) -> None:
    node.crash()
    held = opened(node, address, PORT)
    family = "ipv6" if ":" in address else "ipv4"
    sender = programs.sender(node, "10.0.0.2", "fd00::2")
    # musl has other words for it than glibc.
    sender.says_of(f"[debug]: port 7410/udp ({family}): Address ", "; no questions are heard there")
    other = {"10.0.0.1": ("fd00::2", "fd00::1"), "fd00::1": ("10.0.0.2", "10.0.0.1")}[address]
    with opened(survivor, other[0]) as sock:
        ask(sock, place(survivor, other[1], PORT))
    time.sleep(1.6)  # meanwhile it has tried again
    held.close()
    with opened(survivor, "fd00::2" if ":" in address else "10.0.0.2") as sock:
        ask(sock, place(survivor, address, PORT))
    sender.process.terminate()
    out, _ = sender.process.communicate(timeout=20)
    assert "no questions" not in out  # it was said once


# ------------------------------------------------------------------- nobody is held up


def test_lanes_full_of_messages_to_the_dead_leave_answering_to_the_port(
    programs: Programs, link: Link, node: Host, survivor: Host
) -> None:
    node.crash()
    dead = [f"10.0.0.{number}" for number in range(100, 200)]
    with opened(survivor, "10.0.0.2", PORT) as heard:  # before: a later message has another lane
        programs.sender(node, "10.0.0.2", *dead)
        lane = heard.recvfrom(1000)[1]
    with opened(survivor, "10.0.0.2") as sock:
        ask(sock, ("10.0.0.1", PORT))
        sock.settimeout(0.5)
        for _ in range(20):  # until so many wait in it
            sock.sendto(question(), lane)
            try:
                sock.recv(1000)
            except socket.timeout:
                break
        else:
            pytest.fail("the lane is never full")
        ask(sock, ("10.0.0.1", PORT))


def test_questions_of_neighbours_that_do_not_exist_hold_up_no_end(
    programs: Programs, link: Link, node: Host, survivor: Host
) -> None:
    with opened(survivor, "fd00::2", PORT) as heard:
        sender = programs.sender(node, "-c", "2", "-i", "1", "fd00::2")
        lane = heard.recvfrom(1000)[1]
        while not select.select([heard], [], [], 0.01)[0]:
            with opened(survivor, f"fd00::1:{next(nonces)[14:].hex()}") as liar:
                liar.sendto(question(), lane)
    # The kernel would ask for them for another two seconds.
    assert sender.status(within=1) == 0


def test_it_sleeps_when_it_waits_for_its_end_and_somebody_asks(
    programs: Programs, link: Link, node: Host, survivor: Host
) -> None:
    # One neighbour is not there: when the sender has done, the kernel asks for another two seconds.
    with opened(survivor, "10.0.0.2", PORT) as heard:
        sender = programs.sender(node, "-c", "1", "-i", "1", "10.0.0.2", "10.0.0.99")
        lane = heard.recvfrom(1000)[1]
    rests = 0
    with opened(survivor, "10.0.0.2") as sock:
        while sender.process.poll() is None and sender.age < 20:
            sock.sendto(question(), lane)
            time.sleep(0.1)
            with contextlib.suppress(ProcessLookupError, StopIteration):
                status = Path(f"/proc/{sender.process.pid}/status").read_text().splitlines()
                rests = next(int(line[24:]) for line in status if line.startswith("voluntary"))
    assert sender.status(within=1) == 0
    assert rests > 30  # it looks a hundred times a second then


def test_messages_to_the_living_are_not_late_in_a_flood(
    programs: Programs, link: Link, node: Host, survivor: Host
) -> None:
    node.crash()
    sender = programs.sender(node, "10.0.0.2")
    with opened(survivor, "10.0.0.2", PORT) as heard, flood(survivor):
        heard.recv(1000)
        before = time.monotonic()
        for number in range(1, 4):
            heard.recv(1000)
            assert abs(time.monotonic() - before - number) < 0.3
    assert sender.process.poll() is None


@contextlib.contextmanager
def flood(survivor: Host) -> Iterator[None]:
    """Questions by a stranger, as fast as they go."""
    over = threading.Event()

    def ask_and_ask() -> None:
        with opened(survivor, "fd00::2") as sock:
            asked = question()
            while not over.is_set():
                sock.sendto(asked, place(survivor, "fd00::1", PORT))

    thread = threading.Thread(target=ask_and_ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
