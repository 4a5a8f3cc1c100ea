# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which addresses are the node's: what the cluster says, what names say, and what never counts."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from tests.support.messages import MESSAGE, PORT
from tests.support.netlab import Host, Lab
from tests.support.programs import AGENT, environment, without_raw_sockets
from tests.system.network.datagrams import say
from tests.system.network.programs import (
    BOTH_CORES,
    EVERY_AGENT,
    Programs,
)


def asks(
    programs: Programs, host: Host, words: str, *rights: str
) -> tuple[int, list[str], list[str], float]:
    """The agent, asked on stdin: exit status, stdout, stderr, and how many seconds it took."""
    process = host.popen(
        [*rights, AGENT],
        env=environment(programs.form),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    began = time.monotonic()
    out, err = process.communicate("".join(f"{word}\n" for word in words.split()), timeout=60)
    took = time.monotonic() - began
    return process.returncode, out.splitlines(), err.splitlines(), took


def validates(programs: Programs, host: Host, *arguments: str) -> tuple[int, list[str], float]:
    """The agent, asked by hand whether all is valid: status, stderr, seconds."""
    began = time.monotonic()
    done = host.run([AGENT, "-o", "validate-all", *arguments], env=environment(programs.form))
    return done.returncode, done.stderr.splitlines(), time.monotonic() - began


def without_raw(programs: Programs) -> str:
    return " (without raw sockets)" if programs.rights else ""


# ------------------------------------------------------- nodename, plug and port together


@EVERY_AGENT
@pytest.mark.slow
def test_where_the_cluster_gives_addresses_the_nodes_name_adds_nothing(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    other = lab.host("node3")
    lab.link(other, survivor, ["10.1.0.3/24"], ["10.1.0.2/24"])
    survivor.add_name("node1", "10.1.0.3")  # by mistake
    agent = programs.agent(survivor, "-n", "node1", "--plug", "10.0.0.1", "-t", "30")
    agent.says(f"[debug]: waiting for message from '10.0.0.1'{without_raw(programs)}")
    for _ in range(2):  # the second one after any look-up
        say(other, "10.1.0.3", "10.1.0.2")
        assert agent.goes_on()
    say(node, "10.0.0.1", "10.0.0.2")
    assert agent.status(within=20) == 0


@BOTH_CORES
@pytest.mark.parametrize("plug", ["10.9.9.9,node1-ring1", "node1-ring1"])
def test_a_name_counts_alone_and_beside_an_address_in_the_same_list(
    programs: Programs, lab: Lab, node: Host, survivor: Host, plug: str
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    survivor.add_name("node1-ring1", "10.0.0.1")
    agent = programs.agent(survivor, "-n", "node1", "--plug", plug, "-t", "30")
    if "," in plug:
        agent.says("[debug]: waiting for message from '10.9.9.9'")
    agent.says("[debug]: waiting for message from '10.0.0.1'")
    say(node, "10.0.0.1", "10.0.0.2")
    assert agent.status(within=20) == 0


# ------------------------------------------------------------------- this machine's own


@EVERY_AGENT
@pytest.mark.slow
def test_a_name_that_is_this_machine_itself_is_asked_for_until_it_is_not(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    survivor.write_file("/etc/hosts", "127.0.1.1 node1\n10.0.0.2 node1\n::1 node1\n")
    agent = programs.agent(survivor, "-n", "node1", "-t", "30")
    agent.says("[debug]: waiting for message from 'node1', which has no address yet")
    agent.says_of("[error]: node 'node1': ", " are addresses of this machine; will try again")
    for source in ("127.0.1.1", "10.0.0.2"):
        say(survivor, source, source)
        say(survivor, source, "10.0.0.2")
    assert agent.goes_on()
    survivor.add_name("node1", "10.0.0.1")
    agent.says(f"[debug]: waiting for message from '10.0.0.1'{without_raw(programs)}")
    say(node, "10.0.0.1", "10.0.0.2")
    assert agent.status(within=20) == 0


@EVERY_AGENT
@pytest.mark.slow
def test_of_a_name_only_what_is_another_machines_counts(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    survivor.write_file("/etc/hosts", "127.0.1.1 node1\n10.0.0.1 node1\n10.0.0.2 node1\n")
    agent = programs.agent(survivor, "-n", "node1", "-t", "30")
    agent.says("[debug]: 'node1' is 10.0.0.1")
    for source in ("127.0.1.1", "10.0.0.2"):
        say(survivor, source, source)
    assert agent.goes_on()
    say(node, "10.0.0.1", "10.0.0.2")
    assert agent.status(within=20) == 0


@BOTH_CORES
@pytest.mark.parametrize("nonlocal_bind", ["0", "1"])
@pytest.mark.slow
def test_an_address_of_this_machine_is_a_no_at_once(
    programs: Programs, lab: Lab, node: Host, survivor: Host, nonlocal_bind: str
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"])
    survivor.set_sysctl("net/ipv4/ip_nonlocal_bind", nonlocal_bind)
    survivor.set_sysctl("net/ipv6/ip_nonlocal_bind", nonlocal_bind)
    survivor.tool("ip", "route", "add", "local", "10.7.0.0/16", "dev", "lo")
    survivor.tool("ip", "addr", "add", "fe80::5/64", "dev", link.interface(survivor), "nodad")
    own = ["10.0.0.2", "fd00::2", "10.7.8.9", f"fe80::5%{link.interface(survivor)}"]
    for address in own:
        status, _, err, took = asks(programs, survivor, f"nodename={address} timeout=30")
        assert (status, err) == (
            1, [f"[error]: node '{address}': {address} is an address of this machine"]
        )  # fmt: skip
        assert took < 10
        assert validates(programs, survivor, "-n", address)[:2] == (1, err)
    others = f"10.0.0.1,fd00::1,fe80::1%{link.interface(survivor)}"
    assert asks(programs, survivor, f"action=validate-all nodename={others}")[0] == 0
    agent = programs.waiting_agent(survivor, f"{own[0]},{others}")
    say(node, "10.0.0.1", "10.0.0.2")
    assert agent.status(within=20) == 0


@EVERY_AGENT
@pytest.mark.slow
def test_an_address_that_this_machine_takes_over_during_the_wait_proves_nothing(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    agent = programs.waiting_agent(survivor, "10.0.0.9", 4)
    survivor.tool("ip", "addr", "add", "10.0.0.9/24", "dev", link.interface(survivor))
    say(survivor, "10.0.0.9", "10.0.0.2")
    say(survivor, "10.0.0.9", "10.0.0.9")
    # And what comes from another machine that still has it.
    survivor.set_sysctl("net/ipv4/conf/all/accept_local", "1")
    node.tool("ip", "addr", "add", "10.0.0.9/24", "dev", link.interface(node))
    node.tool("ip", "route", "del", "local", "10.0.0.9", "table", "local", check=False)
    with node.open_socket() as sock:
        sock.setsockopt(0, 19, 1)  # IP_TRANSPARENT
        sock.bind(("10.0.0.9", 0))
        sock.sendto(MESSAGE, ("10.0.0.2", PORT))
    assert agent.status(within=20) == 1


# ----------------------------------------------------------------------- what is refused


@BOTH_CORES
def test_what_can_be_no_node_is_a_no_at_once_and_in_one_line(
    programs: Programs, survivor: Host
) -> None:
    survivor.hang_name_service()
    for text in ("192.0.2.010", "127.1", "192.0.2.1;", '"192.0.2.1"', "192.0.2.0/24", "a:7410"):
        status, out, err, took = asks(programs, survivor, f"nodename={text} timeout=30")
        assert (status, out) == (1, [])
        assert len(err) == 1
        assert err[0].startswith("[error]: nodename '")
        assert "': neither a host name nor an IP address" in err[0]
        assert took < 10
        assert asks(programs, survivor, f"action=validate-all nodename={text}")[0] == 1


@EVERY_AGENT
@pytest.mark.slow
def test_what_is_refused_does_not_hide_the_rest(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["240.0.0.1/24"], ["240.0.0.2/24"])
    for nodes in ("192.0.2.010,240.0.0.1", r"\;,240.0.0.1", "[::ffff:240.0.0.1],127.1"):
        agent = programs.agent(survivor, "-n", nodes, "-t", "30")
        agent.says(f"[debug]: waiting for message from '240.0.0.1'{without_raw(programs)}")
        programs.sender(node, "-c", "1", "240.0.0.2")
        assert agent.status(within=20) == 0


def test_the_sender_warns_and_tells_the_others(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["240.0.0.1/24", "fd00::1/64"], ["240.0.0.2/24", "fd00::2/64"])
    words = ["&", "|", ">", "10.0.0.010", "240.0.0.2,[fd00::2]", "10.0.0.0/24"]
    sender = programs.sender(node, "-c", "1", *words)
    sent = []
    assert sender.process.stdout is not None
    for line in sender.process.stdout:
        sent += [line.split()[5:7]] if "message sent" in line else []
    assert sorted(sent) == [["'240.0.0.2'", "(240.0.0.2),"], ["'fd00::2'", "(fd00::2),"]]
    assert sender.status(within=20) == 0


def test_the_sender_uses_an_interface_that_comes_late(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    sender = programs.sender(node, "-c", "1", "fe80::2%eth0")
    sender.says(
        "[error]: node 'fe80::2%eth0': this machine has no interface 'eth0'; will try again"
    )
    lab.link(node, survivor, ["fe80::1/64"], ["fe80::2/64"])
    sender.says("[debug]: 'fe80::2%eth0' is fe80::2%eth0")
    assert sender.status(within=20) == 0


@pytest.mark.parametrize("nonlocal_bind", ["0", "1"])
@pytest.mark.slow
def test_what_a_router_could_not_deliver_has_left_this_machine(
    programs: Programs, lab: Lab, node: Host, survivor: Host, nonlocal_bind: str
) -> None:
    router = lab.host("router")
    lab.link(node, router, ["10.0.0.1/24"], ["10.0.0.254/24"])
    far = lab.link(router, survivor, ["10.1.0.254/24"], ["10.1.0.2/24"])
    node.tool("ip", "route", "add", "10.1.0.0/24", "via", "10.0.0.254")
    node.set_sysctl("net/ipv4/ip_nonlocal_bind", nonlocal_bind)
    router.set_sysctl("net/ipv4/ip_forward", "1")
    for name, value in (("mcast_solicit", "1"), ("retrans_time_ms", "50")):
        router.set_sysctl(f"net/ipv4/neigh/{far.interface(router)}/{name}", value)
    sender = programs.sender(node, "-c", "3", "-i", "1", "10.1.0.99")
    for number in (1, 2, 3):
        sender.says(f"[debug]: message sent to node '10.1.0.99' (10.1.0.99), number {number}")
    assert sender.status(within=10) == 0


@pytest.mark.parametrize("target", ["10.0.0.99", "fd00::99", "fe80::99%eth0"])
@pytest.mark.slow
def test_what_this_machine_could_not_deliver_has_not_left_it(
    programs: Programs, lab: Lab, node: Host, survivor: Host, target: str
) -> None:
    addresses = ["10.0.0.1/24", "fe80::1/64", *(["fd00::1/64"] * (target == "fd00::99"))]
    link = lab.link(node, survivor, addresses, ["fe80::2/64"])
    link.resolve_impatiently()
    sender = programs.sender(node, "-i", "1", target)
    sender.says(f"[error]: node '{target}' ({target}): No route to host; will try again")


# ---------------------------------------------------------------------------- validate-all

#: What Pacemaker hands over, in its order, for `pcs stonith create` and `update`: the name of a
#: node that does not exist, beside what the device says.
VALIDATIONS = [
    # 2.1.5
    "action=validate-all nodename=node1 port=node1",
    "nodename=10.0.0.1,10.1.0.1 timeout=50 action=validate-all port=node1",
    # 3.0.3
    "action=validate-all nodename=node1 plug=node1",
    "action=validate-all nodename=node1 plug=node1 timeout=50 ipport=7411 family=ipv4 verbose=1",
    "action=validate-all nodename=10.0.0.1,fd00::1 plug=node1 timeout=50",
    "action=validate-all nodename=ring0.node1,ring1.node1 plug=node1",
    r"action=validate-all nodename=fd00\:\:1,[fd00::2] plug=node1",
]

#: The last word of each is what is wrong.
WRONG = [
    *("ipport=7410x", "family=ipv5", "timeout=1m", "verbose=loud", "nodename=10.0.0.1;"),
    *("nodename=10.0.0.1,10.0.0.0/24", "nodename=224.0.0.1", "nodename=fe80::1"),
    "family=ipv4 nodename=fd00::1",
]


@BOTH_CORES
@pytest.mark.parametrize("is_node1", [False, True])
@pytest.mark.slow
def test_a_cluster_that_validates_asks_no_name_service(
    programs: Programs, survivor: Host, is_node1: bool
) -> None:
    survivor.hang_name_service()
    if is_node1:
        survivor.add_name("node1", "127.0.1.1")
    for words in VALIDATIONS:
        status, _, err, took = asks(programs, survivor, words)
        assert (status, err) == (0, [])
        assert took < 4
        # Without the right to raw sockets as well.
        assert asks(programs, survivor, words, *without_raw_sockets())[::2] == (0, [])
    for words in WRONG:
        for target in ("plug=node1", "port=node1", "nodename=node1 plug=node1"):
            status, _, err, took = asks(programs, survivor, f"action=validate-all {target} {words}")
            assert status == 1
            assert len(err) == 1
            assert re.match(rf"\[error\]: \w+ '{re.split('[=,]', words)[-1]}': ", err[0])
            assert took < 4


@BOTH_CORES
def test_a_device_may_be_created_on_the_node_that_it_is_for(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24", "fd00::2/64"])
    words = "action=validate-all nodename=10.0.0.2,fd00::2 plug=node1"
    status, out, err, _ = asks(programs, survivor, words)
    assert (status, err) == (0, [])
    assert any("10.0.0.2 is an address of this machine" in line for line in out)


@BOTH_CORES
@pytest.mark.slow
def test_by_hand_names_are_looked_up_within_five_seconds(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    survivor.hang_name_service()
    survivor.add_name("node1", "10.0.0.1")
    survivor.add_name("self", "10.0.0.2", "127.0.1.1")
    survivor.add_name("partly", "10.0.0.1", "127.0.1.1")
    assert validates(programs, survivor, "-n", "node1")[:2] == (0, [])
    assert validates(programs, survivor, "-n", "10.0.0.1", "--plug", "nobody")[:2] == (0, [])
    nodes = "node1,nobody1,nobody2,self,partly"
    status, err, took = validates(programs, survivor, "-n", nodes)
    assert status == 1
    assert sorted(re.findall(r"^\[(\w+)\]: node '(\w+)'", "\n".join(err), re.MULTILINE)) == [
        *(("error", name) for name in ("nobody1", "nobody2", "self")),
        ("warning", "partly"),
    ]
    assert 5 <= took < 9
