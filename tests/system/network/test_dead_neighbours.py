# SPDX-License-Identifier: LGPL-2.1-or-later
"""Neighbours that never answer take nothing from those that live, however many they are."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.support.netlab import Host, Lab, Link
from tests.system.network.datagrams import arrivals, receiver
from tests.system.network.programs import Programs

# The kernel has one table of neighbours for all network namespaces of a machine.
pytestmark = pytest.mark.alone


#: Forms, families and numbers, so that each form meets each number and each family; and whether
#: the sender has any right.
CASES = [
    ("native", "ipv4", 160, True),
    ("native", "ipv6", 500, True),
    ("native", "ipv4", 500, False),
    ("native", "ipv4", 900, True),
    ("compiled", "ipv6", 160, True),
    ("compiled", "ipv4", 500, False),
    ("compiled", "ipv6", 900, True),
    ("compiled", "ipv4", 900, True),
    ("pure", "ipv4", 900, True),
]
WITHOUT_ANY_RIGHT = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")


def network(lab: Lab, node: Host, survivor: Host, family: str) -> tuple[Link, list[str], str]:
    """One link, 2,000 addresses that nobody has, and the survivor's."""
    if family == "ipv4":
        link = lab.link(node, survivor, ["10.0.0.1/16"], ["10.0.0.2/16"])
        return link, [f"10.0.{1 + n // 200}.{n % 200 + 1}" for n in range(2000)], "10.0.0.2"
    link = lab.link(node, survivor, ["fd00::1/64"], ["fd00::2/64"])
    return link, [f"fd00::dead:{n:x}" for n in range(2000)], "fd00::2"


#: Bytes of one message for each neighbour that may be asked for, and never a second one.
HELD_AT_MOST = 256 * 1536


def held(node: Host) -> int:
    """Bytes of messages that wait in the kernel."""
    sockets = node.run(["ss", "-aunm"]).stdout.split("skmem:(")[1:]
    return sum(int(one.split("t", 1)[1].split(",")[0]) for one in sockets)


def listen(survivor: Host, family: str) -> socket.socket:
    return receiver(survivor, socket.AF_INET if family == "ipv4" else socket.AF_INET6)


@pytest.mark.parametrize(("programs", "family", "number", "rights"), CASES, indirect=["programs"])
def test_one_that_lives_behind_many_that_are_dead_hears_as_if_it_were_alone(
    programs: Programs,
    lab: Lab,
    node: Host,
    survivor: Host,
    family: str,
    number: int,
    rights: bool,
) -> None:
    """And the queues of the kernel stay short."""
    _, dead, alive = network(lab, node, survivor, family)
    messages = listen(survivor, family)
    before = () if rights else WITHOUT_ANY_RIGHT
    sender = programs.sender(node, *dead[:number], alive, before=before)
    times = arrivals(messages, 6, within=10)
    print(times)
    assert len(times) == 6
    # The first one waits until Python has started and the others have been tried.
    assert times[0] < 2
    for earlier, later in zip(times, times[1:]):
        assert later - earlier == pytest.approx(1, abs=0.4)
    if (family, number) == ("ipv4", 900):
        for _ in range(20):
            assert node.tool("ip", "neigh", "show").stdout.count("INCOMPLETE") <= 256
            assert 0 < held(node) <= HELD_AT_MOST
            time.sleep(0.1)
    sender.process.kill()


@pytest.mark.parametrize(
    ("programs", "family"),
    [("native", "ipv4"), ("pure", "ipv6")],
    indirect=["programs"],
)
def test_more_than_the_kernel_can_ask_for_at_a_time(
    programs: Programs, lab: Lab, node: Host, survivor: Host, family: str
) -> None:
    _, dead, alive = network(lab, node, survivor, family)
    messages = listen(survivor, family)
    sender = programs.sender(node, *dead, alive)
    # Two times as many as may be asked for at a time, each for three seconds; then as if alone.
    times = arrivals(messages, 5, within=17)
    print(times)
    assert len(times) == 5
    assert times[0] < 9
    assert times[-1] - times[0] < 5.5
    sender.process.kill()


def test_one_that_comes_alive_among_the_dead_hears_soon(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link, dead, _ = network(lab, node, survivor, "ipv4")
    messages = listen(survivor, "ipv4")
    sender = programs.sender(node, *dead[:150])
    time.sleep(4)
    link.add_address(survivor, f"{dead[70]}/16")
    # The kernel asks every second, in three seconds of four.
    assert arrivals(messages, 1, within=3.5)
    sender.process.kill()


@pytest.mark.parametrize("programs", ["native", "compiled", "pure"], indirect=True)
def test_many_that_answered_and_die_together_do_not_silence_the_one_that_lives(
    programs: Programs, lab: Lab, node: Host, survivor: Host, tmp_path: Path
) -> None:
    link, addresses, alive = network(lab, node, survivor, "ipv4")
    name = link.interface(survivor)
    batch = tmp_path / "addresses"
    batch.write_text("".join(f"address add {one}/32 dev {name}\n" for one in addresses[:900]))
    survivor.tool("ip", "-batch", str(batch))
    messages = survivor.open_socket()
    messages.bind((alive, 7410))
    sender = programs.sender(node, "-i", "1", *addresses[:900], alive)
    assert len(arrivals(messages, 3, within=6)) == 3
    survivor.tool("ip", "address", "flush", "dev", name)
    survivor.tool("ip", "address", "add", f"{alive}/16", "dev", name)
    node.tool("ip", "neigh", "flush", "dev", link.interface(node))  # the kernel would in a minute
    # The kernel has no room for more questions, for a moment; and from then on as if alone.
    times = arrivals(messages, 12, within=20)
    print(times)
    assert len(times) == 12
    assert times[-1] - times[4] < 7.5
    assert held(node) <= HELD_AT_MOST
    sender.process.kill()


@pytest.mark.parametrize("programs", ["native", "compiled", "pure"], indirect=True)
def test_with_a_count_nobody_is_held_to_be_reached_who_never_answered(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    # The kernel says of a few only that they do not answer: there is a limit to its ICMP errors.
    link, dead, alive = network(lab, node, survivor, "ipv4")
    link.resolve_impatiently()
    sender = programs.sender(node, "-c", "1", "-i", "1", *dead[:300], alive)
    output, _ = sender.process.communicate(timeout=30)
    assert sender.process.returncode == 0
    assert output.count(" was never reached\n") == 300
    assert f"node '{alive}' was never reached" not in output
    assert output.count("message sent to ") == 1
