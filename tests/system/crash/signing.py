# SPDX-License-Identifier: LGPL-2.1-or-later
"""The node's name, keys for it, and agents that believe what is signed with them alone.

The files are written from docs/protocol.md: nothing is taken from the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.packets import key_id, node_key
from tests.system.crash.harness import Outcome

#: What the cluster calls the node; its host name is another.
NAME = "crashing-node"

#: Of this cluster, and of another.
CLUSTER_KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))

#: Where a node's key is in a crash image.
NODE_KEY = "/etc/kdumpfence/node-key"


def cluster_file(file: Path, cluster_key: bytes = CLUSTER_KEY) -> Path:
    """Write a cluster's key file."""
    file.touch(0o600)
    file.write_text(f"signs {key_id(cluster_key):08x} {cluster_key.hex()}\n")
    return file


def node_file() -> str:
    """What is in the node's key file."""
    own = node_key(CLUSTER_KEY, NAME).hex()
    return f"node {NAME}\nsigns {key_id(CLUSTER_KEY):08x} {own}\n"


def read_key(file: Path) -> bytes:
    """The key that a key file has to sign with."""
    (signs,) = (line for line in file.read_text().splitlines() if line.startswith("signs "))
    return bytes.fromhex(signs.split()[2])


def demanding(agent: Sequence[str], key_file: Path) -> list[str]:
    """Let this agent, which is given the node's addresses, believe signed answers alone."""
    return [*agent, f"--plug={NAME}", "--auth=sha256", f"--key-file={key_file}"]


def check_yes(outcome: Outcome, cluster_key: bytes, *addresses: str) -> None:
    """Check the same as Outcome.check_yes(), and that it was the node's signature that counted."""
    outcome.check_yes(*addresses)
    grades = [
        f"received signed answer of '{NAME}' from {address}, key {key_id(cluster_key):08x}"
        for address in addresses
    ]
    assert any(grade in outcome.agent.text for grade in grades), str(outcome)
