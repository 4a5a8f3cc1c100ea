# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's key: from the service manager, which can read it, or from its file.

The daemon's user may read no key file. So systemd reads it for the unit, and passes it as a
credential (systemd.exec(5)). What may not be in this file: what is signed, and what is in a key
file (`keys`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from kdumpfence import keys
from kdumpfence.text import shown

#: The credential's name, and what it is where there is no key file.
CREDENTIAL, NONE = "key", "none"


def of_node(
    path: str, node: str, cluster: keys.Keys | None = None
) -> tuple[keys.Keys | None, str, str]:
    """The keys of this node, or None; and a level of the log and words that say what they are.

    `cluster`: the cluster's keys if there are some already.
    """
    try:
        found = cluster or load(path)
        if found is None:
            return None, "info", f"not signed: no key file {path}"
        its = found.of(node)
        if its is None:
            raise keys.KeyFileError(f"the key is that of node '{found.node}'")
        return its, "info", f"signed with key {its.signs[0]:08x}"
    except keys.KeyFileError as error:
        return None, "warning", f"not signed: {error}"


def of_cluster(path: str) -> keys.Keys:
    """The cluster's keys. keys.KeyFileError with one line if they are not to be had."""
    found, whence = _load(path, os.environ)
    if found is None:
        found = keys.read(path)  # which says how to make one
    if found.node:
        raise keys.KeyFileError(
            f"{whence}: of node {shown(found.node)} alone, must be the cluster's"
        )
    return found


def load(path: str, environment: Mapping[str, str] = os.environ) -> keys.Keys | None:
    """The keys that there are; None if there is no file at the usual place.

    `path` counts if the service manager has passed none. keys.KeyFileError with one line if there
    ought to be keys that cannot be had.
    """
    return _load(path, environment)[0]


def _load(path: str, environment: Mapping[str, str]) -> tuple[keys.Keys | None, str]:
    """See `load`; and where they come from, for people."""
    passed = _credential(environment.get("CREDENTIALS_DIRECTORY", ""))
    if passed not in ("", NONE):
        whence = "key passed by the service manager"
        try:
            return keys.parse(passed), whence
        except keys.KeyFileError as error:
            raise keys.KeyFileError(f"{whence}: {error}") from None
    whence = f"key file {shown(path)}"
    if path == keys.DEFAULT_PATH and not os.path.exists(path):
        return None, whence
    try:
        return keys.read(path), whence
    except keys.KeyFileError as error:
        again = "; systemd reads it when the daemon is restarted" if passed == NONE else ""
        raise keys.KeyFileError(f"{error}{again}") from None


def _credential(folder: str) -> str:
    """What was passed; "" if there is nothing. Whose it is and who may read it is systemd's."""
    if not folder:
        return ""
    try:
        with open(os.path.join(folder, CREDENTIAL), encoding="ascii", errors="replace") as file:
            return file.read(keys.MOST_BYTES).strip()
    except OSError:
        return ""
