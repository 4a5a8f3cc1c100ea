#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run the fuzz targets for a while, each in a process of its own; fail if one finds something.

    python fuzz/run.py --seconds 20

Needs atheris (the extra "fuzz"). With Cython and a C compiler the compiled core is built twice
more: with coverage, so that it guides the search as the pure one does, and with
AddressSanitizer, under which all inputs that the search came upon are run once more. (Not at
once: the sanitizer takes libFuzzer's place as the one who is told of coverage.) Without them the
installed core is compared with, and only the pure one guides.

The target "kernel" needs a kernel that runs programs for us (root, or CAP_BPF): where it does not,
that target is left out, which is said, and with CI=true, or if it was asked for, is an error.

One input is run again with `python fuzz/target_NAME.py FILE`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "src"
#: And how long their inputs get, in bytes: what happens, happens to short ones.
TARGETS = {"codec": 64, "packets": 160, "sources": 192, "stdin": 256, "argv": 128, "kernel": 160}
#: Those that run the compiled core.
OF_THE_CORE = ("codec", "packets", "sources")

COVERAGE = ("-fno-builtin-memcmp", "-fsanitize-coverage=trace-pc")
UNDEFINED = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
ADDRESS = ("-fsanitize=address",)

Environment = dict[str, str]


def run(*command: object) -> str:
    """What the command prints; CalledProcessError if it fails."""
    ran = subprocess.run(
        [str(word) for word in command],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return ran.stdout.strip()


def build_cores(folder: Path) -> tuple[Environment, Environment]:
    """The compiled core with coverage, and with AddressSanitizer: what each needs to be used.

    Raises OSError, ValueError or SubprocessError.
    """
    compiler = os.environ.get("CC") or "cc"
    sys.path.insert(0, str(SOURCES / "native"))
    signs: Any = import_module("build_flags").signing()
    source = folder / "core.c"
    includes = (f"-I{SOURCES}", f"-I{sysconfig.get_paths()['include']}")
    flags = ("-O1", "-g", "-fPIC", *includes, *signs.compile, *UNDEFINED)
    guiding, checked = folder / "guiding.so", folder / "checked.so"
    run(sys.executable, "-m", "cython", SOURCES / "_kdumpwire.pyx", "--module-name",
        "kdumpfence._kdumpwire", "-o", source)  # fmt: skip
    run(compiler, *flags, *COVERAGE, "-c", source, "-o", folder / "core.o")
    run(compiler, "-O2", "-fPIC", "-c", HERE / "native.c", "-o", folder / "native.o")
    run(compiler, "-shared", "-Wl,--wrap=memcmp", folder / "core.o", folder / "native.o",
        *signs.link, "-ldl", "-o", guiding)  # fmt: skip
    run(compiler, *flags, *ADDRESS, "-shared", source, *signs.link, "-o", checked)
    atheris = find_spec("atheris")
    folders = list(atheris.submodule_search_locations or ()) if atheris else []
    [libfuzzer] = [str(p) for f in folders for p in Path(f).glob("core_with_libfuzzer*.so")]
    return {
        "KDUMPFENCE_FUZZ_NATIVE": str(guiding),
        "KDUMPFENCE_FUZZ_LIBFUZZER": libfuzzer,
    }, {
        "KDUMPFENCE_FUZZ_NATIVE": str(checked),
        "LD_PRELOAD": run(compiler, "-print-file-name=libasan.so"),
        "ASAN_OPTIONS": "detect_leaks=0",
    }


class Run:
    """One target at work."""

    def __init__(self, target: str, how: str, folder: Path, environment: Environment) -> None:
        self.target = target
        self.findings = folder / f"{target}-findings"
        self.log = folder / f"{target}.log"
        #: What the search comes upon.
        self.corpus = folder / f"{target}-corpus"
        self.findings.mkdir(exist_ok=True)
        self.corpus.mkdir(exist_ok=True)
        tokens = HERE / f"{target}.dict"
        command = [
            sys.executable,
            str(HERE / f"target_{target}.py"),
            how,
            f"-max_len={TARGETS[target]}",
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            f"-artifact_prefix={self.findings}/",
            *([f"-dict={tokens}"] if tokens.exists() else []),
            str(self.corpus),
            str(HERE / "corpus" / target),
        ]
        self.began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    def result(self, patience: float, remark: str = "") -> bool:
        """Wait for the end and tell it; whether nothing was found."""
        try:
            status = self.process.wait(max(1.0, self.began + patience - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        took = time.monotonic() - self.began
        log = self.log.read_text(errors="replace")
        done = re.findall(r"number_of_executed_units: (\d+)", log) or ["no"]
        coverage = re.findall(r" cov: (\d+)", log) or ["0"]
        good = status == 0 and done[0] != "no"
        print(
            f"{self.target}: {'nothing found' if good else 'FINDING'} in {done[0]} executions, "
            f"{took:.0f} s{remark or f', {coverage[-1]} edges covered'}",
            flush=True,
        )
        if not good:
            print(f"--- exit status {status}; what it said:")
            lines = [line for line in log.splitlines() if not re.match(r"#\d+\s", line)]
            says = re.compile(r"ERROR: |Uncaught Python exception|Traceback")
            begins = [number for number, line in enumerate(lines) if says.search(line)]
            start = begins[0] if begins else -40
            print("\n".join(line[:500] for line in lines[start:][:40]))
            for found in sorted(self.findings.iterdir()):
                print(f"--- {found.name}: {found.read_bytes()!r}")
        return good


def fuzz(targets: list[str], seconds: int, folder: Path, build: bool) -> bool:
    """Whether nothing was found."""
    guiding: Environment = {}
    checked: Environment = {}
    why_not = "as asked for"
    if build:
        try:
            guiding, checked = build_cores(folder)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            why_not = f"{error}\n{getattr(error, 'stderr', '')}"
    if guiding:
        print("compiled core: built with coverage, and with AddressSanitizer", flush=True)
    else:
        print(f"compiled core: the installed one, without coverage: {why_not}", flush=True)
    runs = [
        Run(
            target,
            f"-max_total_time={seconds}",
            folder,
            guiding if target in OF_THE_CORE else {},
        )
        for target in targets
    ]
    # All of them are waited for, whatever the first says.
    good = [one.result(2 * seconds + 60) for one in runs]
    if checked:
        again = [
            Run(target, "-runs=0", folder, checked) for target in targets if target in OF_THE_CORE
        ]
        good += [one.result(300, ", once more under AddressSanitizer") for one in again]
    return all(good)


def kernel_refuses() -> str:
    """Why the target "kernel" cannot run here; "" if it can."""
    sys.path.insert(0, str(HERE.parent))
    program: Any = import_module("tests.support.kernel_program")
    why: str = program.why_not()
    return why


def main() -> int:
    """0 = nothing found, 1 = something was, 2 = cannot run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=int, default=20, help="for each target (default: 20)")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one")
    parser.add_argument("--installed", action="store_true", help="build no cores for the run")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave corpora, findings, logs")
    arguments = parser.parse_args()
    if find_spec("atheris") is None:
        print("fuzzing needs atheris: pip install 'kdumpfence[fuzz]'", file=sys.stderr)
        return 2
    targets = arguments.target or list(TARGETS)
    if "kernel" in targets and (why := kernel_refuses()):
        print(f"kernel: left out: {why}", file=sys.stderr)
        if arguments.target or os.environ.get("CI") == "true":
            return 2
        targets.remove("kernel")
    folder = Path(tempfile.mkdtemp(prefix="kdumpfence-fuzz-", dir=arguments.keep))
    try:
        return 0 if fuzz(targets, arguments.seconds, folder, not arguments.installed) else 1
    finally:
        if arguments.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
