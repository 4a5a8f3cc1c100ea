# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the native sender is: `fence_kdump_send` as a program that needs no Python.

It is built from the compiled core's own source when the package is built, for crash
kernels; docs/building.md says how, and how to build it alone.
"""

from __future__ import annotations

import os

from kdumpfence.install import InstallError
from kdumpfence.install.layouts import SENDER, Layout
from kdumpfence.install.sysroot import Sysroot

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_native")
#: What one says that was built without cryptography, and no other has in it.
CANNOT_SIGN = b"this build cannot sign"
NAMES = {False: "fence_kdump_send", True: "fence_kdump_send.static"}


def is_static(root: Sysroot, layout: Layout) -> bool:
    """Whether the sender that was installed below this root for a layout is the static one."""
    place = next(item.path for item in layout.items if item.source == SENDER)
    return b"/ld-" not in (root.read(place) or b"/ld-")


class NotBuilt(InstallError):
    """The installation has no such program; the text says how to get one."""


def find(static: bool = False) -> str:
    """The path of the native sender, or of the one that needs no libc either.

    Raises NotBuilt.
    """
    path = os.path.join(FOLDER, NAMES[static])
    if not os.access(path, os.X_OK):
        which = "static native sender" if static else "native sender"
        raise NotBuilt(
            f"this installation has no {which} ({path}): build it with `make native` in the "
            "source, or install the package where a C compiler is"
        )
    return path
