#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the fuzz targets for a while, each in a process of its own; fail if one finds something.

    python fuzz/run.py --seconds 20

Needs atheris (the extra "fuzz"). With Cython and a C compiler the compiled core is built
once more, with coverage and with the sanitizers for addresses and undefined behaviour;
without them the installed one is compared with, and only the pure core guides the search.

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
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORE = HERE.parent / "src" / "_kdumpwire.pyx"
#: And how long their inputs get, in bytes: what happens, happens to short ones.
TARGETS = {"codec": 64, "sources": 192, "stdin": 256, "argv": 128}
COVERAGE = "-fsanitize-coverage=trace-pc"
SANITIZERS = "-fsanitize=address,undefined"


def build_core(folder: Path) -> dict[str, str]:
    """The compiled core with coverage and sanitizers; the environment that it needs.

    Raises OSError or CalledProcessError.
    """
    compiler = os.environ.get("CC") or "cc"
    source, module = folder / "core.c", folder / "_kdumpwire.so"

    def run(*command: object) -> str:
        words = [str(word) for word in command]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    run(sys.executable, "-m", "cython", CORE, "--module-name", "kdumpfence._kdumpwire",
        "-o", source)  # fmt: skip
    include = sysconfig.get_paths()["include"]
    run(compiler, "-O1", "-g", "-fPIC", "-fno-builtin-memcmp", COVERAGE, SANITIZERS,
        "-fsanitize-undefined-trap-on-error", f"-I{include}", "-c", source,
        "-o", folder / "core.o")  # fmt: skip
    run(compiler, "-O2", "-fPIC", "-c", HERE / "native.c", "-o", folder / "native.o")
    run(compiler, "-shared", SANITIZERS, "-Wl,--wrap=memcmp", folder / "core.o",
        folder / "native.o", "-ldl", "-o", module)  # fmt: skip
    atheris = find_spec("atheris")
    folders = list(atheris.submodule_search_locations or ()) if atheris else []
    [libfuzzer] = [str(p) for f in folders for p in Path(f).glob("core_with_libfuzzer*.so")]
    return {
        "KDUMPFENCE_FUZZ_NATIVE": str(module),
        "KDUMPFENCE_FUZZ_LIBFUZZER": libfuzzer,
        "LD_PRELOAD": run(compiler, "-print-file-name=libasan.so"),
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=2:quarantine_size_mb=4",
    }


class Run:
    """One target at work."""

    def __init__(self, target: str, seconds: int, folder: Path, native: dict[str, str]) -> None:
        self.target = target
        self.findings = folder / f"{target}-findings"
        self.log = folder / f"{target}.log"
        grown = folder / f"{target}-corpus"
        self.findings.mkdir()
        grown.mkdir()
        tokens = HERE / f"{target}.dict"
        command = [
            sys.executable,
            str(HERE / f"target_{target}.py"),
            f"-max_total_time={seconds}",
            f"-max_len={TARGETS[target]}",
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            f"-artifact_prefix={self.findings}/",
            *([f"-dict={tokens}"] if tokens.exists() else []),
            str(grown),
            str(HERE / "corpus" / target),
        ]
        self.began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(native if target in ("codec", "sources") else {})},
            )

    def result(self, patience: float) -> bool:
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
            f"{took:.0f} s, {coverage[-1]} edges covered",
            flush=True,
        )
        if not good:
            print(f"--- exit status {status}; the end of the log:")
            lines = [line for line in log.splitlines() if not re.match(r"#\d+\s", line)]
            print("\n".join(line[:2000] for line in lines[-40:]))
            for found in sorted(self.findings.iterdir()):
                print(f"--- {found.name}: {found.read_bytes()!r}")
        return good


def main() -> int:
    """0 = nothing found, 1 = something was, 2 = cannot run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=int, default=20, help="for each target (default: 20)")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one")
    parser.add_argument("--installed", action="store_true", help="build no core for the run")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave corpora, findings, logs")
    arguments = parser.parse_args()
    if find_spec("atheris") is None:
        print("fuzzing needs atheris: pip install 'kdumpfence[fuzz]'", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="kdumpfence-fuzz-", dir=arguments.keep))
    try:
        native: dict[str, str] = {}
        why_not = "as asked for"
        if not arguments.installed:
            try:
                native = build_core(folder)
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                why_not = f"{error}\n{getattr(error, 'stderr', '')}"
        if native:
            print("compiled core: built with coverage and sanitizers", flush=True)
        else:
            print(f"compiled core: the installed one, without coverage: {why_not}", flush=True)
        runs = [
            Run(target, arguments.seconds, folder, native)
            for target in arguments.target or list(TARGETS)
        ]
        # All of them are waited for, whatever the first says.
        good = [run.result(2 * arguments.seconds + 60) for run in runs]
        return 0 if all(good) else 1
    finally:
        if arguments.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
