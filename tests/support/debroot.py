# SPDX-License-Identifier: LGPL-2.1-or-later
"""Root directories of Debian, made of real packages.

apt is asked what the packages need on a machine that has nothing yet. They are unpacked below
build/debian, once for all tests, and not configured: what their scripts would do, as far as it
matters, is done here and by whoever wants the root. Nobody may write to it: put a layer over it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support import debian
from tests.support.debian import NotAvailable

_TOOLS = ("apt-get", "chroot", "dpkg-deb", "tar")

# Links in Debian since usrmerge; the packages bring files for both sides of them.
_MERGED = ("bin", "lib", "lib64", "sbin")

#: Of /usr/share: what nobody looks at, where manuals do not matter either.
WITHOUT_MANUALS = ("doc", "info", "locale", "man")

#: What is done to a new folder, with the root and the packages in it.
Furnish = Callable[[Path, Sequence[Path]], None]


def made(
    kind: str,
    packages: Sequence[str],
    furnish: Furnish,
    recipe: bytes,
    *,
    alone: Sequence[str] = (),
    left_out: Sequence[str] = WITHOUT_MANUALS,
) -> Path:
    """Return the folder whose "root" is such a root, made if need be.

    `recipe` is what, beside the packages, decides how it comes to look; another recipe is
    another folder. Packages `alone` come without what they depend on. Raises NotAvailable.
    """
    if os.geteuid() != 0:
        raise NotAvailable("only root can unpack a root file system and work in it")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise NotAvailable(f"not on this machine: {', '.join(missing)}")
    debian.FOLDER.mkdir(parents=True, exist_ok=True)
    known = hashlib.sha256(Path(__file__).read_bytes() + recipe + repr((packages, alone)).encode())
    target = debian.FOLDER / f"{kind}-{known.hexdigest()[:12]}"
    with (debian.FOLDER / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            for older in debian.FOLDER.glob(f"{kind}-*"):
                shutil.rmtree(older)
            _make(target, packages, alone, left_out, furnish)
    return target


def _make(
    target: Path,
    packages: Sequence[str],
    alone: Sequence[str],
    left_out: Sequence[str],
    furnish: Furnish,
) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        files = _download(Path(name), packages, alone)
        fresh = Path(name, "fresh")
        root = fresh / "root"
        for merged in _MERGED:
            (root / "usr" / merged).mkdir(parents=True)
            (root / merged).symlink_to(f"usr/{merged}")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda package: _unpack(package, root, left_out), files))
        for table in ("passwd", "group"):
            shutil.copy(root / f"usr/share/base-passwd/{table}.master", root / "etc" / table)
        (root / "usr/bin/awk").symlink_to("mawk")
        (root / "usr/bin/which").symlink_to("which.debianutils")
        (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
        furnish(fresh, files)
        run("chroot", str(root), "ldconfig")
        fresh.replace(target)


def _download(scratch: Path, packages: Sequence[str], alone: Sequence[str]) -> list[Path]:
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
    download = ("apt-get", *settings, "--yes", "--download-only", "install", *packages)
    try:
        run(*download)
    except NotAvailable:
        run("apt-get", "update")
        run(*download)
    if alone:
        run("apt-get", "download", *alone, cwd=archives)
    return sorted(archives.glob("*.deb"))


def _unpack(package: Path, root: Path, left_out: Sequence[str]) -> None:
    out = ["--extract", "--keep-directory-symlink", "--directory", str(root)]
    out += [f"--exclude=./usr/share/{name}" for name in left_out]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as content:
        tar = subprocess.run(["tar", *out], stdin=content.stdout, check=False, timeout=120)
    if content.returncode or tar.returncode:
        raise NotAvailable(f"{package.name} cannot be unpacked")


def enter(root: Path, packages: Sequence[Path]) -> None:
    """Tell the root's dpkg of the packages, as if it had installed them."""
    database = root / "var/lib/dpkg"
    for name in ("info", "updates", "triggers", "alternatives"):
        (database / name).mkdir(parents=True, exist_ok=True)
    (database / "info/format").write_text("1\n")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        stanzas = list(pool.map(lambda package: _enter_one(package, database), packages))
    (database / "status").write_text("\n".join(stanzas) + "\n")


def _enter_one(package: Path, database: Path) -> str:
    control = run("dpkg-deb", "--field", str(package))
    fields = dict(re.findall(r"^(Package|Architecture|Multi-Arch): (.+)$", control, re.M))
    name = fields["Package"]
    if fields.get("Multi-Arch") == "same":
        name += f":{fields['Architecture']}"
    listed = run("sh", "-c", 'dpkg-deb --fsys-tarfile "$0" | tar -t', str(package))
    paths = [line[1:].rstrip("/") or "/." for line in listed.splitlines()]
    (database / f"info/{name}.list").write_text("\n".join(paths) + "\n")
    return f"{control.rstrip()}\nStatus: install ok installed\n"


def add_user(root: Path, name: str, group: str, number: int, home: str) -> None:
    """Add a user who cannot log in, with a group of the same number."""
    for file, line in (
        ("passwd", f"{name}:x:{number}:{number}::{home}:/usr/sbin/nologin\n"),
        ("group", f"{group}:x:{number}:\n"),
    ):
        with (root / "etc" / file).open("a") as out:
            out.write(line)


def run(*command: str, cwd: Path | None = None) -> str:
    """What a command says. Raises NotAvailable if it fails."""
    done = debian.attempt(*command, cwd=cwd)
    if done.returncode != 0:
        raise NotAvailable(f"`{' '.join(command)}` failed:\n{done.stdout}")
    return done.stdout
