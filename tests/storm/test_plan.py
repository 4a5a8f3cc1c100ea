# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a storm is asked for, and what is refused."""

from __future__ import annotations

import argparse
from fractions import Fraction
from typing import NoReturn

import pytest

from kdumpfence.cli import storm
from kdumpfence.storm import Plan
from kdumpfence.storm.pacing import NO_END, SECOND
from kdumpfence.storm.plan import StormError, exact


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StormError(message)


def plan(*argv: str) -> Plan:
    parser = Parser()
    storm.add_arguments(parser)
    return storm.plan(parser.parse_args(argv))


def test_by_default_each_of_a_hundred_nodes_says_it_once_on_loopback() -> None:
    planned = plan()
    assert (str(planned.address), planned.port) == ("127.0.0.1", 7410)
    assert str(planned.players) == "127.0.0.1 to 127.0.0.100"
    assert planned.mix.shares == {"valid": 1}
    assert (planned.rate, planned.period, planned.until, planned.most) == (None, None, None, 100)


def test_what_has_a_pace_and_no_end_goes_on() -> None:
    for pace in (["--rate", "5"], ["--interval", "10", "--panic-within", "1"]):
        planned = plan(*pace)
        assert (planned.until, planned.most) == (None, NO_END)


def test_numbers_may_have_decimals_and_are_kept_exactly() -> None:
    for planned in (
        plan("--rate", "0.3", "--duration", "0.000000001"),
        Plan(rate=0.3, duration=0.000000001),
    ):
        assert (exact(planned.rate or 0), planned.until) == (Fraction(3, 10), 1)
    planned = plan("--interval", "2.5", "--panic-within", "0")
    assert (planned.period, planned.spread) == (5 * SECOND // 2, 0)


def test_the_first_of_several_ends_counts() -> None:
    assert plan("--count", "7", "--rounds", "1", "--nodes", "5").most == 5
    assert plan("--count", "7", "--rounds", "3", "--nodes", "5").most == 7


def test_a_round_with_a_mix_has_what_belongs_to_each_node() -> None:
    planned = plan("--rounds", "2", "--nodes", "10", "--mix", "valid=2,foreign=10,magic=6,short")
    assert planned.most == 190
    assert planned.mix.counts(190) == {"valid": 20, "foreign": 100, "magic": 60, "short": 10}


def test_all_of_127_8_can_be_played_but_for_its_two_ends() -> None:
    nodes = plan("--nodes", str(2**24 - 2)).players
    assert (str(nodes.first), str(nodes.last)) == ("127.0.0.1", "127.255.255.254")
    assert nodes.packed(2**24 - 3) == bytes([127, 255, 255, 254])
    with pytest.raises(StormError, match="has only 16777214 addresses; 16777215 needed"):
        plan("--nodes", str(2**24 - 1))


@pytest.mark.parametrize(
    ("network", "hosts"),
    [
        ("127.3.0.0/30", "127.3.0.1 to 127.3.0.2"),
        ("127.3.0.0/31", "127.3.0.0 to 127.3.0.1"),
        ("127.3.0.9", "127.3.0.9"),
        ("127.3.0.0/24", "127.3.0.1 to 127.3.0.100"),
    ],
)
def test_a_small_network_gives_what_it_has(network: str, hosts: str) -> None:
    assert str(plan("--from", network).players) == hosts


def test_over_ipv6_the_networks_have_to_be_given() -> None:
    assert str(plan("::1").players) == "::1"
    assert str(plan("::1", "--from", "fd00:9::/64").players) == "fd00:9::1 to fd00:9::64"
    with pytest.raises(StormError, match="--foreign-from: required with"):
        plan("::1", "--mix", "foreign", "--count", "1")
    planned = plan("::1", "--mix", "foreign", "--count", "1", "--foreign-from", "fd00:9::/64")
    assert planned.hosts == [planned.strangers]


@pytest.mark.parametrize("option", [("--foreigners", "5"), ("--foreign-from", "127.9.0.0/16")])
def test_strangers_that_the_mix_has_no_place_for_are_refused(option: tuple[str, str]) -> None:
    with pytest.raises(StormError, match=f"{option[0]}: there is no 'foreign' in this --mix"):
        plan(*option)
    with pytest.raises(StormError, match=f"{option[0]}: there is no 'foreign'"):
        plan("--mix", "valid,foreign=0", *option)
    assert plan("--mix", "valid,foreign", *option).strangers


def test_strangers_are_never_nodes() -> None:
    planned = plan("--mix", "valid,foreign")
    assert planned.players.last < planned.strangers.first  # type: ignore[operator]
    with pytest.raises(StormError, match="are among the nodes"):
        plan("--mix", "valid,foreign", "--foreign-from", "127.0.0.0/28")
    plan("--mix", "valid,foreign", "--foreign-from", "127.0.0.0/28", "--from", "127.1.0.0/24")


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1", "10.0.0.1", "fd00::1", "::ffff:192.0.2.1", "fe80::1%lo", "128.0.0.1"],
)
def test_other_machines_are_refused_unless_the_danger_is_accepted(address: str) -> None:
    with pytest.raises(StormError, match="is not a loopback address: a cluster"):
        plan(address)
    network = "fd00::/64" if "fd00" in address or "fe80" in address else "10.0.0.0/24"
    assert not plan(address, "--from", network, "--not-loopback").address.is_loopback


def test_the_destination_may_be_in_brackets() -> None:
    assert str(plan("[::1]").address) == "::1"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1"])
def test_what_is_no_single_host_is_refused_even_then(address: str) -> None:
    with pytest.raises(StormError, match="node"):
        plan(address, "--not-loopback")


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["localhost"], "'localhost': not an IPv4 or IPv6 address"),
        (["127.1"], "'127.1': not an IPv4 or IPv6 address"),
        (["127.0.0.010"], "'127.0.0.010': not an IPv4 or IPv6 address"),
        (["fe80::1"], "'fe80::1': a link-local address needs its interface"),
        (["fe80::1%nosuch0"], "no such interface"),
        (["--port", "0"], "'0': not a port (1 to 65535)"),
        (["--port", "7410x"], "'7410x': not a port"),
        (["--nodes", "-1"], "not a number of nodes (1 to 16777216)"),
        (["--from", "127.0.0.1/8"], "--from '127.0.0.1/8': not a network such as 127.0.0.0/8"),
        (["--from", "fd00::/64"], "--from 'fd00::/64': not of the family of 127.0.0.1"),
        (["--rate", "0"], "'0': not datagrams a second (more than 0, at most 1000000000"),
        (["--rate", "1e3"], "'1e3': not datagrams a second"),
        (["--rate", "nan"], "'nan': not datagrams a second"),
        (["--rate", "1", "--interval", "1"], "--rate and --interval: only one of them"),
        (["--panic-within", "1"], "--panic-within: needs --interval"),
        (["--panic-within", "2", "--interval", "1"], "--panic-within: longer than --interval"),
        (["--mix", "vlaid=1"], "'vlaid': not among valid, foreign, empty"),
        (["--mix", "valid=1,valid=2"], "'valid' is given twice"),
        (["--mix", "valid=0"], "'valid=0': the shares must add up to 1 to 10000"),
        (["--mix", "valid=1,short=10000"], "the shares must add up to 1 to 10000"),
        (["--mix", "valid=one"], "'one': not a share (0 to 10000)"),
        (["--mix", "short", "--rounds", "1"], "--rounds: no node sends valid messages"),
        (["--mix", "short", "--interval", "1"], "--interval: no node sends valid messages"),
        (["--mix", "short"], "no end: give --duration, --count or --rate"),
        (["--byteorder", "middle"], "invalid choice: 'middle'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(argv: list[str], complaint: str) -> None:
    with pytest.raises(StormError) as raised:
        plan(*argv)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)
