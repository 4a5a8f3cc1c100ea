# SPDX-License-Identifier: LGPL-2.1-or-later
"""The C compiler's flags: the one place where they stand.

    python3 src/native/build_flags.py compile|link|signing

prints the core's, for packaging/files.mk, and whether it signs; setup.py and build_sender.py import
them.

Core and sender sign with BearSSL's static library. KDUMPFENCE_SIGNING in the environment says what
happens where there is none:
  auto (or unset)  leave it out: the core signs with Python's hmac, the native sender not at all
  require          that is an error (what makes packages and wheels sets this)
  no               do not look for it
KDUMPFENCE_BEARSSL names the folder of its sources in which it was made, with inc/ and
build/libbearssl.a, in the place of what the compiler finds.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
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

CHOICES = ("auto", "require", "no")

_USES_BEARSSL = """
#include <kdumpwire/mac.h>
extern MacKey key;
MacKey key;
void sign(const uint8_t *data, uint8_t *out);
void sign(const uint8_t *data, uint8_t *out)
{
    mac_prepare(&key, data, 32);
    mac_by(&key, data, 120, out);
}
"""


class BuildError(Exception):
    """What cannot be built; what is missing and where it is to be had."""


class Signing:
    """What signs: flags for compiler and linker, and in `said` one line about it.

    `library` is its path; "" if nothing signs.
    """

    def __init__(self, library: str = "", headers: str = "", said: str = "") -> None:
        self.library = library
        self.compile = ["-DKDUMPFENCE_SIGNING"] if library else []
        if headers:
            self.compile.append(f"-I{headers}")
        # The core's BearSSL is nobody else's.
        self.link = [library, "-Wl,--exclude-libs,libbearssl.a"] if library else []
        self.said = said


def choice(name: str) -> str:
    """What a switch in the environment says. Raises BuildError."""
    value = os.environ.get(name) or "auto"
    if value not in CHOICES:
        raise BuildError(f"{name}={value!r}: not one of {', '.join(CHOICES)}")
    return value


def signing() -> Signing:
    """What is to sign in this build. Raises BuildError."""
    chosen = choice("KDUMPFENCE_SIGNING")
    if chosen == "no":
        return Signing(said="KDUMPFENCE_SIGNING=no: the native sender cannot sign")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    folder = os.environ.get("KDUMPFENCE_BEARSSL", "")
    try:
        if folder:
            found = Signing(str(Path(folder, "build/libbearssl.a").resolve()), f"{folder}/inc")
        else:
            # The name alone, if it is nowhere.
            found = Signing(_said_by([*compiler, "-print-file-name=libbearssl.a"]).strip())
        _try(compiler, found)
    except BuildError as error:
        if chosen == "require":
            raise BuildError(
                "KDUMPFENCE_SIGNING=require: BearSSL is missing, on Debian it is in libbearssl-dev "
                f"({_gist(str(error))})"
            ) from None
        return Signing(
            said="no BearSSL (Debian: libbearssl-dev): the native sender is built without signing"
        )
    found.said = f"signs with {found.library}"
    return found


def _gist(said: str) -> str:
    """The line of a compiler's that tells most."""
    lines = said.strip().splitlines()
    return next((line for line in lines if "error: " in line or "cannot find" in line), lines[-1])


def _said_by(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise BuildError(done.stderr or f"{command[0]}: status {done.returncode}")
    return done.stdout


def _try(compiler: list[str], found: Signing) -> None:
    """Link it as the core will be: its code may not be fit for that."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "sign.c")
        source.write_text(_USES_BEARSSL)
        _said_by([
            *(*compiler, f"-I{SOURCES}", *found.compile, "-fPIC", "-shared", "-Wl,-z,defs"),
            *(str(source), *found.link, "-o", str(source.with_suffix(".so"))),
        ])  # fmt: skip


def main(what: str) -> None:
    """Print what was asked for."""
    try:
        signs = signing()
    except BuildError as error:
        sys.exit(f"kdumpfence: {error}")
    if what == "compile":
        print(*COMPILE, f"-I{SOURCES}", *signs.compile)
    elif what == "link":
        print(*signs.link, *LINK)
    else:
        print(signs.said)


if __name__ == "__main__":
    main(sys.argv[1])
