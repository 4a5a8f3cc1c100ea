# SPDX-License-Identifier: GPL-2.0-or-later
"""The node's name, keys for it, and agents that believe what is signed with them alone.

The files are written from docs/protocol.md: nothing is taken from the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.packets import key_id, node_key

#: What the cluster calls the node; its host name is another.
NAME = "crashing-node"

#: Of this cluster, and of another.
CLUSTER_KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))

KEY_ID = f"{key_id(CLUSTER_KEY):08x}"

#: Where a node's key is in a crash image.
NODE_KEY = "/etc/kdumpfence/node-key"


def cluster_file(file: Path, cluster_key: bytes = CLUSTER_KEY) -> Path:
    """Write a cluster's key file."""
    file.touch(0o600)
    file.write_text(f"signs {key_id(cluster_key):08x} {cluster_key.hex()}\n")
    return file


def node_file() -> str:
    """What is in the node's key file."""
    return f"node {NAME}\nsigns {KEY_ID} {node_key(CLUSTER_KEY, NAME).hex()}\n"


def demanding(agent: Sequence[str], key_file: Path) -> list[str]:
    """Let this agent, which is given the node's addresses, believe signed answers alone."""
    return [*agent, f"--plug={NAME}", "--auth=sha256", f"--key-file={key_file}"]
