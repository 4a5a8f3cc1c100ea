# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names -> addresses, and the resolver that never waits."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdumpfence import addresses
from kdumpfence.addresses import (
    Address,
    LookUpError,
    Resolver,
    cleaned,
    is_address,
    literal,
    look_up,
    split,
    why_refused,
)
from tests.support.refused import REFUSED

AUTO, V4, V6 = socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6


def shown(found: list[Address] | None) -> list[str]:
    return [str(address) for address in found or []]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::1"),
        ("FD00:0:0::0001", "fd00::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%lo", "fe80::1%lo"),
        ("fe80::1%1", "fe80::1%lo"),
        ("::1", "::1"),
        ("240.0.0.1", "240.0.0.1"),
        ("255.255.255.254", "255.255.255.254"),
        ("::ffff:250.1.2.3", "250.1.2.3"),
    ],
)
def test_a_literal_needs_no_look_up(text: str, expected: str) -> None:
    assert why_refused(text) == ""
    assert is_address(text)
    assert shown(literal(text, AUTO)) == [expected]
    assert shown(look_up(text, AUTO)) == [expected]


@pytest.mark.parametrize(
    "name",
    ["node1", "localhost", "a.b.c", "node_1", "_x", "node1.example.", "NODE-1-", "7up", "1.node",
     "0xen", "192.0.2.1.example", "x" * 63, ".".join(["x" * 50] * 4) + ".y" * 24 + ".z"]
)  # fmt: skip
def test_a_name_is_not_a_literal(name: str) -> None:
    assert literal(name, AUTO) is None
    assert why_refused(name) == ""
    assert not is_address(name)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_neither_is_refused_for_good(text: str) -> None:
    assert not is_address(text)
    for judge in (literal, look_up):
        with pytest.raises(LookUpError) as caught:
            judge(text, AUTO)
        assert str(caught.value) == why_refused(text)
        assert caught.value.permanent
    assert why_refused(text).startswith("neither a host name nor an IP address")
    assert cleaned(text) == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a,b", ["a", "b"]),
        (" a ,\tb,", ["a", "b"]),
        (",,", []),
        ("", []),
        ("[2001:db8::1],192.0.2.1", ["2001:db8::1", "192.0.2.1"]),
        (r"2001\:db8\:\:1", ["2001:db8::1"]),
        (r"[fe80\:\:1%lo]", ["fe80::1%lo"]),
        ("[node1]", ["[node1]"]),
        (r"node1\:7410", [r"node1\:7410"]),
        ("a b", ["a b"]),
        ("&", ["&"]),
    ],
)
def test_commas_separate_and_what_pacemaker_and_urls_add_is_taken_off(
    text: str, parts: list[str]
) -> None:
    assert split(text) == parts


def test_an_interface_that_is_not_there_may_come() -> None:
    assert literal("fe80::1%nosuchif0", AUTO) is None
    assert is_address("fe80::1%nosuchif0")
    with pytest.raises(LookUpError, match="this machine has no interface 'nosuchif0'") as caught:
        look_up("fe80::1%nosuchif0", AUTO)
    assert not caught.value.permanent
    with pytest.raises(LookUpError, match="not an ipv4 address") as caught:
        literal("fe80::1%nosuchif0", V4)
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("::ffff:0.0.0.0", "no node can have this address"),
        ("ff02::1%lo", "no node can have this address"),
        ("fe80::1%0", "needs its interface, as in fe80::1%eth0"),
        ("2001:db8::1%1", "only a link-local address has an interface"),
        ("::ffff:10.0.0.1%1", "only a link-local address has an interface"),
    ],
)
def test_an_address_that_no_node_can_have_is_refused_for_good(text: str, complaint: str) -> None:
    with pytest.raises(LookUpError, match=complaint) as caught:
        literal(text, AUTO)
    assert caught.value.permanent


def test_an_address_of_the_other_family_is_refused_for_good() -> None:
    with pytest.raises(LookUpError, match="not an ipv6 address") as caught:
        literal("10.0.0.1", V6)
    assert caught.value.permanent
    with pytest.raises(LookUpError, match="not an ipv4 address"):
        literal("fd00::1", V4)


def test_localhost_resolves() -> None:
    assert "127.0.0.1" in shown(look_up("localhost", V4))


class Names:
    """A name service of our own: answers, fails or hangs as told."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.asked: list[str] = []
        self.hanging = threading.Event()

    def __call__(self, name: str, family: int) -> list[Address]:
        self.asked.append(name)
        if name.startswith("hang"):
            self.hanging.wait(20)
        if name == "never":
            raise LookUpError("no", permanent=True)
        if name == "odd":
            raise UnicodeError("odd")
        if name not in self.known:
            raise LookUpError("not yet")
        return [Address(socket.inet_pton(V4, self.known[name]))]


@pytest.fixture
def names() -> Iterator[Names]:
    service = Names()
    yield service
    service.hanging.set()


def run(resolver: Resolver, until: Callable[[], bool], seconds: float = 60) -> dict[str, object]:
    """Drive it as the programs do."""
    answers: dict[str, object] = {}
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        answers.update(resolver.step())
        due = resolver.next_due
        left = 0.2 if due is None else min(0.2, max(0.0, due - time.monotonic()))
        select.select([resolver.fd], [], [], left)
    answers.update(resolver.step())
    return answers


def test_an_answer_comes_through_the_descriptor(names: Names) -> None:
    names.known["a"] = "10.0.0.1"
    resolver = Resolver(["a"], AUTO, ask=names)
    assert resolver.step() == []
    assert select.select([resolver.fd], [], [], 5)[0]
    ((name, answer),) = resolver.step()
    assert name == "a"
    assert shown(answer if isinstance(answer, list) else []) == ["10.0.0.1"]
    assert resolver.unresolved == []
    assert resolver.next_due is None
    resolver.close()


def test_a_name_that_resolves_late_is_asked_for_until_it_does(names: Names) -> None:
    resolver = Resolver(["late"], AUTO, ask=names)
    first = run(resolver, lambda: len(names.asked) >= 3)
    assert isinstance(first["late"], LookUpError)
    names.known["late"] = "10.0.0.2"
    answers = run(resolver, lambda: not resolver.unresolved)
    assert isinstance(answers["late"], list)
    resolver.close()


def test_a_name_can_be_added_and_discarded_while_it_runs(names: Names) -> None:
    names.known["a"] = "10.0.0.1"
    resolver = Resolver([], AUTO, ask=names)
    assert resolver.next_due is None
    for name in ("late", "a", "a"):
        resolver.add(name)
    answers = run(resolver, lambda: resolver.unresolved == ["late"])
    assert isinstance(answers["a"], list)
    resolver.discard("late")
    resolver.discard("late")
    assert resolver.unresolved == []
    assert resolver.next_due is None
    time.sleep(0.5)  # for one that was under way
    asked = len(names.asked)
    time.sleep(0.3)
    assert resolver.step() == []
    assert len(names.asked) == asked
    resolver.add("a")  # an address may change
    names.known["a"] = "10.0.0.2"
    again = run(resolver, lambda: not resolver.unresolved)["a"]
    assert shown(again if isinstance(again, list) else []) == ["10.0.0.2"]
    resolver.close()


def test_a_look_up_that_hangs_does_not_delay_the_others(names: Names) -> None:
    names.known["good"] = "10.0.0.1"
    hanging = [f"hang{number}" for number in range(addresses.LOOK_UPS_AT_ONCE + 5)]
    resolver = Resolver([*hanging, "good"], AUTO, ask=names)
    answers = run(resolver, lambda: "good" not in resolver.unresolved)
    assert isinstance(answers["good"], list)
    assert set(resolver.unresolved) == set(hanging)
    names.hanging.set()
    resolver.close()


def test_no_more_than_so_many_are_asked_for_at_once(names: Names) -> None:
    resolver = Resolver([f"hang{number}" for number in range(200)], AUTO, ask=names)
    resolver.step()
    resolver.step()
    assert len(names.asked) <= addresses.LOOK_UPS_AT_ONCE
    assert resolver.next_due is not None
    names.hanging.set()
    resolver.close()


def test_a_name_without_hope_is_asked_for_once(names: Names) -> None:
    resolver = Resolver(["never"], AUTO, ask=names)
    answers = run(resolver, lambda: not resolver.unresolved)
    assert isinstance(answers["never"], LookUpError)
    assert names.asked == ["never"]
    resolver.close()


def test_whatever_a_look_up_raises_is_an_answer(names: Names) -> None:
    resolver = Resolver(["odd"], AUTO, ask=names)
    answers = run(resolver, lambda: len(names.asked) >= 2)
    assert str(answers["odd"]) == "UnicodeError: odd"
    resolver.close()


def test_no_descriptor_leaks_and_late_answers_do_no_harm(names: Names) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        resolver = Resolver(["hang"], AUTO, ask=names)
        resolver.step()
        resolver.close()
    names.hanging.set()
    end = time.monotonic() + 60
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < end:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
def test_in_a_hurry_a_name_is_asked_for_at_once(names: Names) -> None:
    resolver = Resolver(["late"], AUTO, retry_last=3600, ask=names)
    run(resolver, lambda: len(names.asked) >= 6 and resolver.next_due is not None)
    assert resolver.next_due is not None
    assert resolver.next_due > time.monotonic() + 1  # 0.1, 0.2, 0.4, ..., and now 3.2 seconds
    names.known["late"] = "10.0.0.2"
    resolver.hurry()
    assert resolver.next_due <= time.monotonic()
    answers = run(resolver, lambda: not resolver.unresolved, 1)
    assert isinstance(answers["late"], list)
    resolver.close()


@pytest.mark.slow
def test_in_a_hurry_a_name_whose_look_up_hangs_is_asked_for_beside_it(names: Names) -> None:
    resolver = Resolver(["hang"], AUTO, ask=names)
    run(resolver, lambda: len(names.asked) == 1)
    assert resolver.next_due is None
    for _ in range(10):
        resolver.hurry()
        run(resolver, lambda: False, 0.05)
    run(resolver, lambda: len(names.asked) == addresses.LOOK_UPS_OF_A_NAME)
    assert len(names.asked) == addresses.LOOK_UPS_OF_A_NAME
    names.known["hang"] = "10.0.0.3"
    names.hanging.set()
    answers = run(resolver, lambda: not resolver.unresolved)
    assert isinstance(answers["hang"], list)
    time.sleep(0.1)
    assert resolver.step() == []  # the other answers are nothing new
    resolver.close()


def test_a_change_of_the_files_that_decide_on_names_is_noticed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, other = tmp_path / "hosts", tmp_path / "resolv.conf"
    monkeypatch.setattr(addresses, "NAME_FILES", (str(hosts), str(other)))
    files = addresses.NameFiles()
    assert not files.changed()
    for change in (
        lambda: hosts.write_text("10.0.0.1 a\n"),
        lambda: hosts.write_text("10.0.0.1 abc\n"),
        other.touch,
        hosts.unlink,
    ):
        change()
        assert files.changed()
        assert not files.changed()
