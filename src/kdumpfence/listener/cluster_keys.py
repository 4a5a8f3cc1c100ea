# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys that messages have to be signed with, from the cluster's key file.

What may not be in this file: how a key file looks (`kdumpfence.keys`), and what is signed.
"""

from __future__ import annotations

from kdumpfence import keys
from kdumpfence.text import shown

#: Whether messages have to be signed, and by what.
AUTHS = ("none", "sha256")


def cluster_keys(path: str) -> list[tuple[int, bytes]]:
    """The keys in this file, with their ids; first what is signed with now.

    ValueError with one line if they are not to be had.
    """
    try:
        found = keys.read(path)
    except keys.KeyFileError as error:
        raise ValueError(str(error)) from None
    if found.node:
        raise ValueError(
            f"key file {shown(path)}: of node {shown(found.node)} alone, must be the cluster's"
        )
    return [slot for slot in (found.signs, found.accepts) if slot is not None]
