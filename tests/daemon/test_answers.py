# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real daemon answers who asks whether its machine is alive: with which name, key and rights."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
from pathlib import Path
from typing import Any

import pytest

from kdumpfence import keys
from kdumpfence.daemon import key
from kdumpfence.wire import Packet, decode_packet, encode_packet, packet_fits
from tests.conftest import udp
from tests.daemon.running import PROGRAM, Kdumpfenced, patched, until
from tests.support.netlab import Host, Lab

CLUSTER, OTHER = bytes(range(32)), bytes(range(1, 33))


def key_file(path: Path, *clusters: bytes, node: str = "") -> Path:
    """A key file: the cluster's, or the node's own."""
    slots = [(keys.key_id(one), one) for one in clusters]
    made = keys.Keys(slots[0], slots[1] if len(slots) > 1 else None)
    its = made.of(node) if node else made
    assert its is not None
    path.touch(0o600)
    path.write_text(its.text())
    return path


def ask(
    daemon: Kdumpfenced, node: str = "node1", seconds: float = 20.0
) -> tuple[Packet, bytes] | None:
    """What the daemon answers; None if it does not."""
    with udp("127.0.0.9") as sock:
        question = encode_packet(Packet("question", node, nonce=os.urandom(16)))
        sock.sendto(question, ("127.0.0.1", daemon.port))
        if not select.select([sock], [], [], seconds)[0]:
            return None
        data = sock.recv(4096)
    packet = decode_packet(data)
    assert packet is not None
    assert (packet.kind, packet.nonce) == ("alive", question[40:56])
    return packet, data


def answer(daemon: Kdumpfenced, node: str = "node1") -> tuple[Packet, bytes]:
    found = ask(daemon, node)
    assert found is not None
    return found


def configure(daemon: Kdumpfenced, *lines: str) -> None:
    daemon.configure("\n".join(['networks = ["127.5.0.0/16"]', *lines]))


@pytest.mark.parametrize("core", ["compiled", "pure"])
def test_without_any_setting_it_answers_with_the_host_name(tmp_path: Path, core: str) -> None:
    daemon = Kdumpfenced(tmp_path, core)
    with contextlib.closing(daemon):
        daemon.start()
        host = os.uname().nodename
        daemon.says(f"answering questions as node '{host}', not signed: no key file /etc/kdump")
        packet, _ = answer(daemon, host)
        assert (packet.name, packet.key_id) == (host, 0)
        page = daemon.page_with('kdumpfence_datagrams_total{verdict="question"} 1.0')
        assert "\nkdumpfence_answers_total 1.0\n" in page
        assert "asked for" not in daemon.said()


def test_with_a_key_answers_are_signed_and_a_reload_takes_another_one(
    daemon: Kdumpfenced, tmp_path: Path
) -> None:
    path = key_file(tmp_path / "key", CLUSTER)
    configure(daemon, 'node = "node1"', f'key_file = "{path}"')
    daemon.start()
    daemon.says(f"as node 'node1', signed with key {keys.key_id(CLUSTER):08x}")
    assert packet_fits(answer(daemon)[1], keys.node_key(CLUSTER, "node1"))
    key_file(path, OTHER, CLUSTER)
    configure(daemon, 'node = "node2"', f'key_file = "{path}"')
    daemon.reload()
    daemon.says(f"as node 'node2', signed with key {keys.key_id(OTHER):08x}")
    assert "node changed" in daemon.says("settings reloaded")
    assert packet_fits(answer(daemon)[1], keys.node_key(OTHER, "node2"))
    key_file(path, OTHER, node="node2")  # what a crash image has
    daemon.reload()
    until(lambda: daemon.said().count("settings reloaded") == 2)
    assert packet_fits(answer(daemon)[1], keys.node_key(OTHER, "node2"))
    path.unlink()
    daemon.reload()
    daemon.says(f"not signed: key file '{path}': No such file or directory")
    assert answer(daemon)[0].key_id == 0


@pytest.mark.parametrize("fault", ["mode", "other", "rubbish"])
def test_a_key_that_cannot_be_used_is_complained_of_and_answers_are_not_signed(
    daemon: Kdumpfenced, tmp_path: Path, fault: str
) -> None:
    path = key_file(tmp_path / "key", CLUSTER, node="node9" if fault == "other" else "")
    if fault == "mode":
        path.chmod(0o640)
    elif fault == "rubbish":
        path.write_text("rubbish\n")
    configure(daemon, 'node = "node1"', f'key_file = "{path}"')
    daemon.start()
    why = {
        "mode": "mode 0640, others have rights to it: must be 0600",
        "other": "the key is that of node 'node9'",
        "rubbish": "line 1: not 'signs ID KEY'",
    }[fault]
    assert why in daemon.says("answering questions as node 'node1', not signed: ")
    packet, _ = answer(daemon)
    assert (packet.name, packet.key_id) == ("node1", 0)
    assert daemon.is_well()


def test_what_the_service_manager_passes_goes_before_the_file(
    daemon: Kdumpfenced, tmp_path: Path
) -> None:
    path = key_file(tmp_path / "file", OTHER)
    configure(daemon, 'node = "node1"', f'key_file = "{path}"')
    folder = tmp_path / "credentials"
    folder.mkdir()
    credential = key_file(folder / key.CREDENTIAL, CLUSTER)
    credential.chmod(0o440)  # as it is where systemd lets the user in by an ACL
    daemon.start(environment={"CREDENTIALS_DIRECTORY": str(folder)})
    assert packet_fits(answer(daemon)[1], keys.node_key(CLUSTER, "node1"))
    for nothing in (f"{key.NONE}\n", ""):
        credential.write_text(nothing)
        daemon.reload()
        daemon.says(f"signed with key {keys.key_id(OTHER):08x}")
        assert packet_fits(answer(daemon)[1], keys.node_key(OTHER, "node1"))
    path.chmod(0o644)
    credential.write_text(key.NONE)
    daemon.reload()
    daemon.says("must be 0600; systemd reads it when the daemon is restarted")
    credential.write_text("rubbish\n")
    daemon.reload()
    daemon.says("not signed: key passed by the service manager: line 1: not")


def test_a_crash_kernel_does_not_answer(daemon: Kdumpfenced, tmp_path: Path) -> None:
    (tmp_path / "vmcore").touch()
    change = f"from kdumpfence.listener import answers\nanswers.VMCORE = '{tmp_path}/vmcore'"
    daemon.start(program=patched(change))
    assert ask(daemon, seconds=0.5) is None
    daemon.page_with('kdumpfence_datagrams_total{verdict="question"} 1.0')
    (tmp_path / "vmcore").unlink()
    answer(daemon)


def test_answer_false_answers_nothing(daemon: Kdumpfenced) -> None:
    configure(daemon, "answer = false")
    daemon.start()
    assert ask(daemon, seconds=0.5) is None
    daemon.page_with('kdumpfence_datagrams_total{verdict="question"} 1.0')
    assert "questions" not in daemon.said()
    daemon.reload()
    daemon.says("settings reloaded: no change")


def test_a_host_name_that_no_packet_can_carry_is_complained_of(daemon: Kdumpfenced) -> None:
    change = (
        "from kdumpfence.daemon import settings\n"
        "settings.Settings.name = property(lambda self: self.node or 'n\\u00f6 de')"
    )
    daemon.start(program=patched(change))
    daemon.says("not answering questions: set node, for 'n\\xc3\\xb6 de' cannot be one's name")
    assert ask(daemon, seconds=0.5) is None
    daemon.hears("127.5.0.1")
    daemon.reload()
    daemon.says("settings reloaded: no change")


def test_who_asks_for_another_node_is_told_of_once(daemon: Kdumpfenced) -> None:
    configure(daemon, 'node = "node1.example"')
    daemon.start()
    for node in ("127.0.0.1", "node1", "node7"):
        assert answer(daemon, node)[0].name == "node1.example"
        if node == "node1":
            daemon.says("asked for node 'node1', but this one answers as 'node1.example': set node")
    daemon.page_with("\nkdumpfence_answers_total 3.0\n")
    assert daemon.said().count("asked for") == 1


def test_a_user_without_rights_needs_none_to_answer(
    public: Path, as_nobody: tuple[str, ...]
) -> None:
    os.chown(public, 65534, 65534)
    daemon = Kdumpfenced(public)
    path = key_file(public / "key", CLUSTER)  # root's
    configure(daemon, 'node = "node1"', f'key_file = "{path}"')
    with contextlib.closing(daemon):
        daemon.start(wrapper=as_nobody, program=PROGRAM)
        daemon.says(f"not signed: key file '{path}': Permission denied")
        assert answer(daemon)[0].name == "node1"


# ------------------------------------------------------------------ on a network


@pytest.fixture
def node(lab: Lab, daemon: Kdumpfenced) -> tuple[Host, Host]:
    """A node on two networks, with a daemon, and a host that is on both as well."""
    node, host = lab.host("node1"), lab.host("host")
    lab.link(node, host, ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"])
    lab.link(node, host, ["10.9.0.1/24", "10.9.0.11/24"], ["10.9.0.2/24"])
    daemon.port = 7410
    daemon.configure('networks = ["10.0.0.0/8"]')
    daemon.start_on(node)
    return node, host


def asked(host: Host, source: str, to: str) -> tuple[str, int, str] | None:
    """Who answers a question from that address to this one, and as which node; None: nobody."""
    with host.open_socket(socket.AF_INET6 if ":" in to else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        at, *scope = to.split("%")
        there: tuple[Any, ...] = (at, 7410, *((0, int(scope[0])) if scope else ()))
        sock.bind((source, 0))
        sock.sendto(encode_packet(Packet("question", "node1", nonce=b"n" * 16)), there)
        if not select.select([sock], [], [], 5.0 if "255" not in to else 0.5)[0]:
            return None
        data, sender = sock.recvfrom(4096)
    packet = decode_packet(data)
    assert packet is not None
    return sender[0].partition("%")[0], sender[1], packet.name


@pytest.mark.slow
def test_an_answer_comes_from_the_address_that_was_asked_whatever_way_it_goes(
    node: tuple[Host, Host],
) -> None:
    _, host = node
    for source, to in (
        ("10.0.0.2", "10.0.0.1"),
        ("10.9.0.2", "10.9.0.1"),
        ("10.9.0.2", "10.9.0.11"),
        ("10.0.0.2", "10.9.0.11"),  # and back by the other network
        ("fd00::2", "fd00::1"),
    ):
        assert asked(host, source, to) == (to, 7410, "node1")


@pytest.mark.slow
def test_a_link_local_address_answers_too(node: tuple[Host, Host]) -> None:
    own, host = node
    shown = own.run(["ip", "-6", "-o", "address", "show", "scope", "link"], check=True).stdout
    address = re.findall(r"inet6 (fe80\S+)/64", shown)[0]
    links = host.run(["ip", "-6", "-o", "address", "show", "scope", "link"], check=True).stdout
    index = int(links.split(":")[0])
    assert asked(host, "::", f"{address}%{index}") == (address, 7410, "node1")


@pytest.mark.slow
def test_a_broadcast_is_not_answered(node: tuple[Host, Host], daemon: Kdumpfenced) -> None:
    _, host = node
    assert asked(host, "10.0.0.2", "10.0.0.255") is None
    until(lambda: daemon.status().counts["question"] == 1)
