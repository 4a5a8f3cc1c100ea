# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run a script over Debian's root with files of one's own, in namespaces that have no network.

Nothing of it is left but what the script puts into its folder.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.debian import NotAvailable
from tests.support.initramfs import PATH

_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--uts", "--ipc", "--pid"),
    *("--fork", "--kill-child=KILL"),
)
_NO_OVERLAY = 77

# $1 is Debian's root, $2 the layer over it; other changes to it go to memory.
_ENTER = f"""
mount -t tmpfs tmpfs scratch
root=$PWD/scratch/root
mkdir scratch/upper scratch/work "$root"
mount -t overlay overlay \
    -o "lowerdir=$2:$1,upperdir=scratch/upper,workdir=scratch/work" "$root" || exit {_NO_OVERLAY}
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/dev"
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom "$root/dev/"
ln -s /proc/self/fd "$root/dev/fd"
echo node1 > /proc/sys/kernel/hostname
shift 2
"""


def run(root: Path, folder: Path, files: Mapping[str, str], script: str, *arguments: str) -> str:
    """Run a shell script (sh -eu) in `folder`, with $root and these arguments; what it said.

    `files` are put into the root before, each path without its first slash. Raises RuntimeError
    if the script fails, and NotAvailable.
    """
    layer = folder / "layer"
    (folder / "scratch").mkdir(parents=True)
    for name, text in files.items():
        path = layer / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    done = subprocess.run(
        [*_NAMESPACES, "sh", "-euc", _ENTER + script, "sh", root, layer, *arguments],
        cwd=folder,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        env={**os.environ, "LC_ALL": "C", "PATH": PATH},
    )
    if done.returncode == _NO_OVERLAY:
        raise NotAvailable(f"this kernel has no overlay file system: {done.stdout}")
    if done.returncode != 0:
        raise RuntimeError(f"the script over Debian's root failed:\n{done.stdout}")
    return done.stdout
