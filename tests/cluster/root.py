# SPDX-License-Identifier: GPL-2.0-or-later
"""The nodes' root file system: Debian with corosync, pacemaker, pcs and crmsh, of real packages.

apt is asked what the packages need on a machine that has nothing yet. They are unpacked below
build/debian, once for all tests, and not configured: what their scripts would do, as far as it
matters here, is done in `_configure`. dpkg's database is written as if it had been they, so that
a package can be installed on top, with its dependencies looked at.

fence-agents is unpacked too, but not what it depends on: of its agents only fence_kdump, which
needs nothing of that, is ever called.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import debian
from tests.debian import NotAvailable

PACKAGES = (
    *("corosync", "pacemaker", "pacemaker-cli-utils", "pacemaker-resource-agents"),
    *("pcs", "crmsh"),
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils"),
    *("dpkg", "findutils", "gawk", "grep", "gzip", "hostname", "iproute2", "libc-bin", "login"),
    *("mawk", "mount", "passwd", "procps", "python3", "sed", "tar", "util-linux"),
)
ALONE = "fence-agents"

_TOOLS = ("apt-get", "chroot", "dpkg-deb", "tar")

# Links in Debian since usrmerge; the packages bring files for both sides of them.
_MERGED = ("bin", "lib", "lib64", "sbin")
_LEFT_OUT = ("doc", "info", "locale", "man")  # of /usr/share


def get(folder: Path = debian.FOLDER) -> Path:
    """Return the root, made if need be. Nobody may write to it: put a layer over it.

    Raises tests.debian.NotAvailable.
    """
    if os.geteuid() != 0:
        raise NotAvailable("only root can unpack a root file system and work in it")
    folder.mkdir(parents=True, exist_ok=True)
    # Another list of packages or another way to put them together: another root.
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    target = folder / f"cluster-{recipe}"
    with (folder / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            for older in folder.glob("cluster-*"):
                shutil.rmtree(older)
            _make(target)
    return target


def _make(target: Path) -> None:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise NotAvailable(f"not on this machine: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        packages = _download(Path(scratch))
        fresh = Path(scratch, "root")
        for name in _MERGED:
            (fresh / "usr" / name).mkdir(parents=True)
            (fresh / name).symlink_to(f"usr/{name}")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            stanzas = list(pool.map(lambda package: _unpack(package, fresh), packages))
        (fresh / "var/lib/dpkg/status").write_text("\n".join(stanzas))
        _configure(fresh)
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
    _run("apt-get", "download", ALONE, cwd=archives)
    return sorted(archives.glob("*.deb"))


def _unpack(package: Path, root: Path) -> str:
    """Unpack one package; return what dpkg's database is to say about it."""
    out = ["--extract", "--keep-directory-symlink", "--directory", str(root)]
    out += [f"--exclude=./usr/share/{name}" for name in _LEFT_OUT]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as content:
        tar = subprocess.run(["tar", *out], stdin=content.stdout, check=False, timeout=120)
    if content.returncode or tar.returncode:
        raise NotAvailable(f"{package.name} cannot be unpacked")
    fields = _run("dpkg-deb", "--field", str(package))
    name, _, rest = fields.partition("\n")
    return f"{name}\nStatus: install ok installed\n{rest}"


def _configure(root: Path) -> None:
    """Do what the packages' own scripts would."""
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    _append(root / "etc/group", "haclient:x:900:\n")
    _append(root / "etc/passwd", "hacluster:x:900:900::/var/lib/pacemaker:/usr/sbin/nologin\n")
    (root / "usr/bin/awk").symlink_to("mawk")
    (root / "usr/bin/which").symlink_to("which.debianutils")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    for name in ("", "/blackbox", "/cib", "/cores", "/pengine"):
        _own(root / f"var/lib/pacemaker{name}", 900, 900)
    _own(root / "var/log/pacemaker", 900, 900)
    _own(root / "etc/pacemaker", 0, 900)
    for name in ("var/log/corosync", "var/log/crmsh", "var/lib/corosync"):
        _own(root / name, 0, 0)
    database = root / "var/lib/dpkg"
    for name in ("info", "updates", "triggers", "alternatives"):
        (database / name).mkdir(parents=True, exist_ok=True)
    _run("chroot", str(root), "ldconfig")
    # As the packages' scripts do: without, each call of pcs would compile itself anew.
    _run("chroot", str(root), "python3", "-m", "compileall", "-q", "/usr/lib/python3/dist-packages")


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def _own(folder: Path, user: int, group: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, user, group)
    folder.chmod(0o750)


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode != 0:
        raise NotAvailable(f"`{' '.join(command)}` failed:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    print(get())
