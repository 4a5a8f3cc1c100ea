# SPDX-License-Identifier: LGPL-2.1-or-later
"""Computers made of namespaces, which can be crashed, unplugged and switched on again.

A `Site` is one `unshare` that everything else lives in: its death, or that of the thread that
made it, is the death of all. In it are bridges without uplink (the rings) and `Machine`s. What of
a machine survives a crash, as a real one's hardware does, is its network namespace and its disk.
The rest, pid 1 and all that runs below it, is killed at one blow by `crash` and made anew by
`boot`.

Pids are always those that the test process sees: the site leaves /proc as it was, and only the
machines mount their own.

Rules of this file: iproute2 and util-linux only; it knows nothing of clusters.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support.netlab import DIE_WITH_PARENT, Argv, end

_TOOLS = ("chroot", "ip", "mount", "nsenter", "setpriv", "unshare")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}

_SITE = """
set -e
read -r pid rest < /proc/self/stat
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/shared /run/disk /run/root /run/layer
chmod 1777 /run/shared
ip link set lo up
for ring in $0; do
    ip link add "ring$ring" type bridge
    ip link set "ring$ring" up
done
echo "$pid"
exec cat
"""

_HARDWARE = """
read -r pid rest < /proc/self/stat
ip link set lo up
echo "$pid"
exec sleep infinity
"""

# /sys is made up: what the real one says of a crash kernel is this computer's affair.
_BOOT = """
set -e
read -r pid rest < /proc/self/stat
name=$0 base=$1 root=/run/root/$0 disk=/run/disk/$0
mkdir -p "$root" "$disk/upper" "$disk/work"
mount -t overlay -o "lowerdir=/run/layer:$base,upperdir=$disk/upper,workdir=$disk/work" \
    overlay "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/dev"
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom "$root/dev/"
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm" "$root/run/lock" "$root/run/shared"
chmod 1777 "$root/dev/shm" "$root/tmp"
mount --bind "$disk/sys" "$root/sys"
mount --bind /run/shared "$root/run/shared"
cd "$root"
echo "$pid"
exec chroot . sh /etc/boot "$name"
"""

Done = subprocess.CompletedProcess


def why_not() -> str | None:
    """Say why no site can be made here, or None when one can."""
    if os.geteuid() != 0:
        return "only root can make namespaces"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        with Site(Path("/nonexistent")):
            pass
    except RuntimeError as error:
        return str(error)
    return None


class Site:
    """The place for machines. Leave it to take everything down; `kill` does it from elsewhere."""

    def __init__(self, base: Path, rings: int = 1) -> None:
        """Make `rings` bridges. `base` is the root file system below everybody's own."""
        self.base = base
        self.rings = rings
        self._process = subprocess.Popen(
            [
                *DIE_WITH_PARENT,
                *("unshare", "--mount", "--net", "--uts", "--ipc", "--pid"),
                *("--fork", "--kill-child=KILL", "sh", "-c", _SITE),
                " ".join(str(ring) for ring in range(rings)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._children: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()
        self.pid = _said_pid(self._process, "no namespaces here")
        run = Path(f"/proc/{self.pid}/root/run")
        self.shared = run / "shared"  # /run/shared on every machine
        self.layer = run / "layer"  # lies over `base` on every machine that boots later
        self.disk = run / "disk"

    def __enter__(self) -> Site:
        """Do nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything down, and wait until it is gone."""
        self.kill()
        with self._lock:
            for child in (self._process, *self._children):
                end(child)

    def kill(self) -> None:
        """Let everything here die at once. May be called by any thread."""
        self._process.kill()

    def start(self, target: int, kinds: Sequence[str], argv: Argv) -> subprocess.Popen[str]:
        """Start a program in namespaces of that process; it dies with the site and with its Popen.

        stdout and stderr are one pipe.
        """
        joined = [f"--{kind}" for kind in kinds]
        with self._lock:
            child: subprocess.Popen[str] = subprocess.Popen(
                ["nsenter", "--target", str(target), *joined, "--", *DIE_WITH_PARENT, *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=_ENVIRONMENT,
            )
            self._children.append(child)
        return child

    def tool(self, *argv: str, target: int | None = None, kinds: Sequence[str] = ("net",)) -> str:
        """Run a program of this computer in namespaces of the site, or of that process."""
        joined = [f"--{kind}" for kind in kinds]
        done = subprocess.run(
            ["nsenter", "--target", str(target or self.pid), *joined, "--", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=_ENVIRONMENT,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def common_root(self) -> Iterator[Callable[..., str]]:
        """Let what all machines have in common be changed.

        Gives a function that runs a program in there, with the shared folder as /mnt.
        """
        root = "/run/root/common"
        mounts = {"dev": "/dev", "proc": "/proc", "mnt": "/run/shared"}

        def run(*argv: str) -> str:
            return self.tool("chroot", root, *argv, kinds=("mount", "net"))

        def site(*argv: str) -> None:
            self.tool(*argv, kinds=("mount",))

        layers = f"lowerdir={self.base},upperdir=/run/layer,workdir=/run/work"
        site("mkdir", "-p", root, "/run/work")
        site("mount", "-t", "overlay", "-o", layers, "overlay", root)
        site("mkdir", "-p", *(f"{root}/{name}" for name in mounts))
        for name, source in mounts.items():
            site("mount", "--bind", source, f"{root}/{name}")
        try:
            yield run
        finally:
            site("umount", *(f"{root}/{name}" for name in mounts), root)


class Machine:
    """One computer: network interfaces, a disk, and what runs on it while it runs."""

    def __init__(self, site: Site, name: str, number: int) -> None:
        """Assemble it, with the addresses 10.RING.0.NUMBER; nothing runs yet."""
        self.site = site
        self.name = name
        self.number = number
        self.addresses = [f"10.{ring}.0.{number}" for ring in range(site.rings)]
        self._hardware = site.start(
            site.pid, ("mount", "pid", "ipc", "uts"), ["unshare", "--net", "sh", "-c", _HARDWARE]
        )
        self.hardware = _said_pid(self._hardware, name)
        self._system: subprocess.Popen[str] | None = None
        self.pid = 0  # of what runs as pid 1 there
        self.disk = site.disk / name
        (self.disk / "sys" / "kernel").mkdir(parents=True)
        (self.disk / "upper").mkdir()
        for ring, address in enumerate(self.addresses):
            mine, port = f"ring{ring}", f"{name}r{ring}"
            site.tool(
                *("ip", "link", "add", "name", port, "type", "veth"),
                *("peer", "name", mine, "netns", str(self.hardware)),
            )
            site.tool("ip", "link", "set", port, "master", f"ring{ring}", "up")
            self._ip("address", "add", f"{address}/24", "dev", mine)
            self._ip("link", "set", mine, "up")

    def _ip(self, *argv: str) -> None:
        self.site.tool("ip", *argv, target=self.hardware)

    @property
    def runs(self) -> bool:
        """Whether it has an operating system at the moment."""
        return self._system is not None and self._system.poll() is None

    def write_file(self, path: str, text: str, owner: int = 0, mode: int = 0o644) -> None:
        """Put a file on its disk."""
        if self.runs:
            target = Path(f"/proc/{self.pid}/root") / path.lstrip("/")
        else:
            target = self.disk / "upper" / path.lstrip("/")
        _make_folder(target.parent, self.site.base / path.lstrip("/"))
        target.write_text(text)
        os.chown(target, owner, owner)
        target.chmod(mode)

    def read_file(self, path: str) -> str:
        """Read a file that was written since it was first switched on."""
        try:
            return (self.disk / "upper" / path.lstrip("/")).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def boot(self) -> None:
        """Run /etc/boot as pid 1, in new namespaces on the old disk."""
        assert not self.runs
        self._system = self.site.start(
            self.hardware,
            ("mount", "net", "pid", "ipc", "uts"),
            [
                *("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"),
                *("sh", "-c", _BOOT, self.name, str(self.site.base)),
            ],
        )
        self.pid = _said_pid(self._system, self.name)
        # It says its pid before it enters its root, where `run` is to find it.
        outside = os.stat(f"/proc/{self.site.pid}/root")
        while os.path.samestat(os.stat(f"/proc/{self.pid}/root"), outside):
            assert self.runs
            time.sleep(0.005)

    def crash(self) -> None:
        """Kill whatever runs, all at once, and pull the cables: nobody says good-bye."""
        if self._system is not None:
            self._system.kill()  # its death kills unshare, whose death kills pid 1
        for ring in range(self.site.rings):
            self.unplug(ring)
        if self._system is not None:
            end(self._system)
            self._system = None
            while _lives(self.pid):
                time.sleep(0.01)

    def plug(self, ring: int) -> None:
        """Put the cable in."""
        self.site.tool("ip", "link", "set", f"{self.name}r{ring}", "up")

    def unplug(self, ring: int) -> None:
        """Pull the cable out."""
        self.site.tool("ip", "link", "set", f"{self.name}r{ring}", "down")

    def program(self, argv: Argv) -> subprocess.Popen[str]:
        """Start a program of this computer in the machine's network, whatever else runs there."""
        return self.site.start(self.hardware, ("net", "pid", "mount"), argv)

    def run(self, command: str, timeout: float = 60) -> Done[str]:
        """Run a shell command on the machine, with all it says in stdout; `timeout` in seconds."""
        argv = ("nsenter", "--target", str(self.pid), "--all", "--root", "--wd", "--")
        return subprocess.run(
            [*argv, "timeout", "--signal=KILL", str(timeout), "sh", "-c", command],
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout + 10,
        )


def _lives(pid: int) -> bool:
    """Whether anything is left of a pid namespace; its pid 1 is the last to go."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not state.startswith(("Z", "X"))


def _make_folder(folder: Path, like: Path) -> None:
    """Make what is missing of a folder in the upper layer, with the owners of the lower one."""
    if not folder.is_dir():
        _make_folder(folder.parent, like.parent)
        folder.mkdir()
        if like.parent.is_dir():
            state = like.parent.stat()
            os.chown(folder, state.st_uid, state.st_gid)
            folder.chmod(state.st_mode & 0o7777)


def _said_pid(process: subprocess.Popen[str], what: str) -> int:
    assert process.stdout is not None
    said = process.stdout.readline()
    if not said.strip().isdigit():
        process.kill()
        out, err = process.communicate()
        raise RuntimeError(f"{what}: {said}{out}{err or ''}".strip())
    return int(said)
