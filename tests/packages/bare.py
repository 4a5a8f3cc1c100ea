# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bare Debian, of real packages: what is essential, and python3. And machines made of it.

The packages are unpacked below build/debian, once for all tests, and entered into dpkg's database
as installed. A machine is a layer over that in memory, in a namespace of its own; it has no
network, and nothing of it is left.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import debroot, stock_packages
from tests.support.debian import NotAvailable

PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils"),
    *("dpkg", "findutils", "grep", "gzip", "init-system-helpers", "libc-bin", "login", "mawk"),
    *("perl-base", "python3", "sed", "sysvinit-utils", "tar", "util-linux"),
)
HACLUSTER = 189  # as Debian's packages number it; any would do

_TOOLS = ("nsenter", "unshare")
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
}


@dataclass(frozen=True)
class Debian:
    """The root that nobody may write to, and the package of the stock agent as a file."""

    root: Path
    fence_agents: Path

    @property
    def stock_package(self) -> str:
        """What that package is called: Debian 13 has another than Debian 12."""
        return self.fence_agents.name.partition("_")[0]


def get() -> Debian:
    """Return it, made if need be. Raises tests.support.debian.NotAvailable."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise NotAvailable(f"not on this machine: {', '.join(missing)}")
    stock = stock_packages.named()[0]
    recipe = Path(__file__).read_bytes() + stock.encode()
    target = debroot.made("bare", PACKAGES, _furnish, recipe, left_out=("info", "locale"))
    (fence_agents,) = target.glob(f"{stock}_*.deb")
    return Debian(target / "root", fence_agents)


def _furnish(folder: Path, packages: Sequence[Path]) -> None:
    root = folder / "root"
    debroot.enter(root, packages)
    debroot.add_user(root, "hacluster", "haclient", HACLUSTER, "/var/lib/pacemaker")
    (root / "dev/null").unlink(missing_ok=True)
    debroot.run("apt-get", "download", stock_packages.named()[0], cwd=folder)


# ------------------------------------------------------------------ machines

_ENTER = """
mount -t tmpfs tmpfs "$2"
cd "$2"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$1,upperdir=upper,workdir=work" root || exit 77
mount -t proc proc root/proc
mount -t tmpfs tmpfs root/dev
mount -t tmpfs tmpfs root/tmp
chmod 1777 root/tmp
cp -a /dev/null /dev/zero /dev/random /dev/urandom root/dev/
ln -s /proc/self/fd root/dev/fd
ln -s /proc/self/fd/0 root/dev/stdin
ip link set lo up
echo ready
read -r end
"""


class Machine:
    """One such Debian, running nothing but what it is told to."""

    def __init__(self, holder: subprocess.Popen[str], folder: Path) -> None:
        self._pid = holder.pid
        self._root = str(folder / "root")
        #: the same from outside, as long as the machine lasts
        self.root = Path(f"/proc/{holder.pid}/root{folder}/root")

    def try_(
        self, *command: str, env: dict[str, str] | None = None, cwd: str = "/"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root; what it says on stdout and stderr is one text."""
        enter = ["nsenter", f"--target={self._pid}", "--mount", "--net"]
        inside = ["chroot", self._root, "sh", "-c", 'cd "$0" && exec "$@"', cwd]
        return subprocess.run(
            [*enter, *inside, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
            env={**_ENVIRONMENT, **(env or {})},
        )

    def run(self, *command: str, env: dict[str, str] | None = None, cwd: str = "/") -> str:
        """Do the same, expecting success."""
        done = self.try_(*command, env=env, cwd=cwd)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def outside(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the machine that runs the tests; "ROOT" is the root of this one."""
        words = [str(word).replace("ROOT", self._root) for word in command]
        return subprocess.run(
            ["nsenter", f"--target={self._pid}", "--mount", "--net", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "LC_ALL": "C"},
        )

    def as_hacluster(self, *command: str, env: dict[str, str] | None = None, cwd: str = "/") -> str:
        """Run it as Pacemaker runs an agent for its metadata."""
        user = (f"--reuid={HACLUSTER}", f"--regid={HACLUSTER}", "--clear-groups")
        return self.run("setpriv", *user, "--inh-caps=-all", *command, env=env, cwd=cwd)

    def dpkg(self, *arguments: str) -> str:
        """Run dpkg in it."""
        return self.run("dpkg", "--force-unsafe-io", *arguments)

    def put(self, file: Path) -> str:
        """Copy a file into it; its path there."""
        shutil.copy(file, self.root / "tmp")
        return f"/tmp/{file.name}"

    def files(self) -> set[str]:
        """All that is on its disk, in one line each: where, kind, rights, size and link."""
        seen = self.run(
            *("find", "/", "-xdev", "!", "-type", "d", "-printf"),
            r"%p %y %m %U:%G %s %T@ %l\n",
        )
        folders = self.run("find", "/", "-xdev", "-type", "d", "-printf", r"%p %y %m %U:%G\n")
        lines = {*seen.splitlines(), *folders.splitlines()}
        # What dpkg keeps, and what Python leaves where Debian would have compiled it before.
        other = r"/var/(lib/dpkg|log|cache/ldconfig)/|/usr/(lib|share)/python3.*/__pycache__"
        return {line for line in lines if not re.match(other, line)}


@contextlib.contextmanager
def machine(debian: Debian, folder: Path) -> Iterator[Machine]:
    """A new machine; its folder is a mount point in a namespace. Raises NotAvailable."""
    folder.mkdir()
    with subprocess.Popen(
        ["unshare", "--mount", "--net", "sh", "-euc", _ENTER, "sh", debian.root, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        said = holder.stdout.readline()
        if said != "ready\n":
            raise NotAvailable(f"no machine can be made here: {said}{holder.stdout.read()}")
        try:
            yield Machine(holder, folder)
        finally:
            holder.stdin.close()
