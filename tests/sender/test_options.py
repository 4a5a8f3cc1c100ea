# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any command line -> options to send with; tests/property/test_forms.py: all forms alike."""

from __future__ import annotations

import pytest

from kdumpfence.cmdline import UsageError
from kdumpfence.sender.options import SenderOptions, sender_from_argv


def test_the_senders_defaults_are_the_stock_senders() -> None:
    options = sender_from_argv(["node1", "node2", "node1"])
    assert vars(options) == {
        "nodes": ("node1", "node2"),
        "ipport": 7410,
        "family": "auto",
        "count": 0,
        "interval": 10,
        "verbose": 0,
        "packets": False,
        "key_file": "",
        "node": "",
        "state": "dumping",
        "action": "send",
        "complaints": [],
    }


@pytest.mark.parametrize("argv", [[], ["-c", "3"], ["--check"], ["-i"], ["5"], ["", '"']])
def test_only_a_sender_without_any_node_is_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="no node given"):
        sender_from_argv(argv)


SECONDS = "not a whole number of seconds (1 to 2147483647)"
MESSAGES = "not a number of messages (0 to 2147483647)"
A_PORT = "not a port number (1 to 65535)"
A_STATE = "not one of started, dumping, finished, failed"
A_NAME = "not 1 to 64 ASCII characters without blanks"
A_PATH = "not the path of a file"
A_FAMILY = "not one of auto, ipv4, ipv6"
QUOTES = "stray quotes ignored"
SIGNS = "contains characters that no node name has; ignoring them"


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
        # States, names and key files.
        ("--state|finished", {"state": "finished"}, []),
        ("--state= Failed ", {"state": "failed"}, []),
        ("--state|'started';", {"state": "started"},
         [f"state '\\x27started\\x27;': {A_STATE}; using started"]),
        ("--state=crashed", {}, [f"state 'crashed': {A_STATE}; using dumping"]),
        ("--state|", {}, [f"state '': {A_STATE}; using dumping"]),
        ("--state=failed|--state=", {"state": "failed"}, [f"state '': {A_STATE}; using failed"]),
        ("--state|=|failed", {"state": "failed"}, []),
        ("--key-file|/etc/key|--node|n1", {"key_file": "/etc/key", "node": "n1"}, []),
        ("--k=key|--n=-1|--s=failed", {"key_file": "key", "node": "-1", "state": "failed"}, []),
        ("-node|n1|-state|failed", {"node": "n1", "state": "failed"}, []),
        ("--key-file|\"/key\"", {"key_file": "/key"},
         [f"key-file '\"/key\"': {A_PATH}; using '/key'"]),
        ("--node|it's|--node='n2", {"node": "n2"}, [f"node '\\x27n2': {A_NAME}; using 'n2'"]),
        ("--key-file|", {}, [f"key-file '': {A_PATH}; ignored"]),
        ("--key-file=/|--key-file|\"", {"key_file": "/"},
         [f"key-file '\"': {A_PATH}; using '/'"]),
        ("--node=", {}, [f"node '': {A_NAME}; ignored"]),
        ("--node|n\u00f6", {}, [f"node 'n\\xc3\\xb6': {A_NAME}; ignored"]),
        (f"--node=n|--node={'x' * 65}", {"node": "n"}, [f"node '{'x' * 65}': {A_NAME}; using 'n'"]),
        (f"--node={'x' * 64}", {"node": "x" * 64}, []),
        ("--node=n1 node2", {"node": "n1", "nodes": ("node2", "node1")},
         ["node 'n1': the first of several words; using 'n1'"]),
        ("--key-file=/k -i 12", {"key_file": "/k", "interval": 12},
         ["key-file '/k': the first of several words; using '/k'"]),
        ("--key-file /k -i 12", {"key_file": "/k", "interval": 12}, []),
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
        ("--c=3", {"count": 3}, []),  # not check, which the stock sender does not have
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
        ("--state|node2", {"nodes": ("node2", "node1")},
         ["option '--state': needs a value; using dumping"]),
        ("--node|-p|7411", {"ipport": 7411}, ["option '--node': needs a value; ignored"]),
        ("--key|--state=failed", {"state": "failed"},
         ["option '--key-file': needs a value; ignored"]),
        # Help and version only by a word that is nothing else.
        ("-host", {}, [f"option '-{letter}': unknown; ignored" for letter in "ost"]),
        ('"node2"', {"nodes": ("node2", "node1")}, [f"argument '\"node2\"': {QUOTES}"]),
    ],
)  # fmt: skip
def test_a_sender_uses_what_can_be_understood_and_says_what_cannot(
    argv: str, meant: dict[str, object], complaints: list[str]
) -> None:
    expected = {**vars(SenderOptions()), "nodes": ("node1",), **meant, "complaints": complaints}
    expected["packets"] = any(word in argv for word in ("-k", "-n", "-s"))
    assert vars(sender_from_argv([*argv.split("|"), "node1"])) == expected


def test_an_option_at_the_very_end_that_lacks_its_value() -> None:
    options = sender_from_argv(["node1", "--count"])
    assert (options.nodes, options.count) == (("node1",), 0)
    assert options.complaints == ["option '--count': needs a value; using 0"]


def test_behind_two_dashes_there_are_nodes_alone() -> None:
    assert sender_from_argv(["--", "-i", "5", "--check"]).nodes == ("-i", "--check")


def test_a_node_that_can_be_no_name_does_not_keep_the_others_from_being_told() -> None:
    assert sender_from_argv(["a\x07b", "node2", "", "node2"]).nodes == ("a\x07b", "node2")


def test_the_sender_can_be_asked_to_check() -> None:
    assert sender_from_argv(["--check", "a"]).action == "check"
    assert sender_from_argv(["a", "--ch"]).action == "check"
    assert sender_from_argv(["a", "--check=1"]).action == "check"
