# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of ordinary situations with the stock programs, and with ours.

Every test runs three times, and what it finds goes through `fault`: the stock programs have to
show the fault, or the comparison in the README would be wrong, and ours must not. All of it is
what nodes, networks, name services and administrators do by themselves. Nothing here is made to
harm a program; what must not be believed is in test_datagrams.py, and is sent to ours alone.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.conftest import cannot_run
from tests.interop.lab import Lab, needs_root
from tests.interop.nodes import Node, Receiver
from tests.interop.programs import Process, Programs, until, with_files
from tests.support.messages import FOREIGN_MESSAGE, MESSAGE

NODE, OTHER, NODE_6, OTHER_6 = "10.7.0.2", "10.7.0.3", "fd00::2", "fd00::3"

NO_YES_WITHIN = 0.25  # seconds; on loopback a yes takes some 5 ms


def fault(programs: Programs, what: str, shown: bool, evidence: object = "") -> None:
    """Assert that the stock programs show a fault and ours do not."""
    if programs.is_stock:
        assert shown, (
            f"the stock programs no longer {what}: they were mended; take this off the list "
            f"of their faults, here and in the README\n{evidence}"
        )
    else:
        assert not shown, f"ours {what}, as the stock programs do\n{evidence}"


def agent_ends(agent: Process, node: Node, port: int) -> bool:
    """Whether the agent has ended; if not, its node sends once more."""
    if agent.is_running:
        node.says(MESSAGE, port)
    return not agent.is_running


def hears(lab: Lab, programs: Programs, nodes: str, speaker: str) -> bool:
    """Whether an agent for these nodes takes a message from this address for a yes."""
    agent = lab.start_agent(programs, nodes)
    if agent.listens(lab.port):
        lab.node(speaker).says(MESSAGE, lab.port)
        until(lambda: not agent.is_running, NO_YES_WITHIN if programs.is_stock else 30)
    heard = not agent.is_running and agent.heard() == speaker
    agent.stop()
    return heard


def test_a_node_of_the_other_byte_order(lab: Lab, listener: Programs) -> None:
    agent = lab.agent(listener, NODE)
    lab.node(NODE).says(FOREIGN_MESSAGE, lab.port)
    heard = until(lambda: not agent.is_running, NO_YES_WITHIN if listener.is_stock else 30)
    fault(listener, "miss a node of the other byte order", not heard, agent)
    if heard:
        assert agent.heard() == NODE


# Several agents, several addresses.


@pytest.mark.slow
def test_two_nodes_that_crash_together(lab: Lab, listener: Programs) -> None:
    agents = {NODE: lab.agent(listener, NODE), OTHER: lab.start_agent(listener, OTHER)}
    agents[OTHER].listens(lab.port)
    for address in agents:
        lab.node(address).says(MESSAGE, lab.port)
    heard = {address: agent.heard() for address, agent in agents.items()}
    fault(listener, "hear one of two nodes that crash together", heard[OTHER] is None, heard)
    assert heard == {NODE: NODE, OTHER: None if listener.is_stock else OTHER}


@pytest.mark.parametrize(
    "addresses",
    [(NODE, OTHER), (NODE, NODE_6), (NODE_6, OTHER_6)],
    ids=["IPv4", "IPv4 and IPv6", "IPv6"],
)
@needs_root
@pytest.mark.slow
def test_a_name_with_several_addresses(
    lab: Lab, listener: Programs, addresses: tuple[str, ...]
) -> None:
    named = lab.with_names(listener, "".join(f"{address} both\n" for address in addresses))
    heard = [one for one in addresses if hears(lab, named, "both", one)]
    assert heard, "not even one of the addresses was heard"
    fault(listener, "hear a node at one address of its name only", len(heard) == 1, heard)


@pytest.mark.parametrize("speaker", [NODE, "::1"])
def test_a_node_with_an_ipv4_and_an_ipv6_name(lab: Lab, listener: Programs, speaker: str) -> None:
    deaf = not hears(lab, listener, f"{NODE},::1", speaker)
    fault(listener, "refuse to mix the two families", deaf)


@needs_root
def test_the_sender_and_a_name_with_two_addresses(lab: Lab, senders: Programs) -> None:
    named = lab.with_names(senders, f"{NODE} both\n{OTHER} both\n")
    receivers = [lab.receiver(NODE), lab.receiver(OTHER)]
    sender = lab.sender(named, "-c", "1", "both")
    assert sender.status() == 0, str(sender)
    reached = [receiver.hears(0.3) for receiver in receivers].count(MESSAGE)
    assert reached >= 1, str(sender)
    fault(senders, "send to one address of a name only", reached == 1, sender)


# Names that fail, at first or for ever.


@needs_root
@pytest.mark.slow
def test_a_name_that_the_agent_can_look_up_only_later(lab: Lab, listener: Programs) -> None:
    agent = lab.start_agent(lab.with_names(listener, ""), "late", timeout=15)
    gave_up = until(lambda: not agent.is_running, 10 if listener.is_stock else 0.5)
    what = "give up at once when a name cannot be looked up"
    fault(listener, what, gave_up and agent.status() == 1, agent)
    if not gave_up:
        lab.know_names(f"{NODE} late\n")
        node = lab.node(NODE)
        assert until(lambda: agent_ends(agent, node, lab.port), 10), str(agent)
        assert agent.heard() == NODE


@needs_root
@pytest.mark.slow
def test_a_node_one_of_whose_names_cannot_be_looked_up(lab: Lab, listener: Programs) -> None:
    named = lab.with_names(listener, f"{NODE} ring0\n")
    deaf = not hears(lab, named, "ring0,ring1", NODE)
    fault(listener, "give up on a node when one of its names cannot be looked up", deaf)


@needs_root
@pytest.mark.slow
def test_a_name_that_the_sender_can_look_up_only_later(lab: Lab, senders: Programs) -> None:
    named = lab.with_names(senders, f"{NODE} early\n")
    early, late = lab.receiver(NODE), lab.receiver(OTHER)
    sender = lab.sender(named, "-i", "1", "late", "early")
    assert early.hears(30) == MESSAGE, str(sender)
    lab.know_names(f"{NODE} early\n{OTHER} late\n")
    reached = late.hears(3 if senders.is_stock else 30) == MESSAGE
    fault(senders, "drop a name for good that cannot be looked up at first", not reached, sender)
    assert sender.is_running, str(sender)


@needs_root
@pytest.mark.slow
def test_no_name_that_the_sender_can_look_up_yet(lab: Lab, senders: Programs) -> None:
    named = lab.with_names(senders, "")
    sender = lab.sender(named, "-i", "1", "late")
    gave_up = until(lambda: not sender.is_running, 10 if senders.is_stock else 0.5)
    what = "give up at once when no name can be looked up"
    fault(senders, what, gave_up and sender.status() == 1, sender)
    if not gave_up:
        receiver = lab.receiver(NODE)
        lab.know_names(f"{NODE} late\n")
        assert receiver.hears(30) == MESSAGE, str(sender)


def asking_a_mute_name_server(lab: Lab, programs: Programs) -> tuple[Programs, Receiver]:
    """Give the programs a name server that never answers; return both."""
    resolver, switch = lab.folder / "resolv.conf", lab.folder / "nsswitch.conf"
    resolver.write_text("nameserver 127.0.0.99\noptions timeout:30 attempts:1\n")
    switch.write_text("hosts: files dns\n")
    files = {"/etc/resolv.conf": resolver, "/etc/nsswitch.conf": switch}
    return programs.through(*with_files(files)), lab.receiver("127.0.0.99", 53)


@needs_root
@pytest.mark.slow
def test_a_sender_whose_look_up_of_another_node_hangs(lab: Lab, senders: Programs) -> None:
    asking, name_server = asking_a_mute_name_server(lab, senders)
    receiver = lab.receiver(NODE)
    sender = lab.sender(asking, "-i", "1", "asked.test", NODE)
    assert name_server.hears(25) is not None, f"nobody was asked: {sender}"
    delayed = receiver.hears(1.5 if senders.is_stock else 10) is None
    fault(senders, "let a look-up that hangs delay the other nodes", delayed, sender)
    sender.terminate()
    assert sender.status(5) != 0


@needs_root
@pytest.mark.slow
def test_an_agent_whose_look_up_of_another_name_hangs(lab: Lab, listener: Programs) -> None:
    asking, name_server = asking_a_mute_name_server(lab, listener)
    agent = lab.start_agent(asking, f"asked.test,{NODE}", timeout=15)
    assert name_server.hears(25) is not None, f"nobody was asked: {agent}"
    node = lab.node(NODE)
    deaf = not until(lambda: agent_ends(agent, node, lab.port), 1.5 if listener.is_stock else 10)
    fault(listener, "hear nothing while a look-up hangs", deaf, agent)
    if not deaf:
        assert agent.heard() == NODE


@pytest.mark.slow
def test_the_first_seconds_of_a_sender_with_the_default_interval(
    lab: Lab, senders: Programs
) -> None:
    receiver = lab.receiver(NODE)
    sender = lab.sender(senders, NODE)
    assert receiver.hears(30) == MESSAGE, str(sender)
    second = receiver.hears(5)
    fault(senders, "leave a lost first message unrepeated for 10 s", second is None, sender)


@needs_root
@pytest.mark.slow
def test_a_message_that_could_not_leave_the_machine(lab: Lab, senders: Programs) -> None:
    if not (shutil.which("ip") and shutil.which("nsenter")):
        cannot_run("ip or nsenter is missing")
    without_network = senders.through("unshare", "--net")  # even its loopback is down
    sender = lab.sender(without_network, "-c", "1", "-i", "10", "127.0.0.1")
    ended = until(lambda: not sender.is_running, 10 if senders.is_stock else 0.5)
    counted = ended and sender.status() == 0
    fault(senders, "count a message that never left the machine", counted, sender)
    if not counted:
        assert sender.is_running, str(sender)
        inside = ("nsenter", f"--net=/proc/{sender.pid}/ns/net")
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        assert sender.status(8) == 0, str(sender)


# Options.


@pytest.mark.parametrize(
    "options",
    [("-p", "17416junk"), ("-t", "1x"), ("-p", "17416,17417"), ("-t", "1.9")],
    ids=" ".join,
)
@pytest.mark.slow
def test_an_agent_given_a_number_with_rubbish_behind_it(
    lab: Lab, programs: Programs, options: tuple[str, str]
) -> None:
    agent = lab.start(programs, programs.agent, ["-n", NODE, "-t", "1", *options])
    assert agent.status() == 1
    fault(programs, "take a number with rubbish behind it", not agent.errors, agent)
    assert options[1] in agent.errors or programs.is_stock, "the error must name what was given"


# Actions.


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["-n", NODE, "-p", "17416junk"], id="port"),
        pytest.param(["-n", NODE, "-t", "5x"], id="timeout"),
        pytest.param(["-n", ","], id="no name between the commas"),
        pytest.param(["-n", "no such name"], id="name"),
        pytest.param(["-n", NODE, "-f", "ipv6"], id="family"),
    ],
)
@needs_root
@pytest.mark.slow
def test_validate_all_given_what_cannot_work(lab: Lab, programs: Programs, argv: list[str]) -> None:
    named = lab.with_names(programs, "127.0.0.1 localhost\n")
    agent = lab.start(named, programs.agent, ["-o", "validate-all", *argv])
    accepted = agent.status() == 0
    fault(programs, "call options valid that are not", accepted, agent)
    assert agent.errors or programs.is_stock, "a refusal must say what is wrong"


@pytest.mark.parametrize("argv", [[], ["-n", NODE], ["-n", f"{NODE},::1", "-t", "5"]])
def test_validate_all_given_what_works(lab: Lab, programs: Programs, argv: list[str]) -> None:
    agent = lab.start(programs, programs.agent, ["-o", "validate-all", *argv])
    assert agent.status() == 0, str(agent)


def test_reboot_is_not_an_action_of_its_own(lab: Lab, listener: Programs) -> None:
    agent = lab.start_agent(listener, NODE, "-o", "reboot")
    listens = agent.listens(lab.port)
    fault(listener, "refuse reboot", not listens, agent)
    if listens:
        lab.node(NODE).says(MESSAGE, lab.port)
        assert agent.heard() == NODE


@pytest.mark.parametrize("action", ["list", "on", "bogus", ""])
def test_what_no_one_can_do_with_kdump_is_refused(
    lab: Lab, programs: Programs, action: str
) -> None:
    agent = lab.start_agent(programs, NODE, "-o", action)
    assert agent.status() == 1, str(agent)
    assert f"'{action}'" in agent.errors


# monitor and status. The agent is shown a kernel command line and what /sys says of the memory
# set aside for a crash kernel and of its being loaded there.


MEMORY = 192 << 20

#: crashkernel=, bytes reserved, loaded; exit status of the stock agent and of ours.
KERNELS = {
    "all in place": (True, MEMORY, 1, 0, 0),
    "nothing loaded": (True, MEMORY, 0, 0, 1),
    "nothing reserved": (True, 0, 0, 0, 1),
    "no sign of it": (False, 0, 0, 1, 1),
}


def on_kernel(lab: Lab, programs: Programs, state: str) -> Programs:
    """Return the programs as if on a kernel in this state."""
    crashkernel, reserved, loaded, _, _ = KERNELS[state]
    command_line, folder = lab.folder / "cmdline", lab.folder / "kernel"
    command_line.write_text("ro quiet crashkernel=192M\n" if crashkernel else "ro quiet\n")
    folder.mkdir()
    (folder / "kexec_crash_size").write_text(f"{reserved}\n")
    (folder / "kexec_crash_loaded").write_text(f"{loaded}\n")
    return programs.through(*with_files({"/proc/cmdline": command_line, "/sys/kernel": folder}))


@pytest.mark.parametrize("state", KERNELS)
@pytest.mark.parametrize("given", ["-o monitor", "action=monitor\n"])
@needs_root
def test_monitor_without_a_crash_kernel_in_place(
    lab: Lab, programs: Programs, state: str, given: str
) -> None:
    *_, stock_status, status = KERNELS[state]
    here = on_kernel(lab, programs, state)
    agent = lab.start_given(here, given)
    if stock_status != status:
        fault(programs, "look at /proc/cmdline only", agent.status() == stock_status, agent)
    assert agent.status() == (stock_status if programs.is_stock else status), str(agent)
    if agent.status() == 1 and not programs.is_stock:
        assert "crash kernel" in agent.errors, "a no must say what is missing"


@pytest.mark.parametrize("state", KERNELS)
@needs_root
def test_status_is_taken_as_monitor(lab: Lab, programs: Programs, state: str) -> None:
    agent = lab.start(on_kernel(lab, programs, state), programs.agent, ["-o", "status"])
    refused = agent.status() == 1 and "unsupported action" in agent.errors
    fault(programs, "refuse status", refused, agent)
    assert refused or agent.status() == KERNELS[state][-1], str(agent)
