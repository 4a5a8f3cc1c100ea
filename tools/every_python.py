#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the unit tests on every CPython from 3.9 up that this machine has.

    .venv/bin/python -m tools.every_python [--others] [--list]

Looks along PATH, in /usr/bin and /usr/local/bin, and at pyenv's versions; free-threaded builds
count as Pythons of their own. With --others those of the version that runs this are left out, 3.11
for example, with which all tests run anyway. Each gets an environment below build/pythons, with the
package as a user gets it: from the sdist, compiled (unless KDUMPFENCE_COMPILE says otherwise). Two
at a time, each in a network of its own where that is allowed, for a raw socket would hear the
other's datagrams. What passed is not run again until something that matters to it changes. A Python
without ensurepip or venv cannot be tested: that is said, and with CI=true it is a failure like
any other.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tools.ownnetwork import own_network

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "pythons"
#: In the folder of each: what passed there, and what did not.
REPORT = "report.xml"
OLDEST = (3, 9)
AT_ONCE = 2
CI = os.environ.get("CI", "").lower() == "true"
COMPILE = os.environ.get("KDUMPFENCE_COMPILE") or "require"

#: What the package is made of, and what is run on it. A change in either runs all again.
PACKAGE = (
    *("src", "docs", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md"),
    *("LICENSE", "LICENSE.libraries"),
)
TESTS = (
    *("tests/core", "tests/shared", "tests/agent", "tests/sender", "tests/storm"),
    *("tests/__init__.py", "tests/conftest.py", "tests/ciguard.py"),
    *("tests/support/judge.py", "tests/support/packets.py", "tests/support/schedule.py"),
    "tests/support/native_packets.py",
)
#: Those that need nothing but the package: what runs programs of .venv is tested with one Python.
UNIT = (
    *("tests/core", "tests/shared", "tests/agent", "tests/sender", "tests/storm"),
    *("--ignore-glob=*/test_program.py", "--ignore-glob=*/test_answers.py"),
    *("--ignore=tests/sender/test_output.py", "--ignore=tests/sender/test_status.py"),
    *("--ignore=tests/sender/test_shares.py", "--ignore=tests/sender/test_session.py"),
    *("-m", "not native and not slow and not alone"),
)

PROBE = """
import json, os, sys, sysconfig
def has(module):
    try:
        __import__(module)
    except ImportError:
        return False
    return True
print(json.dumps({
    "implementation": sys.implementation.name,
    "number": list(sys.version_info[:2]),
    "version": sys.version.split()[0],
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "path": os.path.realpath(sys.executable),
    "lacks": [m for m in ("venv", "ensurepip") if not has(m)],
}))
"""


@dataclasses.dataclass(frozen=True)
class Python:
    """One interpreter of this machine."""

    name: str  # its version, with a "t" behind it if free-threaded
    path: str
    lacks: tuple[str, ...]

    @property
    def order(self) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", self.name)]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one interpreter; `good` is None where nothing could be tried."""

    good: bool | None
    text: str
    seconds: float = 0.0


def candidates() -> Iterator[Path]:
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin", "/usr/bin"]
    for place in dict.fromkeys(places):
        if place:
            yield from sorted(Path(place).glob("python3*"))
    for pyenv in dict.fromkeys([os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv"]):
        if pyenv:
            yield from sorted(Path(pyenv).glob("versions/*/bin/python3*"))


def pythons() -> list[Python]:
    """Every distinct version, the first found of each, oldest first."""
    found: dict[str, Python] = {}
    for path in candidates():
        if not re.fullmatch(r"python3(\.\d+)?t?", path.name):
            continue
        try:
            done = subprocess.run(
                [path, "-I", "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
            )
            facts = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            continue
        if facts["implementation"] == "cpython" and tuple(facts["number"]) >= OLDEST:
            name = facts["version"] + ("t" if facts["free_threaded"] else "")
            found.setdefault(name, Python(name, facts["path"], tuple(facts["lacks"])))
    return sorted(found.values(), key=lambda python: python.order)


def digest(*names: str) -> str:
    """One number over the content of these files and folders."""
    total = hashlib.sha256()
    for name in names:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            made = path.suffix in (".pyc", ".so") or re.search(r"\.egg-info|/_native/", str(path))
            if path.is_file() and not made:
                total.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
                total.update(path.read_bytes())
    return total.hexdigest()


def make_sdist() -> Path:
    folder = WORK / "sdist"
    shutil.rmtree(folder, ignore_errors=True)
    build = [sys.executable, "-m", "build", "-q", "--sdist", "--no-isolation", "-o", str(folder)]
    done = subprocess.run(
        [*build, str(ROOT)], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        sys.exit(f"no sdist:\n{done.stdout}{done.stderr}")
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


class Trial:
    """The unit tests on one interpreter."""

    def __init__(
        self, python: Python, sdist: Path, package: str, tests: str, prefix: tuple[str, ...]
    ) -> None:
        self.python = python
        self.prefix = prefix
        self.sdist = sdist
        self.package = f"{python.path} {COMPILE} {package}"
        self.tests = f"{self.package} {tests}"
        self.folder = WORK / python.name
        self.interpreter = self.folder / "bin" / "python"
        self.log = WORK / f"{python.name}.log"

    def run(self) -> Outcome:
        if self.python.lacks:
            text = f"cannot be tested: it has no {' and no '.join(self.python.lacks)}"
            return Outcome(False if CI else None, text)
        started = time.monotonic()
        if self._stamp("passed") == self.tests:
            return Outcome(True, "passed before, nothing changed since")
        self.log.write_text("")
        try:
            if self._stamp("installed") != self.package:
                self._install()
            if COMPILE == "require":
                self._run("-c", "import kdumpfence._kdumpwire")
            report = f"--junitxml={self.folder / REPORT}"
            pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", report, *UNIT)
            said = self._call(*self.prefix, str(self.interpreter), *pytest)
        except subprocess.SubprocessError as error:
            return Outcome(False, f"failed: {error}", time.monotonic() - started)
        (self.folder / "passed").write_text(self.tests)
        return Outcome(True, said.splitlines()[-1].strip("= "), time.monotonic() - started)

    def _stamp(self, name: str) -> str:
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return ""

    def _install(self) -> None:
        self._call(self.python.path, "-m", "venv", "--clear", str(self.folder))
        self._run("-m", "pip", "install", "-q", f"{self.sdist}[unit]")
        (self.folder / "installed").write_text(self.package)

    def _run(self, *arguments: str) -> str:
        return self._call(str(self.interpreter), *arguments)

    def _call(self, *command: str) -> str:
        """What the command said; it goes to the log too."""
        environment = {
            **os.environ,
            "KDUMPFENCE_COMPILE": COMPILE,
            "KDUMPFENCE_STATIC": "no",  # nothing of it depends on the Python
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for name in ("KDUMPFENCE_PURE", "PYTHONPATH", "PYTHONHOME"):
            environment.pop(name, None)
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=1200,
        )
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
        done.check_returncode()
        return done.stdout


def main() -> int:
    found = pythons()
    if "--others" in sys.argv[1:]:
        own = f"{sys.version_info[0]}.{sys.version_info[1]}."
        found = [one for one in found if one.name.endswith("t") or not one.name.startswith(own)]
    if "--list" in sys.argv[1:]:
        for python in found:
            print(python.name, python.path, *(f"(no {module})" for module in python.lacks))
        return 0
    package, tests = digest(*PACKAGE), digest(*TESTS)
    WORK.mkdir(parents=True, exist_ok=True)
    sdist = make_sdist()
    prefix = own_network()
    trials = [Trial(python, sdist, package, tests, prefix) for python in found]
    good = True
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for trial, outcome in zip(trials, pool.map(Trial.run, trials)):
            good = good and outcome.good is not False
            verdict = {True: "ok", False: "FAIL", None: "none"}[outcome.good]
            head = f"{verdict:4} {trial.python.name:9} {outcome.seconds:4.0f} s  {outcome.text}"
            print(f"{head}  ({trial.python.path})", flush=True)
            if outcome.good is False and trial.log.exists():
                print(trial.log.read_text()[-6000:], flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
