# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Listener looks the names of nodes up, with a made-up name service."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kdumpfence import addresses, own_addresses
from kdumpfence.addresses import Address, LookUpError
from kdumpfence.listener import reader
from tests.listener.conftest import A, B, MakeListener, about_nodes, wait_for


class NameService:
    """What it answers, and how often it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked: list[str] = []

    def ask(self, name: str, family: int) -> list[Address]:
        self.asked.append(name)
        if name not in self.answers:
            raise LookUpError("not known yet")
        return [Address(socket.inet_aton(host)) for host in self.answers[name]]


@pytest.fixture
def name_service(monkeypatch: pytest.MonkeyPatch) -> NameService:
    """Nodes are played on loopback, whose addresses a name cannot have: that is left out."""
    service = NameService()
    monkeypatch.setattr(reader, "look_up_node", service.ask)
    return service


@pytest.mark.slow
def test_a_name_is_asked_for_until_it_has_an_address_and_an_address_never(
    listen: MakeListener, name_service: NameService
) -> None:
    listening = listen({"node1": ["ring0.example", A], "127.7.4.9": []}, repeat_interval=0.0)
    assert listening.after_message(A).kind == "began"  # what needs no name service is heard
    wait_for(lambda: len(name_service.asked) >= 3)
    assert listening.snapshot().unresolved == ["node1"]
    name_service.answers["ring0.example"] = [B]
    wait_for(lambda: listening.snapshot().unresolved == [])
    assert listening.after_message(B).addresses == (A, B)
    assert set(name_service.asked) == {"ring0.example"}


def test_a_name_that_leads_to_this_machine_is_no_nodes(
    listen: MakeListener, name_service: NameService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "look_up_node", own_addresses.look_up_node)
    monkeypatch.setattr(own_addresses, "look_up", name_service.ask)
    name_service.answers["node1"] = ["127.0.1.1"]  # as Debian's hosts file has it
    listening = listen(["node1"])
    wait_for(lambda: len(name_service.asked) >= 2)
    assert listening.snapshot().unresolved == ["node1"]
    listening.say("127.0.1.1")
    listening.wait_for_count("stranger", 1)


def test_a_thousand_names_are_all_looked_up(
    listen: MakeListener, name_service: NameService
) -> None:
    names = [f"node{number}" for number in range(1000)]
    name_service.answers = {
        name: [f"127.8.{number // 250}.{number % 250 + 1}"] for number, name in enumerate(names)
    }
    listening = listen(names)
    wait_for(lambda: listening.snapshot().unresolved == [])
    assert sorted(name_service.asked) == sorted(names)
    assert listening.after_message("127.8.3.250").node == "node999"


@pytest.mark.slow
def test_a_change_of_the_hosts_file_is_noticed(
    listen: MakeListener, name_service: NameService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    monkeypatch.setattr(addresses, "NAME_FILES", (str(hosts),))
    name_service.answers["node1"] = [A]
    listening = listen(["node1"])
    wait_for(lambda: listening.snapshot().unresolved == [])
    name_service.answers["node1"] = [B]
    hosts.write_text("changed")
    wait_for(lambda: len(name_service.asked) >= 2)

    # Asked is not answered yet: until then the new address is a stranger's, and a node repeats.
    def heard_at_its_new_address() -> bool:
        listening.say(B)
        events = about_nodes(listening.events(0.05))
        return [(event.node, event.addresses) for event in events] == [("node1", (B,))]

    wait_for(heard_at_its_new_address)
    # The old address is no longer the node's.
    strangers = listening.counted().get("stranger", 0)
    listening.say(A)
    listening.wait_for_count("stranger", strangers + 1)
