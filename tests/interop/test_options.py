# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same command line or stdin has the same effect, whichever of the programs gets it.

An effect is what can be seen from outside: the exit status, the address that was heard, the
datagrams that arrived. The stock programs run every line of the tables too, so that no table
can be wrong about them. In the tables N1 to N3 are nodes on IPv4, N6 is one
on IPv6, and PORT is the port of the test.
"""

from __future__ import annotations

import time

import pytest

from tests.interop.lab import Lab, needs_root
from tests.interop.programs import Process, Programs, until
from tests.support.messages import MESSAGE

NODES = {"N1": "127.0.0.2", "N2": "127.0.0.3", "N3": "127.0.0.4", "N6": "::1"}


def filled(lab: Lab, text: str) -> str:
    """Return the text with node addresses and port in place of their names."""
    for name, value in {**NODES, "PORT": str(lab.port)}.items():
        text = text.replace(name, value)
    return text


def start(lab: Lab, programs: Programs, given: str) -> Process:
    """Start an agent with this command line or stdin."""
    return lab.start_given(programs, filled(lab, given))


def is_heard(lab: Lab, agent: Process, speakers: str) -> str | None:
    """Let nodes speak, one after the other; return the name of the one that was heard."""
    assert agent.listens(lab.port), f"ended before it listened: {agent}"
    for name in speakers.split():
        assert agent.is_running, f"ended before {name} spoke: {agent}"
        lab.node(NODES[name]).says(MESSAGE, lab.port)
        until(lambda: not agent.is_running, 0.15)
    address = (agent.heard() or "").replace("::ffff:", "")  # an IPv4 one as IPv6 has it
    return next((name for name in NODES if NODES[name] == address), address)


# The agent's command line, or its stdin if there is a newline in it. Of the nodes that speak
# one after the other, the last is heard.
HEARD = {
    "N1": [
        "-n N1 -p PORT -t 30",
        "-nN1 -pPORT -t30",
        "--nodename=N1 --ipport=PORT --timeout=30",
        "--nodename N1 --ipport PORT --timeout 30",
        "--node N1 --ip PORT --time 30",
        "--n=N1 --i=PORT --t=30",
        "-p 1 -n N1 -p PORT",
        "-t 1 -t 30 -n N1 -p PORT",
        "stray -n N1 other -p PORT last",
        "-n N1 -p PORT -- -o bogus",
        "-n N1 -p PORT -v",
        "-v -n N1 -p PORT",
        "-v 2 -n N1 -p PORT",
        "-v2 -n N1 -p PORT",
        "-vvv -n N1 -p PORT",
        "-v -v -n N1 -p PORT",
        "--verbose -n N1 -p PORT",
        "--verbose=2 -n N1 -p PORT",
        "--verbose=some -n N1 -p PORT",
        "--verb -n N1 -p PORT",
        "-n N1 -p PORT -f auto",
        "-n N1 -p PORT -f ipv4",
        "-n N1 -p PORT --family=IPv4",
        "-n ::ffff:N1 -p PORT",
        "-n N1 -p PORT -o off",
        "-n N1 -p PORT -o OFF",
        "nodename=N1\naction=off\nipport=PORT\n",  # as Pacemaker writes it
        "nodename=N1\nipport=PORT",
        "\n\nnodename=N1\n\nipport=PORT\n\n",
        "nodename=N1\r\nipport=PORT\r\naction=off\r\n",
        "nodename=N1\npcmk_host_map=x\nfoo=\nipport=PORT\n",  # unknown keys
        "nodename=N1\nfoo\nipport=PORT\n",  # a word without a value
        "nodename=N1\n=foo\nipport=PORT\n",  # a value without a key
        "NODENAME=N1\nIpPort=PORT\n",
        "nodename=N1\nipport=PORT\naction=OFF\n",
        "nodename=N1\nipport=PORT\nverbose=1\n",
        "nodename=N1\nipport=PORT\nverbose=2\n",
        "nodename=N1\nipport=PORT\nverbose=\n",  # verbose, empty
        "nodename=N1\nipport=PORT\nverbose\n",  # verbose, a word
        "nodename=N1\nipport=PORT\nverbose=some\n",  # verbose, neither number nor boolean
        "nodename=N1\nport=bay 7\nipport=PORT\n",  # a port that is no name
        "nodename=N1\nport=7\nipport=PORT\n",  # a port that is a number
        "#" + 3000 * "x" + "\nnodename=N1\nipport=PORT\n",  # a long comment
    ],
    "N3 N1": [
        "-n N1,N2 -p PORT",
    ],
    "N3 N2": [
        "-n N1,N2 -p PORT",
        "-n ,N1,,N2, -p PORT",
        "nodename=N1,N2\nipport=PORT\n",
    ],
    "N1 N2": [
        "-n N1 -n N2 -p PORT",
        "nodename=N1\nnodename=N2\nipport=1\nipport=PORT\n",
    ],
    "N6": [
        "-n N6 -p PORT",
        "-n N6 -p PORT -f ipv6",
        "nodename=N6\nipport=PORT\nfamily=ipv6\n",
    ],
    "N2 N1": [
        "# nodename=N2\n#\nnodename=N1\nipport=PORT\n",
        "  # nodename=N2\nnodename=N1\nipport=PORT\n",
        "nodename=N1\nnode=N2\nnodenames=N2\nipport=PORT\n",  # not quite a key
    ],
}


@pytest.mark.parametrize(
    ("given", "speakers"),
    [(given, speakers) for speakers, ways in HEARD.items() for given in ways],
)
@pytest.mark.slow
def test_the_node_that_was_given_is_heard(
    lab: Lab, programs: Programs, given: str, speakers: str
) -> None:
    agent = start(lab, programs, given)
    assert is_heard(lab, agent, speakers) == speakers.rsplit(maxsplit=1)[-1]


@pytest.mark.parametrize("speaker", ["N1", "N2", "N3"])
def test_nodename_plug_and_port_on_stdin_name_one_node(
    lab: Lab, ours: Programs, speaker: str
) -> None:
    # Pacemaker always adds port=, whatever is configured; the stock agent ignores it.
    lines = "action=off\nport=N1\nnodename=N2\nplug=N3\nipport=PORT\n"
    assert is_heard(lab, start(lab, ours, lines), speaker) == speaker


@needs_root
def test_the_cluster_name_in_port_need_not_be_known_where_nodename_has_addresses(
    lab: Lab, programs: Programs
) -> None:
    named = lab.with_names(programs, "127.0.0.1 localhost\n")
    lines = "port=node3\nnodename=N1,N2\naction=off\nipport=PORT\n"
    assert is_heard(lab, start(lab, named, lines), "N2") == "N2"


@pytest.mark.slow
def test_a_long_list_of_names_on_stdin_is_read_to_its_end(lab: Lab, ours: Programs) -> None:
    nodes = [f"127.0.1.{number}" for number in range(1, 255)]
    agent = start(lab, ours, f"nodename={','.join(nodes)}\nipport=PORT\ntimeout=30\n")
    assert agent.listens(lab.port), str(agent)
    lab.node(nodes[-1]).says(MESSAGE, lab.port)
    assert agent.heard() == nodes[-1]


@pytest.mark.parametrize("given", ["-n N1 -p PORT -t1", "nodename=N1\nipport=PORT\ntimeout=1\r\n"])
@pytest.mark.slow
def test_the_timeout_is_as_long_as_asked_for(lab: Lab, programs: Programs, given: str) -> None:
    started = time.monotonic()
    agent = start(lab, programs, given)
    assert agent.status() == 1, str(agent)
    assert 0.95 < time.monotonic() - started < 4


REFUSED = [
    "-x",
    "--bogus",
    "--ver",  # --verbose or --version?
    "-n",
    "-t",
    "-p PORT",  # no node
    "-n '' -p PORT",
    "-n N1 -p 0",
    "-n N1 -p 65536",
    "-n N1 -p -5",
    "-n N1 -p junk",
    "-n N1 -p ''",
    "-n N1 -t 0",
    "-n N1 -t -1",
    "-n N1 -t junk",
    "-n N1 -t ''",
    "-n N1 -f ipv5",
    "-n N1 -f ''",
    "-n N1 -o bogus",
    "-n N1 -o ''",
    "-o on -n N1",
    "-o list",
    "",
    "\n",
    "nodename=\n",
    "# nodename=N1\n",
    "ipport=PORT\ntimeout=5\n",
    "nodename=N1\naction=\n",
    "nodename=N1\naction=bogus\n",
    "nodename=N1\ntimeout=\n",
    "nodename=N1\ntimeout=junk\n",
    "nodename=N1\nipport=0\n",
    "nodename=N1\nfamily=ipv5\n",
]


@pytest.mark.parametrize("given", REFUSED)
def test_what_makes_no_sense_is_refused_at_once(lab: Lab, programs: Programs, given: str) -> None:
    agent = start(lab, programs, given)
    assert agent.status(5) == 1, str(agent)
    assert agent.errors or programs.is_stock, "a refusal has to say why"


@pytest.mark.parametrize("option", ["-h", "--help", "-V", "--version"])
@pytest.mark.parametrize("kind", ["agent", "sender"])
def test_help_and_version_go_to_stdout(
    lab: Lab, programs: Programs, kind: str, option: str
) -> None:
    program = programs.agent if kind == "agent" else programs.sender
    process = lab.start(programs, program, [option])
    assert process.status(5) == 0, str(process)
    name = "fence_kdump" if kind == "agent" else "fence_kdump_send"
    start = f"Usage: {name} [options]" if option in ("-h", "--help") else f"{name} "
    assert process.output.startswith(start)
    assert process.errors == ""


@pytest.mark.parametrize("given", ["-V -t 0", "-n N1 -h -o bogus", "stray -h"])
def test_help_and_version_are_given_whatever_follows(
    lab: Lab, programs: Programs, given: str
) -> None:
    agent = start(lab, programs, given)
    assert agent.status(5) == 0, str(agent)


# The sender's command line; N2 and N3 are to get one message each.
SENT = [
    "-p PORT -c 1 -i 1 N2 N3",
    "-pPORT -c1 -i1 N2 N3",
    "--ipport=PORT --count=1 --interval=1 N2 N3",
    "--ipport PORT --count 1 --interval 1 N2 N3",
    "--ip PORT --co 1 --int 1 N2 N3",
    "--ip PORT --c 1 --in 1 N2 N3",
    "N2 -p PORT N3 -c 1",
    "-p PORT -c 1 -- N2 N3",
    "-p 1 -c 5 -p PORT -c 1 N2 N3",
    "-p PORT -c 1 -f ipv4 N2 N3",
    "-p PORT -c 1 -f AUTO N2 N3",
    "-p PORT -c 1 -v N2 N3",
    "-p PORT -c 1 -v2 N2 N3",
    "-p PORT -c 1 -vvv N2 N3",
    "-p PORT -c 1 --verbose=2 N2 N3",
]


@pytest.mark.parametrize("given", SENT)
@pytest.mark.slow
def test_the_nodes_of_the_senders_command_line_get_a_message(
    lab: Lab, senders: Programs, given: str
) -> None:
    receivers = [lab.receiver(NODES["N2"]), lab.receiver(NODES["N3"])]
    sender = lab.start(senders, senders.sender, filled(lab, given).split())
    assert sender.status(10) == 0, str(sender)
    assert [receiver.hears_for(0.05) for receiver in receivers] == [[MESSAGE], [MESSAGE]]


@pytest.mark.parametrize("given", ["", "-c 1", "-p"])
def test_a_sender_without_a_node_is_refused_at_once(
    lab: Lab, senders: Programs, given: str
) -> None:
    sender = lab.start(senders, senders.sender, filled(lab, given).split())
    assert sender.status(5) == 1, str(sender)
    assert sender.output + sender.errors, "a refusal has to say why"
