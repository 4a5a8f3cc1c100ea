# SPDX-License-Identifier: LGPL-2.1-or-later
"""argv and stdin -> options. What stock fence_kdump takes is checked in tests/interop."""

from __future__ import annotations

import pytest

from kdumpfence import keys
from kdumpfence.agent.options import KEY_FILE, AgentOptions, agent_from_argv, agent_from_stdin
from kdumpfence.cmdline import OptionError, UsageError
from kdumpfence.sender.options import sender_from_argv


def stdin(text: str) -> AgentOptions:
    return agent_from_stdin(text.encode())


def test_the_defaults_are_the_stock_agents() -> None:
    options = agent_from_argv(["-n", "node3"])
    assert vars(options) == {
        "names": ("node3",),
        "called": ("node3",),
        "auth": "none",
        "key_file": "/etc/kdumpfence/key",
        "alive_grace": 5,
        "listener": "",
        "ipport": 7410,
        "family": "auto",
        "action": "off",
        "timeout": 60,
        "verbose": 0,
        "complaints": [],
        "passed_over": [],
        "by_hand": True,
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
    assert sender_from_argv([*argv, "a"]).verbose == level


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
        ("nodename=a\ntimeout=\u0663", r"timeout '\\xd9\\xa3': not"),
        ("nodename=a\nipport=17416junk", r"ipport '17416junk': not a port number \(1 to 65535\)"),
        ("nodename=a\nfamily=ipx", "family 'ipx': not one of auto, ipv4, ipv6"),
        ("nodename=a\naction=on", "action 'on': not one of off, reboot, monitor"),
        ("nodename=a\nauth=md5", "auth 'md5': not one of none, sha256"),
        ("nodename=a\nauth=", "auth '': not one of none, sha256"),
        ("nodename=a\nkey_file=", "key_file '': not the name of a file"),
        ("nodename=a\nkey_file=/a\0b", r"key_file '/a\\x00b': not the name of a file"),
        (
            "nodename=a\nalive_grace=-2",
            r"alive_grace '-2': not a whole number of seconds \(0 to 2147483647, or -1 for never\)",
        ),
        ("nodename=a\nalive_grace=soon", "alive_grace 'soon': not a whole number of seconds"),
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


def test_a_key_without_auth_is_complained_of_unless_auth_is_switched_off() -> None:
    options = stdin("nodename=a\nkey_file=/k")
    assert (options.names, options.auth) == (("a",), "none")
    assert options.complaints == [
        "key_file '/k': not used without auth=sha256, so any message is believed"
    ]
    for auth in ("none", "sha256"):
        assert stdin(f"nodename=a\nkey_file=/k\nauth={auth}").complaints == []
    assert stdin("nodename=a\nkey_file=/k\naction=monitor").complaints == []


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


def test_the_default_key_file_is_where_keys_has_it() -> None:
    assert KEY_FILE == keys.DEFAULT_PATH


@pytest.mark.parametrize(
    ("text", "seconds"), [("-1", -1), (" -1 ", -1), ("0", 0), ("7", 7), ("10s", 10), ("007", 7)]
)
def test_the_grace_is_a_number_of_seconds_or_never(text: str, seconds: int) -> None:
    assert stdin(f"nodename=a\nalive_grace={text}").alive_grace == seconds
    assert agent_from_argv(["-n", "a", "--alive-grace", text]).alive_grace == seconds


def test_on_stdin_a_hyphen_is_an_underscore_and_the_last_of_a_name_counts() -> None:
    for one, other in (("key_file", "Key-File"), ("key-file", "key_file")):
        options = stdin(f"nodename=a\nAUTH=SHA256\n{one}=/1\n{other}=/2\nalive-grace=3")
        assert (options.auth, options.key_file, options.alive_grace) == ("sha256", "/2", 3)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--a", "action"), ("--ac", "action"), ("--action", "action"),
        ("--au", "auth"), ("--auth", "auth"), ("--al", "alive_grace"), ("--alive-g", "alive_grace"),
        ("--k", "key_file"), ("--p", "names"), ("--n", "names"), ("--t", "timeout"),
    ],
)  # fmt: skip
def test_new_options_take_no_abbreviation_away_from_older_ones(word: str, meant: str) -> None:
    value = {"action": "monitor", "auth": "sha256", "timeout": "7", "alive_grace": "7"}
    options = agent_from_argv(["-n", "a", word, value.get(meant, "x")])
    before = AgentOptions()
    before.names = before.called = ("a",)
    changed = {name for name in vars(before) if getattr(options, name) != getattr(before, name)}
    assert changed - {"by_hand", "called", "complaints"} == {meant}


def test_a_node_is_called_by_its_bare_names_those_that_are_not_looked_up_included() -> None:
    options = stdin("plug=10.0.0.3,ring1,fd00::3\nnodename=node3\nport=node3,bay7,1.2.3.400")
    assert options.names == ("10.0.0.3", "ring1", "fd00::3", "node3", "bay7")
    assert options.called == ("node3", "ring1", "bay7")
    options = stdin("nodename=node3\nplug=10.0.0.3\nport=x y")
    assert options.names == ("10.0.0.3",)
    assert options.called == ("node3",)
