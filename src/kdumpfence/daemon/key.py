# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's key: from the service manager, which can read it, or from its file.

The daemon's user may read no key file. So systemd reads it for the unit, and passes it as a
credential (systemd.exec(5)). What may not be in this file: what is signed, and what is in a key
file (`keys`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from kdumpfence import keys

#: The credential's name, and what it is where there is no key file.
CREDENTIAL, NONE = "key", "none"


def of_node(path: str, node: str) -> tuple[keys.Keys | None, str, str]:
    """The keys of this node, or None; and a level of the log and words that say what they are."""
    try:
        found = load(path)
        if found is None:
            return None, "info", f"not signed: no key file {path}"
        its = found.of(node)
        if its is None:
            raise keys.KeyFileError(f"the key is that of node '{found.node}'")
        return its, "info", f"signed with key {its.signs[0]:08x}"
    except keys.KeyFileError as error:
        return None, "warning", f"not signed: {error}"


def load(path: str, environment: Mapping[str, str] = os.environ) -> keys.Keys | None:
    """The keys that there are; None if there is no file at the usual place.

    `path` counts if the service manager has passed none. keys.KeyFileError with one line if there
    ought to be keys that cannot be had.
    """
    passed = _credential(environment.get("CREDENTIALS_DIRECTORY", ""))
    if passed not in ("", NONE):
        try:
            return keys.parse(passed)
        except keys.KeyFileError as error:
            raise keys.KeyFileError(f"key passed by the service manager: {error}") from None
    if path == keys.DEFAULT_PATH and not os.path.exists(path):
        return None
    try:
        return keys.read(path)
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
