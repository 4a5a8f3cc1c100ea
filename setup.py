# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the compiled core and the native sender; everything else stands in pyproject.toml.

KDUMPFENCE_COMPILE in the environment says what happens with them:
  auto (or unset)  compile it; if that fails, say so and install without it
  require          a failed compile is an error (what makes wheels sets this)
  no               do not try
KDUMPFENCE_STATIC says the same (auto, require, no) of the static variant of the native sender,
which is left out without a static libc. KDUMPFENCE_SIGNING: src/native/build_flags.py.
KDUMPFENCE_LIMITED_API=1 builds against the limited C API, for measuring it (docs/building.md).

CFLAGS in the environment take the place of the optimisation flags, as packagers expect.
"""

from __future__ import annotations

import os
import shutil
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

sys.path.insert(0, str(Path(__file__).resolve().parent / "src" / "native"))
from build_flags import COMPILE, CORE_DEFAULT, LINK, BuildError, choice, signing
from build_sender import build

try:
    CHOICE = choice("KDUMPFENCE_COMPILE")
    STATIC = choice("KDUMPFENCE_STATIC")
    choice("KDUMPFENCE_SIGNING")
except BuildError as error:
    sys.exit(str(error))
LIMITED = os.environ.get("KDUMPFENCE_LIMITED_API", "0") not in ("", "0")


def say(text: str) -> None:
    print(f"kdumpfence: {text}", file=sys.stderr, flush=True)


def failed(why: Exception, what: str = "the compiled core") -> None:
    """Go on without what is built here, unless it is required."""
    if CHOICE == "require":
        raise SystemExit(
            f"kdumpfence: {what} could not be built: {why}\n"
            "kdumpfence: it needs Cython, a C compiler, and the headers of Python and Linux;"
            " without KDUMPFENCE_COMPILE=require the install goes on in plain Python"
        ) from why
    if what != "the compiled core":
        say(f"{what} is NOT built ({why}). KDUMPFENCE_COMPILE=require makes this an error.")
        return
    say(f"the compiled core is NOT built ({why}): this will be a pure-Python install,")
    say("which does the same, but slower. KDUMPFENCE_COMPILE=require makes this an error.")


class BuildCore(build_ext):
    """build_ext that falls back to plain Python where it may."""

    def run(self) -> None:
        try:
            if self.extensions:
                self._sign()
            super().run()
        except Exception as error:
            failed(error)
            # Neither an older build's core nor the tag of a compiled wheel may be left.
            for extension in self.extensions:
                core = Path(self.get_ext_fullpath(extension.name))
                core.unlink(missing_ok=True)
                shutil.rmtree(core.parent / "_native", ignore_errors=True)
            self.extensions = []
            self.distribution.ext_modules = None
            wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
            if wheel is not None:
                vars(wheel)["root_is_pure"] = True
            return
        if self.extensions:
            package = Path(self.get_ext_fullpath(self.extensions[0].name)).parent
            build_native(package / "_native")

    def _sign(self) -> None:
        try:
            signs = signing()
        except BuildError as error:
            sys.exit(f"kdumpfence: {error}")
        for extension in self.extensions:
            extension.extra_compile_args = [*extension.extra_compile_args, *signs.compile]
            extension.extra_link_args = [*extension.extra_link_args, *signs.link]


def build_native(folder: Path) -> None:
    """The native sender, a program beside the modules."""
    try:
        for line in build(folder, STATIC):
            say(line)
    except (BuildError, OSError) as error:
        failed(error, "the native sender")


class MakeSdist(sdist):
    """sdist without bytecode. An exclusion in MANIFEST.in warns where there is none."""

    def make_distribution(self) -> None:
        files = self.filelist.files
        files[:] = [name for name in files if not name.endswith((".pyc", ".so"))]
        super().make_distribution()


def extensions() -> list[Extension]:
    if CHOICE == "no":
        say("KDUMPFENCE_COMPILE=no: pure-Python install, the compiled core is left out")
        return []
    macros: list[tuple[str, str | None]] = []
    if LIMITED:
        # 3.11 is the first whose limited API has Py_buffer.
        macros += [("Py_LIMITED_API", "0x030B0000"), ("PyBytes_AS_STRING", "PyBytes_AsString")]
    core = Extension(
        "kdumpfence._kdumpwire",
        ["src/_kdumpwire.pyx"],
        depends=["setup.py", "src/native/build_flags.py", *glob("src/kdumpwire/*.h")],
        include_dirs=["src"],
        define_macros=macros,
        py_limited_api=LIMITED,
        extra_compile_args=COMPILE if "CFLAGS" in os.environ else [*COMPILE, *CORE_DEFAULT],
        extra_link_args=LINK,
    )
    try:
        from Cython.Build import cythonize

        modules: list[Extension] = cythonize(  # type: ignore[no-untyped-call]
            [core], build_dir="build/cython"
        )
        return modules
    except Exception as error:
        failed(error)
        return []


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildCore, "sdist": MakeSdist},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
)
