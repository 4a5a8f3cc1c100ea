# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the native sender: `fence_kdump_send`, and `fence_kdump_send.static` without libc.

    python3 src/native/build_sender.py FOLDER [--static auto|require|no]

What signs in it build_flags.py decides.

Needs Cython 3 (as a module of this Python, or `cython3` or `cython` on the PATH), the
headers of a Python, which Cython's output is compiled with, and a C compiler. The static one
is made with musl-gcc if there is one ($MUSL_CC names another), else with the compiler's own
static libc and then understands addresses only. CC, CFLAGS and LDFLAGS are honoured, but
for what CFLAGS say of optimisation.

How it comes to be without Python: it is compiled with each function in a section of its own, and
the linker throws away what cannot be reached from main().
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from build_flags import (
    COMPILE,
    LINK,
    SENDER_COMPILE,
    SENDER_LINK,
    SOURCES,
    BuildError,
    Signing,
    signing,
)

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "fence_kdump_send.pyx"
MAIN = HERE / "main.c"
MUSL = HERE / "musl.c"
VERSION = SOURCES / "kdumpfence" / "_version.py"

DYNAMIC = "fence_kdump_send"
STATIC = "fence_kdump_send.static"

#: With what in CFLAGS the linker could not throw anything away, or would keep names.
HARMFUL = ("-flto", "-g", "-pg", "--coverage", "-fprofile")


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BuildError(f"{shlex.join(command)} failed:\n{said}")
    return done.stdout + done.stderr


def _cythons() -> Iterator[list[str]]:
    yield [sys.executable, "-m", "cython"]
    for name in ("cython3", "cython"):
        if shutil.which(name):
            yield [name]


def translate(folder: Path, source: Path = SOURCE) -> Path:
    """Cython's C file in that folder. Raises BuildError."""
    result = folder / f"{source.stem}.c"
    for cython in _cythons():
        try:
            found = re.search(r"(\d+)\.\d", _run([*cython, "--version"]))
        except BuildError:
            continue
        if found and int(found[1]) >= 3:
            _run([*cython, "-3", "-I", str(SOURCES), str(source), "-o", str(result)])
            return result
    raise BuildError("Cython 3 is missing: pip install cython")


def _flags() -> list[str]:
    given = shlex.split(os.environ.get("CFLAGS", ""))
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        raise BuildError(
            f"{include}/Python.h is missing: it is in python3-dev on Debian, elsewhere in "
            "python3-devel"
        )
    match = re.search(r'__version__ = "(.+)"', VERSION.read_text())
    version = match[1] if match else "unknown"
    return [
        *COMPILE,
        *(flag for flag in given if not flag.startswith(HARMFUL)),
        *SENDER_COMPILE,
        *(f"-I{path}" for path in (SOURCES, include, sysconfig.get_path("platinclude"))),
        f'-DKDUMPFENCE_VERSION="{version}"',
    ]


def _make(
    compiler: list[str],
    source: Path,
    program: Path,
    signs: Signing,
    compile_: list[str],
    *link: str | Path,
) -> None:
    built = source.with_name(program.name)
    object_ = str(built) + ".o"
    _run([*compiler, *_flags(), *signs.compile, *compile_, "-c", str(source), "-o", object_])
    ldflags = shlex.split(os.environ.get("LDFLAGS", ""))
    _run([*compiler, *COMPILE, *SENDER_COMPILE, *compile_, str(MAIN), object_, *signs.link, *LINK,
          *SENDER_LINK, *ldflags, *map(str, link), "-pthread", "-o", str(built)])  # fmt: skip
    program.parent.mkdir(parents=True, exist_ok=True)
    fresh = program.with_name(program.name + ".new")
    shutil.copy(built, fresh)
    fresh.replace(program)  # the old one may be running


def build_dynamic(source: Path, program: Path, signs: Signing) -> None:
    """The program that needs libc. Raises BuildError."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    _make(compiler, source, program, signs, ["-fPIE"], "-pie")


def build_static(source: Path, program: Path, signs: Signing) -> str:
    """The program that needs nothing; which libc is in it. Raises BuildError."""
    musl = shlex.split(os.environ.get("MUSL_CC") or "musl-gcc")
    if shutil.which(musl[0]):
        # musl has no headers of Linux; those of the other libc come last.
        triplet = sysconfig.get_config_var("MULTIARCH") or ""
        headers = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{triplet}"]
        _make(musl, source, program, signs, ["-fno-pie", *headers], MUSL, "-static")
        return "musl"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    _make(compiler, source, program, signs, ["-fno-pie", "-DKDUMPFENCE_NUMERIC"], "-static")
    return "the C compiler's own libc, understands addresses only"


def build(folder: Path, static: str = "auto") -> list[str]:
    """Both programs, into that folder; what is to be told. `static`: auto, require, no.

    Raises BuildError.
    """
    signs = signing()
    with tempfile.TemporaryDirectory() as scratch:
        source = translate(Path(scratch))
        build_dynamic(source, folder / DYNAMIC, signs)
        size = (folder / DYNAMIC).stat().st_size
        said = [signs.said, f"{folder / DYNAMIC}: {size} bytes"]
        program = folder / STATIC
        if static == "no":
            program.unlink(missing_ok=True)
            return said
        try:
            libc = build_static(source, program, signs)
            said.append(f"{program}: {program.stat().st_size} bytes, with {libc}")
        except BuildError as error:
            if static == "require":
                raise
            program.unlink(missing_ok=True)
            reason = str(error).splitlines()[-1]
            said.append(f"no {program.name}: neither musl-gcc nor a static libc ({reason})")
        return said


def main() -> int:
    """0, or 1 and why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--static", choices=["auto", "require", "no"], default="auto")
    arguments = parser.parse_args()
    try:
        print("\n".join(build(arguments.folder, arguments.static)))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
