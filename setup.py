# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the compiled core; everything else stands in pyproject.toml.

KDUMPFENCE_COMPILE in the environment says what happens with it:
  auto (or unset)  compile it; if that fails, say so and install without it
  require          a failed compile is an error (what makes wheels sets this)
  no               do not try
KDUMPFENCE_LIMITED_API=1 builds against the limited C API (for measuring it).
"""

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CHOICES = ("auto", "require", "no")
CHOICE = os.environ.get("KDUMPFENCE_COMPILE") or "auto"
if CHOICE not in CHOICES:
    sys.exit(f"KDUMPFENCE_COMPILE={CHOICE!r}: not one of {', '.join(CHOICES)}")
LIMITED = os.environ.get("KDUMPFENCE_LIMITED_API") == "1"


def say(text: str) -> None:
    print(f"kdumpfence: {text}", file=sys.stderr, flush=True)


def without_core(why: object) -> None:
    say(f"the compiled core is NOT built ({why}): this will be a pure-Python install,")
    say("which works alike, but slower. KDUMPFENCE_COMPILE=require makes this an error.")


class BuildCore(build_ext):
    """build_ext that falls back to pure Python where it may."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            if CHOICE == "require":
                raise
            without_core(error)
            self.extensions = []


def extensions() -> list:
    if CHOICE == "no":
        say("KDUMPFENCE_COMPILE=no: pure-Python install, the compiled core is left out")
        return []
    macros = []
    if LIMITED:
        macros.append(("Py_LIMITED_API", "0x030B0000"))
    core = Extension(
        "kdumpfence._kdumpwire",
        ["src/_kdumpwire.pyx"],
        define_macros=macros,
        py_limited_api=LIMITED,
        extra_compile_args=["-O2", "-g0", "-ffunction-sections", "-fdata-sections"],
        extra_link_args=["-Wl,--gc-sections"],
    )
    try:
        from Cython.Build import cythonize

        return cythonize([core], build_dir="build/cython", force=LIMITED)
    except Exception as error:
        if CHOICE == "require":
            raise
        without_core(error)
        return []


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
)
