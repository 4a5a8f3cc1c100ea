# SPDX-License-Identifier: LGPL-2.1-or-later
"""The keys that messages have to be signed with: the cluster's.

What may not be in this file: how a key file looks (`kdumpfence.keys`), and what is signed.
"""

from __future__ import annotations

from kdumpfence import keys
from kdumpfence.text import shown

#: Whether messages have to be signed, and by what.
AUTHS = ("none", "sha256")


def read_keys(path: str) -> keys.Keys:
    """The keys in this file. ValueError with one line if they are not to be had."""
    try:
        return keys.read(path)
    except keys.KeyFileError as error:
        raise ValueError(str(error)) from None


def cluster_keys(found: keys.Keys, whence: str) -> list[tuple[int, bytes]]:
    """The cluster's keys with their ids; first what is signed with now.

    ValueError with one line, which begins with `whence`, if they are those of a node.
    """
    if found.node:
        raise ValueError(f"{whence}: of node {shown(found.node)} alone, must be the cluster's")
    return [slot for slot in (found.signs, found.accepts) if slot is not None]
