# SPDX-License-Identifier: GPL-2.0-or-later
"""The C compiler's flags: the one place where they stand.

    python3 src/native/build_flags.py compile|link

prints the core's, for packaging/files.mk; setup.py and build_sender.py import them.
"""

from __future__ import annotations

import sys
from pathlib import Path

#: Where Cython and the C compiler find "kdumpwire/...".
SOURCES = Path(__file__).resolve().parents[1]

COMPILE = [
    *("-ffunction-sections", "-fdata-sections"),
    # Errors since gcc 14; older compilers only warn. An undeclared function then links as an
    # undefined symbol, and the core fails to import on the user's machine.
    "-Werror=implicit-function-declaration",
    "-Werror=incompatible-pointer-types",
    "-Werror=int-conversion",
    # As distributions build it.
    *("-Wformat", "-Werror=format-security"),
]
LINK = ["-Wl,--gc-sections", "-Wl,-z,relro,-z,now"]

#: The core's, unless CFLAGS are given. It reads what strangers send, and runs as root.
CORE_DEFAULT = [
    *("-O2", "-g0", "-fstack-protector-strong"),
    *("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),
]
#: The native sender's, which has to be small: behind those that are given, so that they rule.
#: Vectorised, pairs of functions' addresses become constants, which all lie in one section: the
#: linker keeps that for one of them, and with it whatever the others name.
SENDER_COMPILE = [
    *("-Os", "-fno-tree-vectorize", "-fno-tree-slp-vectorize"),
    *("-fvisibility=hidden", "-fstack-protector-strong"),
    *("-fno-asynchronous-unwind-tables", "-fno-unwind-tables"),
]
SENDER_LINK = ["-s"]


if __name__ == "__main__":
    print(*{"compile": [*COMPILE, f"-I{SOURCES}"], "link": LINK}[sys.argv[1]])
