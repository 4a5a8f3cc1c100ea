# SPDX-License-Identifier: LGPL-2.1-or-later
"""Gives up every capability for good, and looks whether that is so.

For a daemon that was started as root without a service manager that takes them away. Only of
the calling thread and of what it starts afterwards: it has to be done before there are threads.
"""

from __future__ import annotations

import ctypes
import os
import struct

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
#: Of capset(2); with it go two times three words.
_VERSION_3 = 0x20080522
#: The kernel says EINVAL for a capability that it does not know.
_MOST_CAPABILITIES = 64

_STATUS = "/proc/thread-self/status"


class PrivilegesError(Exception):
    """Capabilities that cannot be given up; one line says which."""


def drop() -> None:
    """Give up all capabilities, and the ways to get new ones. Raises PrivilegesError.

    The rights of the user remain: root still may write to what belongs to root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    # Only with CAP_SETPCAP; without it, what follows is enough.
    for capability in range(_MOST_CAPABILITIES):
        if prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.capset(struct.pack("=Ii", _VERSION_3, 0), bytes(2 * 3 * 4))
    left = remaining()
    if left:
        raise PrivilegesError(f"cannot drop capabilities: {', '.join(left)}")


def remaining() -> list[str]:
    """What the calling thread still has, by the names of /proc: [] if it is nothing."""
    try:
        with open(_STATUS, encoding="ascii", errors="replace") as file:
            lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError as error:
        return [f"unknown ({_STATUS}: {os.strerror(error.errno or 0)})"]
    sets = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    left = [f"{name} {lines[name].strip()}" for name in sets if int(lines.get(name, "0"), 16)]
    if lines.get("NoNewPrivs", "").strip() != "1":
        left.append("could regain them by executing a program (NoNewPrivs is 0)")
    return left
