# SPDX-License-Identifier: GPL-2.0-or-later
"""A bare Debian, of real packages: what is essential, and python3. And machines made of it.

The packages are unpacked below build/debian, once for all tests, and entered into dpkg's database
as installed. A machine is a layer over that in memory, in a namespace of its own; it has no
network, and nothing of it is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import debian
from tests.debian import NotAvailable

PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils"),
    *("dpkg", "findutils", "grep", "gzip", "init-system-helpers", "libc-bin", "login", "mawk"),
    *("perl-base", "python3", "sed", "sysvinit-utils", "tar", "util-linux"),
)
FENCE_AGENTS = "fence-agents"
HACLUSTER = 189  # as Debian's packages number it; any would do

_TOOLS = ("apt-get", "chroot", "dpkg-deb", "nsenter", "tar", "unshare")
_MERGED = ("bin", "lib", "lib64", "sbin")
_LEFT_OUT = ("info", "locale")  # of /usr/share
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


def get(folder: Path = debian.FOLDER) -> Debian:
    """Return it, made if need be. Raises tests.debian.NotAvailable."""
    if os.geteuid() != 0:
        raise NotAvailable("only root can unpack a root file system and work in it")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise NotAvailable(f"not on this machine: {', '.join(missing)}")
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    target = folder / f"bare-{recipe}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "bare.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            for older in folder.glob("bare-*"):
                shutil.rmtree(older)
            _make(target)
    (fence_agents,) = target.glob(f"{FENCE_AGENTS}_*.deb")
    return Debian(target / "root", fence_agents)


def _make(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        scratch = Path(name)
        packages = _download(scratch)
        fresh = scratch / "fresh"
        root = fresh / "root"
        for merged in _MERGED:
            (root / "usr" / merged).mkdir(parents=True)
            (root / merged).symlink_to(f"usr/{merged}")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda package: _unpack(package, root), packages))
        _enter(packages, root)
        _configure(root)
        _run("apt-get", "download", FENCE_AGENTS, cwd=fresh)
        fresh.replace(target)


def _download(scratch: Path) -> list[Path]:
    """Let apt, which sees a machine with no package at all, download what it would install."""
    nothing = scratch / "status"
    nothing.touch()
    archives = scratch / "archives"
    (archives / "partial").mkdir(parents=True)
    options = {
        "Dir::State::status": nothing,
        "Dir::Cache": scratch,
        "Dir::Cache::archives": archives,
        "Debug::NoLocking": 1,  # nothing of the machine is written
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": 0,
    }
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    download = ("apt-get", *settings, "--yes", "--download-only", "install", *PACKAGES)
    try:
        _run(*download)
    except NotAvailable:
        _run("apt-get", "update")
        _run(*download)
    return sorted(archives.glob("*.deb"))


def _unpack(package: Path, root: Path) -> None:
    out = ["--extract", "--keep-directory-symlink", "--directory", str(root)]
    out += [f"--exclude=./usr/share/{name}" for name in _LEFT_OUT]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as content:
        tar = subprocess.run(["tar", *out], stdin=content.stdout, check=False, timeout=120)
    if content.returncode or tar.returncode:
        raise NotAvailable(f"{package.name} cannot be unpacked")


def _enter(packages: list[Path], root: Path) -> None:
    """Tell dpkg's database of them."""
    database = root / "var/lib/dpkg"
    for name in ("info", "updates"):
        (database / name).mkdir(parents=True, exist_ok=True)
    (database / "info/format").write_text("1\n")
    stanzas = []
    for package in packages:
        control = _run("dpkg-deb", "--field", str(package))
        fields = dict(re.findall(r"^(Package|Architecture|Multi-Arch): (.+)$", control, re.M))
        name = fields["Package"]
        if fields.get("Multi-Arch") == "same":
            name += f":{fields['Architecture']}"
        stanzas.append(f"{control.rstrip()}\nStatus: install ok installed\n")
        listed = _run("sh", "-c", 'dpkg-deb --fsys-tarfile "$0" | tar -t', str(package))
        paths = [line[1:].rstrip("/") or "/." for line in listed.splitlines()]
        (database / f"info/{name}.list").write_text("\n".join(paths) + "\n")
    (database / "status").write_text("\n".join(stanzas) + "\n")


def _configure(root: Path) -> None:
    """Do what the packages' own scripts would, as far as it matters here."""
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    line = f"hacluster:x:{HACLUSTER}:{HACLUSTER}::/var/lib/pacemaker:/usr/sbin/nologin\n"
    with (root / "etc/passwd").open("a") as file:
        file.write(line)
    with (root / "etc/group").open("a") as file:
        file.write(f"haclient:x:{HACLUSTER}:\n")
    (root / "usr/bin/awk").symlink_to("mawk")
    (root / "usr/bin/which").symlink_to("which.debianutils")
    (root / "dev/null").unlink(missing_ok=True)
    _run("chroot", str(root), "ldconfig")


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode != 0:
        raise NotAvailable(f"`{' '.join(command)}` failed:\n{done.stdout}")
    return done.stdout


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
