# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever is given on stdin or argv: options that are valid throughout, or an OptionError."""

from __future__ import annotations

import decimal
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdumpfence.addresses import FAMILIES, cleaned, is_address, why_refused
from kdumpfence.agent.daemon_link import parsed
from kdumpfence.agent.options import (
    ACTIONS,
    AGENT_OPTIONS,
    AUTHS,
    MOST_STDIN,
    NODE_PARAMETERS,
    AgentOptions,
    agent_from_argv,
    agent_from_stdin,
)
from kdumpfence.cmdline import MOST_SECONDS, OptionError, UsageError, getopt_long
from kdumpfence.sender.options import MOST_MESSAGES, SENDER_OPTIONS, SenderOptions, sender_from_argv
from kdumpfence.wire import STATES, is_packet_name

KNOWN = (
    *("nodename", "plug", "port", "ipport", "family", "action", "timeout", "verbose"),
    *("auth", "key_file", "alive_grace", "listener"),
)

numbers = st.one_of(
    st.integers(-2, 70000).map(str),
    st.sampled_from([0, 1, 2, 65535, 65536, 2**31 - 1, 2**31, 2**32 + 1, 10**30]).map(str),
    st.builds(lambda zeros, n: "0" * zeros + str(n), st.integers(0, 30), st.integers(0, 10**6)),
    st.sampled_from(["\u0663", "\u00b2", "1_0", "+1", "1.0", "1e1", "0x10"]),
    st.sampled_from([" 5 ", "5\x0b", "7\xa0"]),
)
whatever = st.text(max_size=12)
names = st.sampled_from(["node1", "node2", "10.0.0.1", "fd00::1", "fe80::1%eth0", "NODE1"])
node_lists = st.lists(names | st.sampled_from(["", " ", " node3 "]), max_size=4).map(",".join)
values: dict[str, st.SearchStrategy[str]] = {
    "nodename": node_lists,
    "plug": node_lists,
    "port": node_lists,
    "ipport": numbers,
    "family": st.sampled_from([*FAMILIES, "IPv4", "ipx", ""]),
    "action": st.sampled_from([*ACTIONS, "OFF", "on", "help", "version", "list", ""]),
    "timeout": numbers | numbers.map("{}s".format) | numbers.map("{} S".format),
    "auth": st.sampled_from([*AUTHS, "SHA256", "md5", ""]),
    "key_file": st.sampled_from(["/etc/key", " key ", "", "/a b"]),
    "listener": st.builds(
        str.__add__,
        st.sampled_from(["unix:/", " unix:/run/x ", "http://h:", "http://[::1]:", "http://", "x"]),
        numbers | st.text(max_size=8) | st.sampled_from(["", "\udcff", "\ud800"]),
    ),
    "alive_grace": numbers | st.sampled_from(["-1", "-2", " 5s "]),
    "verbose": numbers | st.sampled_from(["v", "vvv", "yes", "no", "True", "off", "maybe", ""]),
    "key-file": st.sampled_from(["/key", '"/key"', " /key ", "/a b", "a'b", "", "="]),
    "node": names | st.sampled_from(["n1", '"n1"', " n1 ", "n1 n2", "n\u00f6", "x" * 65, "", "="]),
    "state": st.sampled_from([*STATES, "Finished", "failed;", "'started", "done", "="]),
}
settings_given = st.sampled_from(KNOWN).flatmap(
    lambda name: st.tuples(st.just(name), values[name] | whatever)
)
lines = st.one_of(
    settings_given.map("=".join),
    settings_given.map(" = ".join),
    st.sampled_from(["", "#", "# nodename=x", "nodename", "=", "=x", "timeout=", "\0", "\r"]),
    st.text(),
)
#: What a fence daemon would write, what it would not, and what nobody would.
stdins = st.one_of(
    st.lists(settings_given.map("=".join)).map(
        lambda given: "\n".join(given).encode(errors="replace")
    ),
    st.lists(lines).map(lambda given: "\n".join(given).encode("utf-8", "surrogatepass")),
    st.lists(st.binary() | lines.map(lambda line: line.encode("utf-8", "replace"))).map(b"\n".join),
)  # fmt: skip


def outcome(parse: Callable[[Any], object], given: object) -> Any:
    """The options, or what the error says."""
    try:
        return vars(parse(given))
    except OptionError as error:
        return str(error)


def check_names(given: tuple[str, ...]) -> None:
    assert len(set(given)) == len(given)
    for name in given:
        assert name
        assert name.isprintable()
        assert not any(c.isspace() for c in name)
        assert len(name) <= 254
        assert why_refused(name) == ""


def check_agent(options: AgentOptions) -> None:
    """Everything that the agent relies on without looking again."""
    assert set(vars(options)) == {
        "names", "ipport", "family", "action", "timeout", "verbose", "complaints",
        "passed_over", "by_hand", "called", "auth", "key_file", "alive_grace",
        "listener",
    }  # fmt: skip
    check_complaints(options.complaints)
    check_complaints(options.passed_over)
    check_names(options.names)
    for name in options.names:
        assert "," not in name
    assert 1 <= options.ipport <= 65535
    assert options.family in FAMILIES
    assert options.action in (set(ACTIONS) - {"reboot"}) | {"help", "version"}
    assert 1 <= options.timeout <= MOST_SECONDS
    assert options.verbose >= 0
    assert options.auth in AUTHS
    assert options.key_file
    assert "\0" not in options.key_file
    assert -1 <= options.alive_grace <= MOST_SECONDS
    if options.listener:
        kind, where, port = parsed(options.listener)
        assert where
        assert kind == "unix" or (kind, 1 <= port <= 65535) == ("http", True)
    check_names(options.called)
    assert not any(map(is_address, options.called))
    assert options.names or options.action != "off"


def check_sender(options: SenderOptions) -> None:
    assert set(vars(options)) == {
        "nodes", "ipport", "family", "count", "interval", "verbose", "action", "complaints",
        "packets", "key_file", "node", "state",
    }  # fmt: skip
    check_complaints(options.complaints)
    # Whatever they are: what can be no name is told when the others are sent for.
    assert all(options.nodes)
    assert len(set(options.nodes)) == len(options.nodes)
    assert 1 <= options.ipport <= 65535
    assert options.family in FAMILIES
    assert 0 <= options.count <= MOST_MESSAGES
    assert 1 <= options.interval <= MOST_SECONDS
    assert options.verbose >= 0
    assert options.node == "" or is_packet_name(options.node)
    assert options.state in STATES[1:]
    assert options.packets or (options.key_file, options.node, options.state) == ("", "", "dumping")
    assert options.action in ("send", "check", "help", "version")
    assert options.nodes or options.action in ("help", "version")


def check_complaints(complaints: list[str]) -> None:
    for text in complaints:
        assert text
        assert text.isprintable()


def check_error(error: OptionError) -> None:
    text = str(error)
    assert text
    assert text.isprintable()  # so it is one line as well


# ------------------------------------------------------------------------ any input


@given(stdins)
@example(b"nodename=\xff\xfe\naction=off")
@example(b"action=\x1b[2J")
def test_any_bytes_on_stdin_are_options_or_an_error_in_one_line(data: bytes) -> None:
    try:
        options = agent_from_stdin(data)
    except OptionError as error:
        check_error(error)
    else:
        check_agent(options)
        assert options.action in ACTIONS


def test_endless_stdin_is_refused() -> None:
    with pytest.raises(OptionError, match="more than 1048576 bytes"):
        agent_from_stdin(b"#" * (MOST_STDIN + 1))
    assert agent_from_stdin(b"nodename=n\n" + b"#" * (MOST_STDIN - 11)).names == ("n",)


def command_lines(table: tuple[tuple[str, str, int, str], ...]) -> st.SearchStrategy[list[str]]:
    known = [(short, name) for short, name, takes, _ in table if takes]
    option = st.sampled_from(known).flatmap(
        lambda one: st.builds(
            lambda form, value: form.format(short=one[0] or "n", name=one[1], value=value),
            st.sampled_from(["--{name}={value}", "-{short}{value}", "--{name}", "-{short}"]),
            values.get(one[1], numbers) | whatever,
        )
    )
    raw = st.binary(max_size=8).filter(lambda word: 0 not in word).map(os.fsdecode)
    return st.lists(option | names | whatever | raw, max_size=8)


@given(command_lines(AGENT_OPTIONS))
def test_any_argv_of_the_agent_is_options_or_an_error(argv: list[str]) -> None:
    try:
        options = agent_from_argv(argv)
    except OptionError as error:
        assert str(error)
    else:
        check_agent(options)


@given(command_lines(SENDER_OPTIONS))
@example(["-c", "0" * 4301, "node"])
def test_any_argv_of_the_sender_is_options_unless_there_is_no_node(argv: list[str]) -> None:
    try:
        options = sender_from_argv(argv)
    except UsageError as error:
        assert str(error) == "no node given"
        check_complaints(list(error.complaints))
    else:
        check_sender(options)


@given(command_lines(SENDER_OPTIONS))
def test_a_node_is_told_whatever_options_stand_before_it(argv: list[str]) -> None:
    options = sender_from_argv([*argv, "node.of.last.resort"])
    # Unless it can be the value of what stands before it.
    taken = "node.of.last.resort" in (options.key_file, options.node)
    assert options.action != "send" or taken or "node.of.last.resort" in options.nodes


@given(command_lines(SENDER_OPTIONS))
def test_what_getopt_understands_the_sender_understands_alike(argv: list[str]) -> None:
    try:
        pairs, operands = getopt_long(argv, SENDER_OPTIONS)
    except UsageError:
        return
    try:
        options = sender_from_argv(argv)
    except UsageError:
        return
    if options.action in ("help", "version") or options.complaints:
        return
    given = dict(pairs)
    parts = [part for word in operands for part in re.split("[ \t\n\v\f\r,]", word) if part]
    assert options.nodes == tuple(dict.fromkeys(map(cleaned, parts)))
    for name in ("ipport", "count"):
        if name in given:
            assert getattr(options, name) == int(given[name] or "")
    assert options.family == (given.get("family") or "auto").strip().lower()
    assert options.state == (given.get("state") or "dumping").strip().lower()
    assert options.key_file == (given.get("key-file") or "").strip(" \t\n\v\f\r")
    assert options.node == (given.get("node") or "").strip(" \t\n\v\f\r")


# ------------------------------------------------------------------ what stdin means


@given(st.lists(settings_given, max_size=12), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_on_stdin_the_last_of_a_name_counts_and_the_order_of_names_does_not(
    given_settings: list[tuple[str, str]], random: Any
) -> None:
    clean = [(name, value) for name, value in given_settings if "\n" not in value]
    whole = "\n".join(map("=".join, clean)).encode("utf-8", "surrogatepass")
    last = list(dict(clean).items())
    random.shuffle(last)
    alone = "\n".join(map("=".join, last)).encode("utf-8", "surrogatepass")
    assert outcome(agent_from_stdin, whole) == outcome(agent_from_stdin, alone)


passed_over = st.one_of(
    st.text().map("#{}".format),
    st.text().map(" \t# {}".format),
    st.sampled_from(["", " ", "\r", "\t"]),
    st.text().map(lambda text: text.replace("=", "")),
    st.builds("{}={}".format, st.text(), st.text()),
).filter(
    lambda line: (
        "\n" not in line
        and line.partition("=")[0].strip(" \t\r\0").lower().replace("-", "_") not in KNOWN
    )
)


@given(st.lists(settings_given, max_size=6), st.data())
def test_comments_empty_lines_and_unknown_names_change_nothing(
    given_settings: list[tuple[str, str]], data: st.DataObject
) -> None:
    plain = [f"{name}={value}" for name, value in given_settings if "\n" not in value]
    mixed = []
    for line in plain:
        mixed += data.draw(st.lists(passed_over, max_size=2))
        mixed.append(line)
    mixed += data.draw(st.lists(passed_over, max_size=2))
    ends = data.draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n"]))
    assert outcome(agent_from_stdin, ends.join(mixed).encode("utf-8", "surrogatepass")) == outcome(
        agent_from_stdin, "\n".join(plain).encode("utf-8", "surrogatepass")
    )


@given(node_lists, node_lists, node_lists)
def test_the_node_has_what_all_three_parameters_say_but_no_bare_name_beside_addresses(
    nodename: str, plug: str, port: str
) -> None:
    given_names = {"nodename": nodename, "plug": plug, "port": port}
    data = "".join(f"{name}={value}\n" for name, value in given_names.items()) + "action=monitor"
    parts = {
        parameter: [part.strip() for part in given_names[parameter].split(",") if part.strip()]
        for parameter in NODE_PARAMETERS
    }
    addresses = {"10.0.0.1", "fd00::1", "fe80::1%eth0"}
    counts = [parameter for parameter in NODE_PARAMETERS if addresses & {*parts[parameter]}]
    expected = dict.fromkeys(part for name in counts or NODE_PARAMETERS for part in parts[name])
    options = agent_from_stdin(data.encode())
    assert list(options.names) == list(expected)
    left_out = [part for name in NODE_PARAMETERS for part in parts[name] if part not in expected]
    assert [line.split("'")[1] for line in options.passed_over] == left_out


@given(st.lists(settings_given.filter(lambda one: one[0] != "port"), max_size=6))
def test_argv_and_stdin_mean_the_same(given_settings: list[tuple[str, str]]) -> None:
    last = {name: value.strip() for name, value in dict(given_settings).items()}
    ordered = [
        (name, value)
        for name, value in last.items()
        if "\n" not in value and "\r" not in value and "\0" not in value
    ]
    # The first one that is wrong is complained of: in the same order then.
    order = [name.replace("-", "_") for _, name, _, _ in AGENT_OPTIONS]
    ordered.sort(key=lambda one: order.index(one[0]))
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in ordered]
    data = "\n".join(map("=".join, ordered)).encode("utf-8", "surrogatepass")
    if not any("\ud800" <= c <= "\udfff" for _, value in ordered for c in value):
        by_hand, from_cluster = outcome(agent_from_argv, argv), outcome(agent_from_stdin, data)
        if isinstance(by_hand, dict):
            assert (by_hand.pop("by_hand"), from_cluster.pop("by_hand")) == (True, False)
        assert by_hand == from_cluster


# -------------------------------------------------------------------------- numbers


def whole_number(text: str) -> decimal.Decimal | None:
    """The number that decimal digits alone make, however many."""
    digits = text.strip()
    if digits and set(digits) <= set("0123456789"):
        return decimal.Context(prec=10_000).create_decimal(digits)
    return None


@given(numbers | whatever)
@example("00000000000000000001" + "99999")
@example("0" * 30 + "80")
def test_a_port_is_a_whole_number_from_1_to_65535(text: str) -> None:
    expected = whole_number(text)
    if expected is not None and 1 <= expected <= 65535:
        assert agent_from_argv(["-n", "x", f"--ipport={text}"]).ipport == expected
        assert sender_from_argv(["x", f"-p{text}"]).ipport == expected
    else:
        with pytest.raises(OptionError):
            agent_from_argv(["-n", "x", f"--ipport={text}"])


@given(numbers | whatever, st.sampled_from(["", "s", "S", " s"]))
@example("0" * 20 + "60", "")
def test_a_timeout_is_a_whole_number_of_seconds(text: str, unit: str) -> None:
    given_text = text + unit
    stripped = given_text.strip()
    expected = whole_number(stripped[:-1] if stripped[-1:] in ("s", "S") else stripped)
    if expected is not None and 1 <= expected <= MOST_SECONDS:
        assert agent_from_argv(["-n", "x", "-t", given_text]).timeout == expected
        assert sender_from_argv(["x", "-i", given_text]).interval == expected
    else:
        with pytest.raises(OptionError, match=r"^timeout .*: not a whole number of seconds \(1 "):
            agent_from_argv(["-n", "x", "-t", given_text])


@given(numbers | whatever)
def test_a_count_is_a_whole_number_of_messages_or_none(text: str) -> None:
    expected = whole_number(text)
    options = sender_from_argv(["x", f"--count={text}"])
    if expected is not None and expected <= MOST_MESSAGES:
        assert options.count == expected
        assert not options.complaints or text.strip() != text
    else:
        assert options.complaints


@given(st.integers(0, 12))
def test_each_v_says_more(times: int) -> None:
    for argv in (["-v"] * times, ["--verbose"] * times, ["-" + "v" * times] * bool(times)):
        assert agent_from_argv(["-n", "x", *argv]).verbose == times
        assert sender_from_argv(["x", *argv]).verbose == times
