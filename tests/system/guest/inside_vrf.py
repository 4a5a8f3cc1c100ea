# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run in the guest, whose kernel has VRFs and whose clock is nobody else's.

The survivor has eth0, where the node is, and eth1, where a tenant's machine is that has the node's
addresses. eth1 lies in a VRF, or gets into one.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from tests.support import messages, packets
from tests.support.answerer import Answerer, dumping, packet, silent
from tests.support.netlab import Host, Lab, joined
from tests.system.network.datagrams import forge, receiver, say
from tests.system.network.programs import BOTH_CORES, Listening, Programs, Running

NODE = ("10.0.0.1", "fd00::1")
OWN = ("10.0.0.2", "fd00::2")
BOTH = list(zip(NODE, OWN))

#: Seconds that an agent waits which is to hear the node in the end, and that it may take to end: an
#: emulated processor that has to share a core is slow.
LONG = 400

#: Messages that one host repeats.
MANY = 40

#: Each core, and each sort of socket: all pairs would take too long here.
WAYS = ("compiled-no_raw", "pure")


def each_way_with(name: str, *values: object) -> pytest.MarkDecorator:
    """Each way with another one of the two values."""
    return pytest.mark.parametrize(
        f"programs,{name}", list(zip(WAYS, values)), indirect=["programs"]
    )


class Net:
    """The hosts and what lies between them."""

    def __init__(self, lab: Lab) -> None:
        self.node, self.survivor = lab.host("node1"), lab.host("survivor")
        self.tenant = lab.host("tenant")
        own = [f"{OWN[0]}/24", f"{OWN[1]}/64"]
        theirs = [f"{NODE[0]}/24", f"{NODE[1]}/64"]
        ends = [*theirs, "fe80::1/64"], [*own, "fe80::2/64"]
        self.uplink = lab.link(self.node, self.survivor, *ends)
        self.cable = lab.link(self.tenant, self.survivor, [*theirs, "fe80::1/64"])

    def ip(self, *words: str) -> None:
        self.survivor.tool("ip", *words)

    def says(self, host: Host, times: int = 1) -> None:
        """Send the message from the node's addresses, which the tenant has as well."""
        for source, target in BOTH:
            say(host, source, target, times=times)

    def make_vrf(self, name: str = "blue") -> None:
        """With eth1 in it, and the survivor's own addresses there too."""
        self.ip("link", "add", "dev", name, "type", "vrf", "table", "10")
        self.ip("link", "set", "dev", name, "up")
        self.ip("link", "set", "dev", "eth1", "master", name)
        for address in (f"{OWN[0]}/24", f"{OWN[1]}/64", "fe80::2/64"):
            nodad = ["nodad"] if ":" in address else []
            self.ip("address", "replace", address, "dev", "eth1", *nodad)

    def accept(self, udp: int, raw: int) -> None:
        self.survivor.set_sysctl("net/ipv4/udp_l3mdev_accept", str(udp))
        self.survivor.set_sysctl("net/ipv4/raw_l3mdev_accept", str(raw))


@pytest.fixture
def net(lab: Lab) -> Net:
    return Net(lab)


def waits(
    programs: Programs,
    net: Net,
    name: str = ",".join(NODE),
    seconds: int = LONG,
) -> Running:
    return programs.waiting_agent(net.survivor, name, seconds)


def hears_the_node(agent: Running, net: Net) -> None:
    say(net.node, *BOTH[0])
    assert agent.status(within=LONG) == 0


# -------------------------------------------------------------------- a foreign VRF


@each_way_with("early", True, False)
def test_the_nodes_address_in_a_vrf_is_not_the_node(
    programs: Programs, net: Net, early: bool
) -> None:
    if early:
        net.make_vrf()
    agent = waits(programs, net)
    if not early:
        net.make_vrf()
    net.says(net.tenant)
    assert agent.goes_on(1)
    hears_the_node(agent, net)


@pytest.mark.parametrize(
    ("programs", "gone"), [("compiled", False), ("pure", True)], indirect=["programs"]
)
def test_it_is_so_while_the_agent_cannot_look(programs: Programs, net: Net, gone: bool) -> None:
    agent = waits(programs, net, f"{','.join(NODE)},late")
    agent.stop()
    net.make_vrf()
    net.says(net.tenant)
    if gone:
        net.ip("link", "delete", "dev", "blue")
        net.ip("link", "delete", "dev", "eth1")
    agent.cont()
    assert agent.goes_on(1)
    hears_the_node(agent, net)


@BOTH_CORES
def test_a_name_that_resolves_later_makes_no_difference(programs: Programs, net: Net) -> None:
    agent = waits(programs, net, "node1")
    agent.stop()
    net.make_vrf()
    net.says(net.tenant)
    agent.cont()
    time.sleep(1)
    net.survivor.add_name("node1", *NODE)
    time.sleep(6)
    assert agent.goes_on(1)
    hears_the_node(agent, net)


@pytest.mark.parametrize("programs", ["compiled"], indirect=True)  # it is the kernel's filter
@pytest.mark.parametrize("early", [False, True])
def test_a_flood_out_of_a_vrf_takes_no_room(programs: Programs, net: Net, early: bool) -> None:
    if early:
        net.make_vrf()
    agent = waits(programs, net)
    if not early:
        net.make_vrf()
        time.sleep(2)
    agent.stop()
    net.says(net.tenant, 6000)
    net.says(net.node)
    net.ip("link", "set", "dev", "eth0", "down")  # nothing comes later
    agent.cont()
    assert agent.status(within=LONG) == 0


@each_way_with("early", True, False)
def test_an_answer_out_of_a_vrf_is_not_the_nodes(programs: Programs, net: Net, early: bool) -> None:
    if early:
        net.make_vrf()
    with receiver(net.node) as sock, Answerer(sock, answer=silent) as node:
        agent = programs.agent(net.survivor, "-n", NODE[0], "-t", str(LONG))
        peer, nonce = node.question()[1], node.nonce()
        if not early:
            net.make_vrf()
        with receiver(net.tenant) as tenant:
            tenant.sendto(packet("status", nonce, key=None), peer)
        assert agent.goes_on(1)
        node.answer = dumping
        assert agent.status(within=LONG) == 0


# ------------------------------------------------- VRFs that UDP sockets hear as well


@pytest.mark.parametrize(
    ("programs", "raw_hears", "late"),
    [
        ("compiled", 0, False),
        ("pure", 0, True),
        ("pure", 1, False),
        ("compiled", 1, True),
        ("compiled-no_raw", 0, True),
    ],
    indirect=["programs"],
)
def test_where_udp_sockets_hear_vrfs_the_agent_does(
    programs: Programs,
    net: Net,
    raw_hears: int,
    late: bool,
) -> None:
    net.accept(1, raw_hears)
    if not late:
        net.make_vrf()
    agent = waits(programs, net)
    if late:
        net.make_vrf()
        time.sleep(1)
    forge_in_vrf(net)
    assert agent.goes_on(1)
    say(net.tenant, *BOTH[late])
    assert agent.status(within=LONG) == 0


@each_way_with("family", socket.AF_INET6, socket.AF_INET)
def test_where_udp_sockets_hear_vrfs_the_node_is_asked_there_too(
    programs: Programs, net: Net, family: int
) -> None:
    net.accept(1, 0)
    net.make_vrf()
    with receiver(net.tenant, family) as sock, Answerer(sock, answer=dumping):
        agent = programs.agent(net.survivor, "-n", ",".join(NODE), "-t", str(LONG))
        assert agent.status(within=LONG) == 0


@pytest.mark.parametrize("programs", ["compiled"], indirect=True)  # no core has to do with it
def test_where_udp_sockets_hear_vrfs_a_link_local_answer_is_of_its_link(
    programs: Programs, net: Net
) -> None:
    net.accept(1, 0)
    net.make_vrf()
    with receiver(net.tenant, socket.AF_INET6) as sock, Answerer(sock, answer=dumping):
        agent = programs.agent(net.survivor, "-n", "fe80::1%eth1", "-t", str(LONG))
        assert agent.status(within=LONG) == 0


@pytest.mark.parametrize("programs", ["compiled"], indirect=True)
def test_where_udp_sockets_hear_vrfs_no_user_can_answer_for_the_node(
    programs: Programs, net: Net
) -> None:
    net.accept(1, 0)
    net.make_vrf()
    with receiver(net.tenant, socket.AF_INET6) as sock, Answerer(sock, answer=silent) as node:
        agent = programs.agent(net.survivor, "-n", f"{NODE[1]},fe80::1%eth1", "-t", str(LONG))
        peer, nonce = node.question()[1], node.nonce()
        forge_in_vrf(net, port=peer[1], data=packet("status", nonce, key=None))
        assert agent.goes_on(1)
        node.answer = dumping
        assert agent.status(within=LONG) == 0


def test_where_udp_sockets_hear_vrfs_questions_are_answered_the_way_they_came(
    net: Net, core_name: str
) -> None:
    net.accept(1, 0)
    net.make_vrf()
    Listening(net.survivor, core_name, "[]", "[]", answer="survivor")
    asks_for_the_survivor(net)


#: Tells, for each line, who counts, how many messages there were of which node, how many of these
#: the kernel counted, and all counts.
COUNTING = """if True:
    import json, sys
    from kdumpfence import Listener
    networks = ["0.0.0.0/0", "::/0"]
    terms = {"silence_timeout": 3600, "repeat_interval": 3600}
    with Listener(networks=networks, counting=sys.argv[1], **terms) as listening:
        print("listens", flush=True)
        for _ in sys.stdin:
            seen = listening.snapshot()
            dumps = {dump.node: dump.messages for dump in seen.dumps}
            told = [seen.counting, dumps, listening._in_use._sources.counted, seen.counts]
            print(json.dumps(told), flush=True)
"""

Told = tuple[str, dict[str, int], int]


class Counting:
    """That program on the survivor."""

    def __init__(self, net: Net, way: str, before: Sequence[str] = ()) -> None:
        self.program = net.survivor.popen(
            [*before, sys.executable, "-c", COUNTING, way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._line() == "listens\n"

    def _line(self) -> str:
        assert self.program.stdout is not None
        return str(self.program.stdout.readline())

    def told(self, messages: int) -> Told:
        """As soon as there were so many messages."""
        assert self.program.stdin is not None
        end = time.monotonic() + LONG
        while True:
            self.program.stdin.write("?\n")
            self.program.stdin.flush()
            way, dumps, counted, reasons = json.loads(self._line())
            if sum(dumps.values()) >= messages:
                return way, dumps, counted
            assert time.monotonic() < end, (dumps, reasons)
            time.sleep(0.1)

    def close(self) -> None:
        self.program.kill()
        self.program.wait()


def speak(net: Net, times: int) -> None:
    """Node and tenant, from each of their addresses."""
    for host, cable in ((net.node, net.uplink), (net.tenant, net.cable)):
        net.says(host, times)
        say(host, "fe80::1", "fe80::2", interface=cable.interface(host), times=times)


def test_where_udp_sockets_hear_vrfs_the_kernel_counts_the_same_as_is_read_otherwise(
    net: Net,
) -> None:
    net.accept(1, 0)
    net.make_vrf()
    told: dict[str, Told] = {}
    for way in ("user", "kernel"):
        with contextlib.closing(Counting(net, way)) as listening:
            speak(net, 1)
            listening.told(6)  # those of both hosts are one node's, but for the link-local ones
            speak(net, MANY)
            forge_in_vrf(net)
            told[way] = listening.told(6 + 6 * MANY)
            assert told[way][0] == way
    assert told["kernel"][1] == told["user"][1]
    assert sorted(told["user"][1].values()) == [MANY + 1, MANY + 1, 2 * MANY + 2, 2 * MANY + 2]
    # Of the link-local ones the receive loop is told another interface, and reads them all. The
    # first one of the second host may have been counted already.
    assert told["user"][2] == 0
    assert 0 <= told["kernel"][2] - 4 * MANY <= 2


def asks_for_the_survivor(net: Net) -> None:
    """The tenant, from addresses of which the node has the same."""
    with joined(net.tenant.pid, "net"):
        link = socket.if_nametoindex(net.cable.interface(net.tenant))
    nonce = bytes(range(16))
    for source, target in (*BOTH, ("fe80::1", "fe80::2")):
        scope = (0, link) if target.startswith("fe80") else ()
        with net.tenant.open_socket(messages.family(source)) as sock:
            sock.bind((source, 0, *scope))
            sock.settimeout(1)
            for _ in range(30):
                sock.sendto(packet("question", nonce, key=None), (target, messages.PORT, *scope))
                with contextlib.suppress(socket.timeout):
                    data, peer = sock.recvfrom(999)
                    break
            else:
                pytest.fail(f"{target} does not answer")
        told = packets.read(data)
        assert told is not None
        assert (told.kind, told.name, told.nonce) == ("alive", "survivor", nonce)
        assert peer[0].partition("%")[0] == target


def forge_in_vrf(net: Net, port: int = messages.PORT, data: bytes = messages.MESSAGE) -> None:
    """What a user of the survivor can send there from the node's address."""
    for target in (OWN[1], "fe80::2%eth1", "ff02::1%eth1"):
        for device in ("blue", "eth1"):
            assert forge(net.survivor, NODE[1], target, device, port, data), (target, device)
    assert forge(net.survivor, "fe80::1%eth1", "ff02::1%eth1", "", port, data)
    assert not forge(net.survivor, NODE[0], OWN[0], "blue", port, data)


# --------------------------------------------------------------- an agent inside one


@pytest.fixture
def inside(net: Net) -> tuple[str, ...]:
    """What starts a program in the VRF."""
    net.make_vrf()
    net.survivor.run(["mkdir", "-p", "/run/cgroup"], check=True)
    net.survivor.run(["mount", "-t", "cgroup2", "none", "/run/cgroup"], check=True)
    return ("ip", "vrf", "exec", "blue")


@each_way_with("name", "fe80::1%eth1", ",".join(NODE))
def test_an_agent_that_is_started_in_a_vrf_hears_that_alone(
    programs: Programs,
    net: Net,
    inside: tuple[str, ...],
    name: str,
) -> None:
    programs.rights = (*inside, *programs.rights)
    agent = waits(programs, net, name)
    net.says(net.node)
    forge_in_vrf(net)
    assert agent.goes_on(1)
    source = "fe80::1%eth0" if "%" in name else NODE[1]
    for target in ("ff02::1%eth0", OWN[1]):
        assert forge(net.tenant, source, target)
        assert agent.status(within=LONG) == 0
        agent = waits(programs, net, name)
    agent.process.kill()


@each_way_with("family", socket.AF_INET, socket.AF_INET6)
def test_an_agent_that_is_started_in_a_vrf_asks_there_alone(
    programs: Programs, net: Net, inside: tuple[str, ...], family: int
) -> None:
    programs.rights = (*inside, *programs.rights)
    node = Answerer(receiver(net.node, family), answer=dumping)
    tenant = Answerer(receiver(net.tenant, family), answer=silent)
    with node, tenant:
        agent = programs.agent(net.survivor, "-n", ",".join(NODE), "-t", str(LONG))
        tenant.question()
        assert agent.goes_on(1)
        assert node.questions == []
        tenant.answer = dumping
        assert agent.status(within=LONG) == 0


def test_a_listener_in_a_vrf_hears_that_alone(
    net: Net,
    inside: tuple[str, ...],
    core_name: str,
) -> None:
    listening = Listening(net.survivor, core_name, "{}", '["::/0", "0.0.0.0/0"]', inside)
    net.says(net.node)
    forge_in_vrf(net)
    time.sleep(1)
    say(net.tenant, *BOTH[0])
    assert listening.line().startswith(f"began {NODE[0]} ")


def test_a_listener_in_a_vrf_counts_in_the_kernel_what_comes_there_alone(
    net: Net, inside: tuple[str, ...]
) -> None:
    with contextlib.closing(Counting(net, "kernel", inside)) as listening:
        net.says(net.tenant)
        listening.told(2)
        net.says(net.node, MANY)
        net.says(net.tenant, MANY)
        forge_in_vrf(net)
        told = listening.told(2 + 2 * MANY)
        assert told == ("kernel", dict.fromkeys(NODE, MANY + 1), 2 * MANY)


def test_a_listener_in_a_vrf_answers_there(
    net: Net, inside: tuple[str, ...], core_name: str
) -> None:
    Listening(net.survivor, core_name, "[]", "[]", inside, answer="survivor")
    asks_for_the_survivor(net)


# ------------------------------------------------------------------ the system's clock


@each_way_with("seconds", -3600, 3600)
def test_a_clock_that_is_set_makes_no_late_message_early(
    programs: Programs,
    net: Net,
    seconds: int,
) -> None:
    agent = waits(programs, net, seconds=3)
    agent.stop()
    time.sleep(1)
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
    time.sleep(3)
    net.says(net.node)
    agent.cont()
    assert agent.status(within=LONG) == 1


@each_way_with("seconds", -3600, 3600)
def test_a_clock_that_is_set_early_in_the_wait_costs_nothing(
    programs: Programs,
    net: Net,
    seconds: int,
) -> None:
    agent = waits(programs, net, seconds=15)
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
    time.sleep(2)
    agent.stop()
    net.says(net.node)
    time.sleep(15)
    agent.cont()
    assert agent.status(within=LONG) == 0
