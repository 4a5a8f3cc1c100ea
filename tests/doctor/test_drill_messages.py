# SPDX-License-Identifier: LGPL-2.1-or-later
"""A drill hears what the node sends, of which grade, and takes nothing from anybody who listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from kdumpfence.agent.options import AgentOptions
from kdumpfence.doctor import drill_messages
from kdumpfence.doctor.drill import Target
from kdumpfence.doctor.drill_course import DUMPED, HEARD, Event
from kdumpfence.doctor.drill_messages import Messages
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.sysroot import Sysroot
from kdumpfence.listener.listener import Listener
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.support.signer import FOREIGN_KEY, KEY, Signer, key_text, slot

NODE = "127.0.0.9"
SIGNED = f"signed with key {slot(KEY)[0]:08x}"

pytestmark = pytest.mark.usefixtures("root", "own_network")


class Ear:
    """Listens for node2, as a device with these options would, beside who has the port."""

    def __init__(self, machine: Machine, folder: Path, auth: str, rings: tuple[str, ...]) -> None:
        self.listener = Listener({"node2": [NODE]}, port=0)
        self.to = ("127.0.0.1", self.listener.port)
        asked = AgentOptions()
        asked.ipport, asked.auth, asked.called = self.listener.port, auth, ("node2",)
        asked.names = () if rings else (NODE,)
        asked.key_file = str(folder / "key")
        its = Target("node2", "node1", rings, cast(Any, None), (), None, asked)
        self.messages = Messages(machine, its)

    def hears(self, kind: str, seconds: int = 10) -> Event:
        """The next event of that kind."""
        for _ in range(seconds):
            self.messages.wait(1.0)
            for one in self.messages.heard():
                if one.kind == kind:
                    return one
        pytest.fail(f"nothing was heard: {kind}")

    def close(self) -> None:
        self.messages.close()
        self.listener.close()


def say(ear: Ear, name: str = "node2", key: bytes = KEY, state: str = "dumping") -> None:
    """Send a signed message with the node's address."""
    signer = Signer(ear.to, name, key, NODE, state=state)
    signer.send()
    signer.sock.close()


@pytest.fixture(params=["none", "sha256"])
def auth(request: pytest.FixtureRequest) -> str:
    """What the device believes."""
    found: str = request.param
    return found


@pytest.fixture
def ear(tmp_path: Path, auth: str) -> Iterator[Ear]:
    (tmp_path / "key").write_text(key_text())
    (tmp_path / "key").chmod(0o600)
    with Sysroot(str(tmp_path)) as root:
        made = Ear(Machine(root), tmp_path, auth, ())
        yield made
        made.close()


def test_a_message_reaches_the_drill_and_whoever_has_the_port(ear: Ear) -> None:
    with udp(NODE) as sock:
        sock.sendto(OWN_MESSAGE, ear.to)
    found = ear.hears(HEARD)
    assert (found.where, found.text) == (NODE, "plain")
    assert [one.kind for one in ear.listener.events(10)] == ["began"]


def test_a_signed_message_is_told_from_a_plain_one(ear: Ear) -> None:
    say(ear)
    found = ear.hears(HEARD)
    assert (found.where, found.text) == (NODE, SIGNED)


@pytest.mark.parametrize("auth", ["none"], indirect=True)
@pytest.mark.parametrize(
    ("name", "key", "why"),
    [("node2", FOREIGN_KEY, "key id"), ("node3", KEY, "name")],
)
def test_a_signature_that_is_not_the_nodes_is_not_believed(
    ear: Ear, name: str, key: bytes, why: str
) -> None:
    say(ear, name, key)
    assert ear.hears(HEARD).text == f"signed with key {slot(key)[0]:08x}, not believed ({why})"


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_the_end_of_the_dump_is_heard(ear: Ear, state: str) -> None:
    say(ear, state=state)
    assert ear.hears(DUMPED).text == state


@pytest.mark.parametrize("auth", ["none"], indirect=True)
def test_a_stranger_is_named_and_not_taken_for_the_node(ear: Ear) -> None:
    with udp("127.0.0.7") as stranger, udp(NODE) as sock:
        stranger.sendto(OWN_MESSAGE, ear.to)
        sock.sendto(OWN_MESSAGE, ear.to)
    assert ear.hears(HEARD).where == NODE
    assert ear.messages.strangers == ["127.0.0.7"]


def test_the_addresses_of_its_rings_count_too(tmp_path: Path) -> None:
    with Sysroot(str(tmp_path)) as root:
        ear = Ear(Machine(root), tmp_path, "none", (NODE,))
        with udp(NODE) as sock:
            sock.sendto(OWN_MESSAGE, ear.to)
        assert ear.hears(HEARD).text == "plain"
        ear.close()


def test_without_raw_sockets_nothing_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> NoReturn:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(drill_messages, "Listening", refused)
    its = Target("node2", "node1", (), cast(Any, None), (), None, None)
    with Sysroot(str(tmp_path)) as root, pytest.raises(Unknown, match="raw socket: Operation not"):
        Messages(Machine(root), its)


def test_where_another_machine_listens_for_the_agent_nothing_is_to_be_heard_here(
    tmp_path: Path,
) -> None:
    asked = AgentOptions()
    asked.listener = "http://192.0.2.9:9742"
    its = Target("node2", "node1", (NODE,), cast(Any, None), (), None, asked)
    with (
        Sysroot(str(tmp_path)) as root,
        pytest.raises(Unknown, match=r"has http://192\.0\.2\.9:9742 listen, not this machine"),
    ):
        Messages(Machine(root), its)
