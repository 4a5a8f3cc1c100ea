# SPDX-License-Identifier: LGPL-2.1-or-later
"""The forms of the sender, keys for it, and what it sends, as packets."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.keys import Keys, key_id, node_key
from kdumpfence.wire import Packet, decode_packet
from tests.conftest import CORES, load_core, udp
from tests.support.programs import FORMS, environment, sender

CLUSTER_KEY = bytes(range(32))
KEY_ID = key_id(CLUSTER_KEY)
CLUSTER_KEYS = Keys((KEY_ID, CLUSTER_KEY))


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Each form of the sender that sends packets."""
    if request.param in CORES:
        load_core(request.param)
    return str(request.param)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A node's."""
    with udp("127.0.0.1") as listening:
        listening.settimeout(20)
        yield listening


@pytest.fixture
def port(sock: socket.socket) -> str:
    return str(sock.getsockname()[1])


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    """The key of node1."""
    keys = CLUSTER_KEYS.of("node1")
    assert keys is not None
    return written(tmp_path, keys.text())


def written(folder: Path, text: str | bytes, mode: int = 0o600) -> str:
    """A key file with this text."""
    path = folder / "key"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return str(path)


def key_of(node: str) -> bytes:
    return node_key(CLUSTER_KEY, node)


def run(form: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """The sender in this form, to its end."""
    return subprocess.run(
        [sender(form), *argv],
        env=environment(form),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def packet_of(data: bytes) -> Packet:
    packet = decode_packet(data)
    assert packet is not None, data
    return packet
