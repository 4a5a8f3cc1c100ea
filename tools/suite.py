# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run the tests on another suite of Debian than this machine's: `make suite SUITE=trixie`.

    python -m tools.suite [--write] [--part PART]... SUITE...

Makes a root directory of the suite in build/suites, with apt and dpkg themselves (mmdebstrap),
copies this checkout into it and goes on there as a newcomer would: `make tools build`, then pytest.
So all that the tests ask their machine for is the suite's: compiler, Python, stock programs,
kernel, makers of crash images, Pacemaker. Only the kernel that all this runs on is the machine's.
Everything happens in namespaces that end with the program; the network is the machine's, for
downloads. The root is kept for the next run; remove it for newer packages. With --write
docs/systems.md is written anew, from what is known of all suites (tools/systems.py).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tools import systems
from tools.every_python import REPORT
from tools.systems import Record

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "suites"
MIRROR = os.environ.get("KDUMPFENCE_MIRROR", "http://deb.debian.org/debian")
SECURITY = "http://deb.debian.org/debian-security"

#: Where the checkout is in the root: all users may enter.
HOME = "/srv/kdumpfence"

#: What a newcomer brings along, and what `make tools` would install.
FIRST = ("ca-certificates", "git", "make", "python3")

#: What `make pythons` wants there, to try each Python of the suite.
PYTHONS = ("python3-all-dev", "python3-all-venv")

#: Suites that change daily have no security updates of their own. Where their mirror is a
#: snapshot, its signature may be older than it says it is good for.
ROLLING = ("testing", "unstable")

#: Of the environment, what the suite's programs get too.
HANDED_ON = ("CI", "http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "PYTHONUNBUFFERED": "1",
    # pip brings certificates of its own, and older ones use no others by themselves.
    "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
}

#: Parts that are tried where a suite is new, and not each time that CI runs.
SELDOM = ("pythons", "building")

#: The calls of pytest, by the name of their report: as in `make test`, where the first two are run
#: at the same time.
TURNS = {
    "cluster": ("-m", "cluster"),
    "together": (
        *("-n", "6", "--dist", "loadfile", "--no-loadscope-reorder"),
        *("-m", "not alone and not guest and not cluster and not in_kernel"),
    ),
    # Floods tell of the machine, and not of the suite.
    "alone": ("-m", "alone", "-k", "not flood"),
}
#: Its exit status: all passed, some failed, nothing was to be run.
PLAYED = (0, 1, 5)

_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"),
)
# $1 is the root, the rest a command. Its disk is the machine's, all else its own.
_ENTER = """
mount --bind "$1" "$1"
cd "$1"
shift
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/old
pivot_root . run/old
cd /
umount -l run/old
rmdir run/old
exec "$@"
"""


class Failure(Exception):
    """A suite cannot be tried here; the text says why."""


class Suite:
    """A root directory of that suite, with this checkout in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        recipe = repr((Path(__file__).read_bytes(), MIRROR)).encode()
        self.root = FOLDER / name / hashlib.sha256(recipe).hexdigest()[:12]

    def make(self) -> None:
        """Make the root if need be, and put the checkout into it. Raises Failure."""
        if not self.root.is_dir():
            shutil.rmtree(self.root.parent, ignore_errors=True)
            self._bootstrap(self.root.with_suffix(".new"))
            self.root.with_suffix(".new").rename(self.root)
        self._copy()

    def _bootstrap(self, target: Path) -> None:
        target.parent.mkdir(parents=True)
        sources = [f"deb {MIRROR} {self.name} main"]
        packages = list(FIRST)
        options = ["--dpkgopt=force-unsafe-io", '--aptopt=APT::Install-Recommends "false"']
        if self.name in ROLLING:
            packages += PYTHONS
            options.append('--aptopt=Acquire::Check-Valid-Until "false"')
        else:
            sources.append(f"deb {MIRROR} {self.name}-updates main")
            sources.append(f"deb {SECURITY} {self.name}-security main")
        command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", *options]
        command += [f"--include={','.join(packages)}", self.name, str(target), *sources]
        done = subprocess.run(
            command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode != 0:
            shutil.rmtree(target, ignore_errors=True)
            raise Failure(f"mmdebstrap cannot make a root of {self.name}:\n{done.stdout}")
        # Who made certificates of his own known to this machine has to be trusted there as well.
        own = sorted(Path("/usr/local/share/ca-certificates").glob("*.crt"))
        for certificate in own:
            shutil.copy(certificate, target / "usr/local/share/ca-certificates")
        if own:
            subprocess.run(
                ["chroot", target, "update-ca-certificates"],
                check=True,
                timeout=60,
                stdout=subprocess.DEVNULL,
                env=ENVIRONMENT,
            )

    def _copy(self) -> None:
        """Put the checkout there, as git would, what is not committed yet included."""
        home = self.root / HOME[1:]
        home.mkdir(parents=True, exist_ok=True)
        for old in home.iterdir():
            if old.name not in (".venv", "build"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        (home / ".venv/.built").unlink(missing_ok=True)
        listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        files = subprocess.run(listed, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        there = [name for name in files.decode().split("\0") if name and (ROOT / name).is_file()]
        for name in there:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, home / name)

    def run(self, *command: str, output: IO[bytes] | None = None) -> int:
        """Run a command in the checkout; its exit status. What it says goes to `output`."""
        settings = dict(ENVIRONMENT)
        settings.update({name: os.environ[name] for name in HANDED_ON if name in os.environ})
        inside = ("sh", "-c", f'cd {HOME} && exec "$@"', "sh", *command)
        return subprocess.run(
            [*_NAMESPACES, "sh", "-euc", _ENTER, "sh", self.root, *inside],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            env=settings,
        ).returncode

    def _turn(self, turn: str, folders: Sequence[str], output: IO[bytes] | None = None) -> int:
        """Run the tests of these folders that are in that turn; pytest's exit status."""
        (self.root / HOME[1:] / _report(turn)).unlink(missing_ok=True)
        pytest = (".venv/bin/python", "-m", "pytest", f"--junitxml={_report(turn)}")
        return self.run(*pytest, *TURNS[turn], *folders, output=output)

    def try_(self, parts: Sequence[str]) -> Record:
        """Build, and run the tests of these parts. Raises Failure if that does not come to pass."""
        # With mypy, if there is a test that wants it.
        lint = (".venv/.lint",) if "building" in parts else ()
        if self.run("make", "tools", "build", ".venv/.test", *lint):
            raise Failure(f"{self.name}: it cannot be built there")
        folders = [f"tests/{folder}" for part in parts for folder in systems.PARTS[part]]
        with tempfile.TemporaryFile() as said, ThreadPoolExecutor() as pool:
            clusters = pool.submit(self._turn, "cluster", folders, said)
            statuses = {"together": self._turn("together", folders)}
            statuses["cluster"] = clusters.result()
            said.seek(0)
            print(said.read().decode(errors="replace"), flush=True)
        statuses["alone"] = self._turn("alone", folders)
        for turn, status in statuses.items():
            if status not in PLAYED:
                raise Failure(f"{self.name}: pytest ended with {status} ({turn})")
        reports = [self.root / HOME[1:] / _report(turn) for turn in TURNS]
        if "pythons" in parts:
            self.run(".venv/bin/python", "-m", "tools.every_python")
            reports += sorted((self.root / HOME[1:] / "build/pythons").glob(f"*/{REPORT}"))
        show = ("chroot", self.root, "apt-cache", "show", "--no-all-versions", *systems.PACKAGES)
        shown = subprocess.run(show, check=True, text=True, stdout=subprocess.PIPE, env=ENVIRONMENT)
        return systems.record_of(reports, shown.stdout)


def _report(turn: str) -> str:
    return f"build/{turn}.xml"


def usual_parts(name: str) -> list[str]:
    """What is tried on that suite unless told otherwise."""
    return [part for part in systems.PARTS if name in ROLLING or part not in SELDOM]


def why_not() -> str | None:
    """What is missing here, if anything."""
    if os.geteuid() != 0:
        return "only root can make a root directory of Debian and work in it"
    missing = [tool for tool in ("git", "mmdebstrap", "unshare") if shutil.which(tool) is None]
    return f"not on this machine: {', '.join(missing)}" if missing else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"into docs/{systems.PAGE.name}")
    parser.add_argument("--others", action="store_true", help="leave out this machine's own suite")
    parser.add_argument(
        "--part",
        action="append",
        choices=systems.PARTS,
        help=f"may be repeated (default: all, {' and '.join(SELDOM)} only on {', '.join(ROLLING)})",
    )
    parser.add_argument("suite", nargs="+", choices=systems.SUITES)
    options = parser.parse_args(arguments)
    why = why_not()
    if why is not None:
        print(f"no tests on other suites of Debian: {why}", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    good = True
    for name in options.suite:
        if options.others and name == systems.own_suite():
            continue
        try:
            suite = Suite(name)
            suite.make()
            record = suite.try_(options.part or usual_parts(name))
        except Failure as failure:
            print(failure, file=sys.stderr)
            good = False
            continue
        print(record.summary(name))
        good = good and record.good
        systems.save(systems.FRESH, {name: record})
        if options.write:
            systems.write({name: record})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
