# SPDX-License-Identifier: GPL-2.0-or-later
"""argv and stdin -> options. What stock fence_kdump takes is checked in tests/interop."""

from __future__ import annotations

import pytest

from kdumpfence.agent.options import (
    AgentOptions,
    agent_from_argv,
    agent_from_stdin,
)
from kdumpfence.cmdline import OptionError, UsageError
from kdumpfence.sender.options import SenderOptions, sender_from_argv
from kdumpfence.text import shown


def stdin(text: str) -> AgentOptions:
    return agent_from_stdin(text.encode())


def test_the_defaults_are_the_stock_agents() -> None:
    options = agent_from_argv(["-n", "node3"])
    assert vars(options) == {
        "names": ("node3",),
        "ipport": 7410,
        "family": "auto",
        "action": "off",
        "timeout": 60,
        "verbose": 0,
        "complaints": [],
        "passed_over": [],
        "by_hand": True,
    }


def test_the_senders_defaults_are_the_stock_senders() -> None:
    options = sender_from_argv(["node1", "node2", "node1"])
    assert vars(options) == {
        "nodes": ("node1", "node2"),
        "ipport": 7410,
        "family": "auto",
        "count": 0,
        "interval": 10,
        "verbose": 0,
        "action": "send",
        "complaints": [],
    }


def test_what_pacemaker_writes_names_one_node_with_all_its_addresses() -> None:
    options = stdin(
        "nodename=10.0.0.3,10.1.0.3\naction=off\nport=node3\nplug=node3,fd00::3\n"
        "timeout=30\npcmk_host_list=node3\n"
    )
    assert options.names == ("10.0.0.3", "10.1.0.3", "node3", "fd00::3")
    assert options.timeout == 30


def test_spaces_and_capitals_in_names_do_no_harm() -> None:
    assert stdin("  NodeName = a , b,\n\ttimeout= 7 \n").names == ("a", "b")


def test_a_value_may_hold_an_equals_sign() -> None:
    with pytest.raises(OptionError, match="nodename 'a=b': neither"):
        stdin("nodename=a=b")


@pytest.mark.parametrize(
    ("argv", "level"),
    [
        ([], 0),
        (["-v"], 1),
        (["-vv"], 2),
        (["-vvv"], 3),
        (["-v", "-v"], 2),
        (["-v2"], 2),
        (["--verbose"], 1),
        (["--verbose=2"], 2),
        (["--verb"], 1),
        (["--verbose=yes"], 1),
        (["--verbose=True"], 1),
        (["--verbose=off"], 0),
    ],
)
def test_verbosity_can_be_said_in_every_stock_way(argv: list[str], level: int) -> None:
    assert agent_from_argv(["-n", "a", *argv]).verbose == level
    options = sender_from_argv([*argv, "a"])  # which it never takes for its value
    assert (options.verbose, options.nodes) == (level, ("a",))


def test_reboot_is_off() -> None:
    assert stdin("nodename=a\naction=reboot").action == "off"


@pytest.mark.parametrize("action", ["monitor", "status", "metadata", "validate-all"])
def test_other_actions_need_no_node(action: str) -> None:
    assert stdin(f"action={action.upper()}").action == action


def test_help_and_version_win_over_everything_else() -> None:
    assert agent_from_argv(["-t", "rubbish", "-h"]).action == "help"
    assert agent_from_argv(["-V", "-o", "x"]).action == "version"
    assert sender_from_argv(["-V"]).action == "version"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "action 'off' needs the node to be heard"),
        ("nodename=", "action 'off' needs the node to be heard"),
        ("nodename=,", "nodename ',': empty"),
        ("action=validate-all\nnodename=,", "nodename ',': empty"),
        ("nodename=a b", "nodename 'a b': neither a host name nor an IP address"),
        ("nodename=a\x07", r"neither a host name nor an IP address"),
        ("nodename=a\ntimeout=abc", r"timeout 'abc': not a whole number of seconds \(1 to"),
        ("nodename=a\ntimeout=0", "timeout '0': not a whole number"),
        ("nodename=a\ntimeout=-5", "timeout '-5': not"),
        ("nodename=a\ntimeout=1.5", "timeout '1.5': not"),
        ("nodename=a\ntimeout=s", "timeout 's': not"),
        ("nodename=a\ntimeout=99999999999999999999999", "timeout '9+': not"),
        ("nodename=a\ntimeout=\u0663", r"timeout '\\xd9\\xa3': not"),
        ("nodename=a\nipport=17416junk", r"ipport '17416junk': not a port number \(1 to 65535\)"),
        ("nodename=a\nipport=0", "ipport '0': not a port number"),
        ("nodename=a\nipport=65536", "ipport '65536': not a port number"),
        ("nodename=a\nfamily=ipx", "family 'ipx': not one of auto, ipv4, ipv6"),
        ("nodename=a\naction=on", "action 'on': not one of off, reboot, monitor"),
    ],
)
def test_bad_input_says_what_was_given_and_what_is_allowed(text: str, complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint) as caught:
        stdin(text)
    assert "\n" not in str(caught.value)


def test_what_can_be_no_name_does_not_hide_the_names() -> None:
    options = stdin("nodename=10.0.0.3\nport=bay 7\n")
    assert options.names == ("10.0.0.3",)
    assert options.complaints == ["port 'bay 7': neither a host name nor an IP address"]


MISTYPED = [
    "192.0.2.010", "192.0.2.1;", '"192.0.2.1"', "192.0.2.1/24", "192.0.2.1:7410", "127.1",
    "192.0.2.1 192.0.2.2", "node1:192.0.2.1", "256.0.2.1", "192.0.2.1.", "192.0.2.\u0661",
    "fd00::1/64", "[fd00::1", "[fd00::1]:7410", "fd00\\\\:\\\\:1", "fe80::1%", "fd00::1::",
    "[192.0.2.1]",
]  # fmt: skip


@pytest.mark.parametrize("mistyped", MISTYPED)
@pytest.mark.parametrize(
    "order", [("nodename", "plug"), ("plug", "nodename"), ("nodename", "port")]
)
def test_a_mistyped_address_does_not_hand_over_to_the_name_that_pacemaker_adds(
    mistyped: str, order: tuple[str, str]
) -> None:
    given, added = order
    with pytest.raises(OptionError, match=f"^{given} .*: neither"):
        stdin(f"{given}={mistyped}\n{added}=node1\n")
    options = stdin(f"{given}={mistyped},ring1\n{added}=node1\n")
    assert options.names == ("ring1",)
    assert options.passed_over == [
        f"{added} 'node1': not looked up, because {given} gives addresses"
    ]
    assert stdin(f"{given}={mistyped}\n{added}=192.0.2.9\n").names == ("192.0.2.9",)


@pytest.mark.parametrize("other", ["1", "bay 7", "node1;", "node1:off", "-", "%eth0", "a/1", ","])
def test_what_is_no_address_leaves_the_name_beside_it(other: str) -> None:
    options = stdin(f"nodename=node1\nplug={other}\n")
    assert options.names == ("node1",)
    assert len(options.complaints) == 1


def test_a_verbosity_that_means_nothing_does_not_prevent_a_fencing() -> None:
    options = stdin("nodename=a\nverbose=loud")
    assert (options.names, options.verbose) == (("a",), 1)
    assert options.complaints == ["verbose 'loud': not a number or a boolean"]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--bogus"], "option '--bogus': unknown"),
        (["-x"], "option '-x': unknown"),
        (["-n"], "option '-n': needs a value"),
        (["--nodename"], "option '--nodename': needs a value"),
        (["--version=3"], "option '--version': takes no value"),
        (["--ver"], "option '--ver': ambiguous"),
    ],
)
def test_a_wrong_option_is_named(argv: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        agent_from_argv(argv)


@pytest.mark.parametrize("argv", [[], ["-c", "3"], ["--check"], ["-i"], ["5"], ["", '"']])
def test_only_a_sender_without_any_node_is_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="no node given"):
        sender_from_argv(argv)


SECONDS = "not a whole number of seconds (1 to 2147483647)"
MESSAGES = "not a number of messages (0 to 2147483647)"
A_PORT = "not a port number (1 to 65535)"
A_FAMILY = "not one of auto, ipv4, ipv6"
QUOTES = "quotes do not belong to it; ignored"
SIGNS = "has signs that no node has; left out"


@pytest.mark.parametrize(
    ("argv", "meant", "complaints"),
    [
        # What kdump-utils before November 2025 makes of quotes, and other remains of a file.
        ('-i|12"', {"interval": 12}, [f"interval '12\"': {SECONDS}; using 12"]),
        ('-i|"12', {"interval": 12}, [f"interval '\"12': {SECONDS}; using 12"]),
        (
            "'-i|12'",
            {"interval": 12},
            [f"argument '\\x27-i': {QUOTES}", f"interval '12\\x27': {SECONDS}; using 12"],
        ),
        (
            '"-p|7411|-i|12"',
            {"ipport": 7411, "interval": 12},
            [f"argument '\"-p': {QUOTES}", f"interval '12\"': {SECONDS}; using 12"],
        ),
        ("-p|7411,", {"ipport": 7411}, [f"ipport '7411,': {A_PORT}; using 7411"]),
        ("-c|3;", {"count": 3}, [f"count '3;': {MESSAGES}; using 3"]),
        ("-p=7411", {"ipport": 7411}, [f"ipport '=7411': {A_PORT}; using 7411"]),
        ("-i|=|12", {"interval": 12}, []),
        ("--interval=|12", {"interval": 12}, []),
        # Numbers that are written otherwise.
        ("-i|12.0", {"interval": 12}, [f"interval '12.0': {SECONDS}; using 12"]),
        ("-i|12.9", {"interval": 12}, [f"interval '12.9': {SECONDS}; using 12"]),
        ("-i|0.4", {"interval": 1}, [f"interval '0.4': {SECONDS}; using 1"]),
        ("-i|12x", {"interval": 12}, [f"interval '12x': {SECONDS}; using 12"]),
        ("-i|2min", {"interval": 120}, []),
        ("-i|2m", {"interval": 120}, []),
        ("-i|2 minutes", {"interval": 120}, []),
        ("-i|12sec", {"interval": 12}, []),
        ("-i|1H", {"interval": 3600}, []),
        ("-i|2000ms", {"interval": 2}, []),
        ("-i|2500ms", {"interval": 2}, [f"interval '2500ms': {SECONDS}; using 2"]),
        ("-p|17416junk", {"ipport": 17416}, [f"ipport '17416junk': {A_PORT}; using 17416"]),
        ("-p|7411/udp", {"ipport": 7411}, [f"ipport '7411/udp': {A_PORT}; using 7411"]),
        # Numbers that nobody can read, or have: the default, or what was said before.
        ("-i|", {}, [f"interval '': {SECONDS}; using 10"]),
        ("-i|0", {}, [f"interval '0': {SECONDS}; using 10"]),
        ("-i|-5", {}, [f"interval '-5': {SECONDS}; using 10"]),
        ("-i|99999999999999999999", {}, [f"interval '{'9' * 20}': {SECONDS}; using 10"]),
        ("-i|999999999h", {}, [f"interval '999999999h': {SECONDS}; using 10"]),
        ("-p|0", {}, [f"ipport '0': {A_PORT}; using 7410"]),
        ("-p|65536", {}, [f"ipport '65536': {A_PORT}; using 7410"]),
        ("-p|7,411", {}, [f"ipport '7,411': {A_PORT}; using 7410"]),
        ("-c|1e3", {}, [f"count '1e3': {MESSAGES}; using 0"]),
        ("-c|2.5", {}, [f"count '2.5': {MESSAGES}; using 0"]),
        ("-cx", {}, [f"count 'x': {MESSAGES}; using 0"]),
        ("-i5|-ix", {"interval": 5}, [f"interval 'x': {SECONDS}; using 5"]),
        # Families.
        ("-f|inet6", {"family": "ipv6"}, [f"family 'inet6': {A_FAMILY}; using ipv6"]),
        ("-f|IPv4,", {"family": "ipv4"}, [f"family 'IPv4,': {A_FAMILY}; using ipv4"]),
        ("-f|ipv5", {}, [f"family 'ipv5': {A_FAMILY}; using auto"]),
        ("-f|4", {"family": "ipv4"}, [f"family '4': {A_FAMILY}; using ipv4"]),
        # Several words in one argument.
        ("-p 7411 -c 2 -i 12", {"ipport": 7411, "count": 2, "interval": 12}, []),
        ("-p 7411 node2", {"ipport": 7411, "nodes": ("node2", "node1")}, []),
        ("-v -i 12", {"verbose": 1, "interval": 12}, []),
        ("--interval 12 --port=7411", {"interval": 12, "ipport": 7411}, []),
        ("--interval=12 node2", {"interval": 12, "nodes": ("node2", "node1")}, []),
        ("node2 -i 12", {"interval": 12, "nodes": ("node2", "node1")}, []),
        # What no node has.
        ("node2;", {"nodes": ("node2", "node1")}, [f"operand 'node2;': {SIGNS}"]),
        (
            '"node2","node3"',
            {"nodes": ("node2", "node3", "node1")},
            [f"argument '\"node2\",\"node3\"': {QUOTES}", f"operand 'node2\",\"node3': {SIGNS}"],
        ),
        (
            "{node2;node3}|&",
            {"nodes": ("node2", "node3", "node1")},
            [f"operand '{{node2;node3}}': {SIGNS}", f"operand '&': {SIGNS}"],
        ),
        (
            "2>&1",
            {},
            [f"operand '2>&1': {SIGNS}", "operand '2,,1': a number is not a node; ignored"],
        ),
        (",", {}, []),
        # Options by other names, and by none.
        ("--port|7411", {"ipport": 7411}, []),
        ("--po=7411", {"ipport": 7411}, []),
        ("-interval|12", {"interval": 12}, []),
        ("--Interval|12", {"interval": 12}, []),
        ("-vi12", {"verbose": 1, "interval": 12}, []),
        ("--foo", {}, ["option '--foo': unknown; ignored"]),
        ("--foo=5", {}, ["option '--foo': unknown; ignored"]),
        (
            "--foo|5",
            {},
            [
                "option '--foo': unknown; ignored",
                "operand '5': a number is not a node; ignored",
            ],
        ),
        ("-x", {}, ["option '-x': unknown; ignored"]),
        ("-x5", {}, ["option '-x5': unknown; ignored"]),
        ("-xi12", {"interval": 12}, ["option '-x': unknown; ignored"]),
        ("--i=12", {}, ["option '--i': ambiguous; ignored"]),
        ("--version=3", {}, ["option '--version': takes no value"]),
        ("-vloud", {"verbose": 1}, ["verbose 'loud': not a number or a boolean; using 1"]),
        # A value that is not there takes no node for it, and no option.
        ("-i|node2", {"nodes": ("node2", "node1")}, ["option '-i': needs a value; using 10"]),
        ("-i|10.0.0.2", {"nodes": ("10.0.0.2", "node1")}, ["option '-i': needs a value; using 10"]),
        ("-p|2001:db8::1", {"nodes": ("2001:db8::1", "node1")},
         ["option '-p': needs a value; using 7410"]),
        ("-c|3-a.test", {"nodes": ("3-a.test", "node1")}, ["option '-c': needs a value; using 0"]),
        ("-f|node2", {"nodes": ("node2", "node1")}, ["option '-f': needs a value; using auto"]),
        ("-i|-p|7411", {"ipport": 7411}, ["option '-i': needs a value; using 10"]),
        # Help and version only by a word that is nothing else.
        ("-host", {}, [f"option '-{letter}': unknown; ignored" for letter in "ost"]),
        ('"node2"', {"nodes": ("node2", "node1")}, [f"argument '\"node2\"': {QUOTES}"]),
    ],
)  # fmt: skip
def test_a_sender_uses_what_can_be_understood_and_says_what_cannot(
    argv: str, meant: dict[str, object], complaints: list[str]
) -> None:
    expected = {**vars(SenderOptions()), "nodes": ("node1",), **meant, "complaints": complaints}
    assert vars(sender_from_argv([*argv.split("|"), "node1"])) == expected


def test_an_option_at_the_very_end_that_lacks_its_value() -> None:
    options = sender_from_argv(["node1", "--count"])
    assert (options.nodes, options.count) == (("node1",), 0)
    assert options.complaints == ["option '--count': needs a value; using 0"]


def test_behind_two_dashes_there_are_nodes_alone() -> None:
    assert sender_from_argv(["--", "-i", "5", "--check"]).nodes == ("-i", "--check")


def test_a_node_that_can_be_no_name_does_not_keep_the_others_from_being_told() -> None:
    assert sender_from_argv(["a\x07b", "node2", "", "node2"]).nodes == ("a\x07b", "node2")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1junk", "'1junk'"),
        ("it's", r"'it\x27s'"),
        ("a\\b\n", r"'a\x5cb\x0a'"),
        ("\udcff", r"'\xff'"),
        ("\ud800", r"'\xed\xa0\x80'"),
        ("x" * 100, f"'{'x' * 80}'"),
    ],
)
def test_what_was_given_is_shown_in_one_line_of_plain_text(text: str, line: str) -> None:
    assert shown(text) == line


def test_the_sender_can_be_asked_to_check() -> None:
    assert sender_from_argv(["--check", "a"]).action == "check"
    assert sender_from_argv(["a", "--ch"]).action == "check"
    assert sender_from_argv(["a", "--check=1"]).action == "check"
