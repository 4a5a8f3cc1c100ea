# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which node has which address, without sockets or a name service; with each core's table."""

from __future__ import annotations

import socket
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpfence import wire
from kdumpfence.addresses import Address, LookUpError
from kdumpfence.listener.nodes import REFRESH, RETRY_FIRST, RETRY_LAST, Nodes


def packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def addresses(*hosts: str) -> list[Address]:
    return [Address(packed(host)) for host in hosts]


class Table:
    """Nodes and the core's table that they keep."""

    def __init__(self, core: Any, family: int = socket.AF_UNSPEC) -> None:
        self.sources = core.Sources()
        self.nodes = Nodes(family, self.sources)

    def who(self, host: str) -> str | None:
        """The node whose messages come from there."""
        number = self.sources.find(packed(host))
        return None if number is None else self.nodes.name_of(number)


@pytest.fixture
def table(core: ModuleType) -> Table:
    return Table(core)


def test_a_node_has_its_addresses_and_a_bare_one_is_its_own(table: Table) -> None:
    table.nodes.add("node1", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"], 0.0)
    table.nodes.add("192.0.2.9", [], 0.0)
    assert table.who("192.0.2.1") == table.who("2001:db8::1") == "node1"
    assert table.who("192.0.2.9") == "192.0.2.9"
    assert list(table.nodes) == ["node1", "192.0.2.9"]
    assert len(table.sources) == 3
    assert table.nodes.unresolved == []
    assert table.nodes.next_ask is None


def test_a_node_keeps_its_number_when_its_addresses_change(table: Table) -> None:
    table.nodes.add("node1", ["192.0.2.1", "192.0.2.2"], 0.0)
    number = table.sources.find(packed("192.0.2.2"))
    table.nodes.add("node1", ["192.0.2.2", "192.0.2.3"], 1.0)
    assert table.sources.find(packed("192.0.2.2")) == number
    assert table.sources.find(packed("192.0.2.3")) == number


def test_a_node_that_was_removed_has_nothing(table: Table) -> None:
    table.nodes.add("node1", ["192.0.2.1", "host1"], 0.0)
    assert table.nodes.ask(0.0, 9) == ["host1"]
    table.nodes.remove("node1")
    table.nodes.answered("host1", addresses("192.0.2.5"), 1.0)
    assert len(table.sources) == len(table.nodes) == 0
    assert table.nodes.next_ask is None
    table.nodes.add("node2", ["host1"], 2.0)
    table.nodes.answered("host1", addresses("192.0.2.5"), 3.0)  # to the question from before
    assert table.nodes.unresolved == ["node2"]
    assert table.nodes.next_ask == 2.0
    with pytest.raises(KeyError):
        table.nodes.remove("node1")


def test_addresses_may_be_written_as_elsewhere(table: Table) -> None:
    written = ["192.0.2.1, [2001:db8::1]", r"2001\:db8\:\:2", "240.0.0.1,ring1"]
    table.nodes.add("node1", written, 0.0)
    for address in ("192.0.2.1", "2001:db8::1", "2001:db8::2", "240.0.0.1"):
        assert table.who(address) == "node1"
    assert table.nodes.ask(0.0, 9) == ["ring1"]
    table.nodes.add("[2001:db8::9]", [], 0.0)
    assert table.who("2001:db8::9") == "[2001:db8::9]"


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("node1", ["224.0.0.1"], "node 'node1': address '224.0.0.1': "),
        ("node1", ["fe80::1"], "needs its interface"),
        ("node1", ["192.0.2.1", "näme"], "neither a host name nor an IP address"),
        ("0.0.0.0", [], "node '0.0.0.0': "),
        ("192.0.2.1", ["192.0.2.2"], "an address for a name, but not as one of its addresses"),
        ("", ["192.0.2.2"], "a name needs at least one character"),
        ("node1", "192.0.2.1", "expected a list of addresses"),
        ("node1", ["2001:db8::1"], "'2001:db8::1': not an ipv4 address"),
    ],
)
def test_a_node_that_cannot_be_is_refused_and_changes_nothing(
    core: ModuleType, name: str, given: Any, why: str
) -> None:
    table = Table(core, socket.AF_INET if "ipv4" in why else socket.AF_UNSPEC)
    with pytest.raises(TypeError if "list" in why else ValueError, match=why):
        table.nodes.add(name, given, 0.0)
    assert len(table.nodes) == len(table.sources) == 0
    assert table.nodes.next_ask is None


# ---------------------------------------------------------------------------------- names


def test_a_name_is_asked_for_again_with_longer_and_longer_waits(table: Table) -> None:
    table.nodes.add("node1", [], 0.0)
    now = 0.0
    waits: list[float] = []
    for _ in range(10):
        assert table.nodes.ask(now, 9) == ["node1"]
        assert table.nodes.next_ask is None  # not while an answer is waited for
        assert table.nodes.unresolved == ["node1"]
        table.nodes.answered("node1", LookUpError("not yet"), now)
        due = table.nodes.next_ask
        assert due is not None
        assert table.nodes.ask(due - 0.001, 9) == []
        waits.append(due - now)
        now = due
    assert waits[0] == pytest.approx(RETRY_FIRST)
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(RETRY_LAST)


def test_a_name_that_resolved_is_asked_for_again_later_and_may_have_moved(table: Table) -> None:
    table.nodes.add("node1", [], 0.0)
    table.nodes.ask(0.0, 9)
    table.nodes.answered("node1", addresses("192.0.2.1", "2001:db8::1"), 1.0)
    assert table.who("192.0.2.1") == table.who("2001:db8::1") == "node1"
    assert table.nodes.unresolved == []
    assert table.nodes.next_ask == 1.0 + REFRESH
    assert table.nodes.ask(1.0 + REFRESH, 9) == ["node1"]
    table.nodes.answered("node1", addresses("192.0.2.2"), 400.0)
    assert (table.who("192.0.2.1"), table.who("192.0.2.2")) == (None, "node1")
    assert len(table.sources) == 1


def test_a_link_local_address_follows_its_interface(table: Table) -> None:
    text, address = "fe80::1%lo", packed("fe80::1")
    table.nodes.add("node1", [text], 0.0)
    table.nodes.add(text, [], 0.0)
    assert table.nodes.shared == [text]
    table.nodes.remove(text)
    table.nodes.add("fe80::1%1", [text], 0.0)  # the same address in other words
    table.nodes.remove("fe80::1%1")
    assert list(table.sources) == [(address, 1)]
    assert table.nodes.unresolved == []
    assert table.nodes.next_ask == REFRESH
    assert table.nodes.ask(REFRESH, 9) == [text]
    table.nodes.answered(text, LookUpError("gone for the moment"), REFRESH)
    assert list(table.sources) == [(address, 1)]
    assert table.nodes.ask(2 * REFRESH, 9) == [text]
    table.nodes.answered(text, [Address(address, 7)], 2 * REFRESH)
    assert list(table.sources) == [(address, 7)]
    table.nodes.add("node2", [text], 2 * REFRESH)  # finds it where it was, and so it is for both
    table.nodes.remove("node2")
    assert list(table.sources) == [(address, 1)]


def test_a_node_keeps_its_addresses_while_the_name_service_is_away(table: Table) -> None:
    table.nodes.add("node1", [], 0.0)
    table.nodes.ask(0.0, 9)
    table.nodes.answered("node1", addresses("192.0.2.1"), 1.0)
    now = 1.0 + REFRESH
    for _ in range(5):
        table.nodes.ask(now, 9)
        table.nodes.answered("node1", LookUpError("no answer"), now)
        due = table.nodes.next_ask
        assert due is not None
        assert due - now >= RETRY_LAST
        now = due
    assert table.who("192.0.2.1") == "node1"
    assert table.nodes.unresolved == []


def test_a_change_of_the_name_files_has_all_names_asked_for_again(table: Table) -> None:
    table.nodes.add("node1", ["host1", "host2"], 0.0)
    table.nodes.ask(0.0, 9)
    table.nodes.answered("host1", addresses("192.0.2.1"), 1.0)
    table.nodes.hurry(2.0)
    assert table.nodes.ask(2.0, 9) == ["host1"]  # host2's answer is still waited for
    table.nodes.answered("host2", LookUpError("not yet"), 2.0)
    assert table.nodes.next_ask == 2.0 + RETRY_FIRST


def test_a_name_that_was_asked_for_before_the_change_is_asked_for_again_soon(table: Table) -> None:
    table.nodes.add("node1", [], 0.0)
    assert table.nodes.ask(0.0, 9) == ["node1"]
    table.nodes.hurry(1.0)
    table.nodes.answered("node1", addresses("192.0.2.1"), 1.0)  # which may be what it was before
    assert table.who("192.0.2.1") == "node1"
    assert table.nodes.next_ask == pytest.approx(1.0 + RETRY_FIRST)
    assert table.nodes.ask(2.0, 9) == ["node1"]
    table.nodes.answered("node1", addresses("192.0.2.2"), 2.0)
    assert (table.who("192.0.2.1"), table.who("192.0.2.2")) == (None, "node1")
    assert table.nodes.next_ask == pytest.approx(2.0 + REFRESH)


def test_no_more_names_are_asked_for_than_there_is_room(table: Table) -> None:
    for number in range(10):
        table.nodes.add(f"node{number}", [], 0.0)
    assert len(table.nodes.ask(0.0, 4)) == 4
    assert len(table.nodes.ask(0.0, 99)) == 6
    assert table.nodes.ask(0.0, 99) == []


HOSTS = [f"192.0.2.{last}" for last in range(1, 5)]
NAMES = ["host1", "host2"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("add"),
                st.sampled_from(["a", "b", "c"]),
                st.lists(st.sampled_from(HOSTS + NAMES), min_size=1, max_size=3),
            ),
            st.tuples(st.just("remove"), st.sampled_from(["a", "b", "c"]), st.just([])),
            st.tuples(
                st.just("answer"),
                st.sampled_from(NAMES),
                st.lists(st.sampled_from(HOSTS), max_size=2),
            ),
        ),
        max_size=30,
    )
)
def test_the_table_of_sources_is_what_it_would_be_if_made_afresh(
    steps: list[tuple[str, str, list[str]]],
) -> None:
    table = Table(wire)
    told: dict[str, list[str]] = {}
    answers: dict[str, list[str]] = {}
    asked: set[str] = set()
    now = 0.0
    for step, name, things in steps:
        now += 1000.0
        if step == "add":
            table.nodes.add(name, things, now)
            told[name] = things
        elif step == "remove" and name in told:
            table.nodes.remove(name)
            del told[name]
        elif step == "answer":
            asked.update(table.nodes.ask(now, 9))
            table.nodes.answered(name, addresses(*things) or LookUpError("nothing"), now)
            if name in asked:
                answers[name] = things or answers.get(name, [])
                asked.discard(name)
        used = {thing for its in told.values() for thing in its}
        asked &= used
        answers = {name: found for name, found in answers.items() if name in used}
        having: dict[str, set[str]] = {host: set() for host in HOSTS}
        for node, its in told.items():
            for thing in its:
                for host in answers.get(thing, []) if thing in NAMES else [thing]:
                    having[host].add(node)
        for host, nodes in having.items():
            assert table.who(host) == (min(nodes) if len(nodes) == 1 else None)
            assert table.nodes.has(packed(host), 0) == bool(nodes)
        assert len(table.sources) == [len(nodes) for nodes in having.values()].count(1)
        assert table.nodes.shared == [host for host in HOSTS if len(having[host]) > 1]
        without = {name for name in NAMES if not answers.get(name)}
        assert set(table.nodes.unresolved) == {
            node for node, its in told.items() if without & set(its)
        }
