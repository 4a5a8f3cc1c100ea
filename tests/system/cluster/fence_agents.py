# SPDX-License-Identifier: GPL-2.0-or-later
"""The fence agents on the nodes: ours or the stock one, and the power device that bears witness."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.debian import NotAvailable
from tests.system.cluster.machine import Site

HERE = Path(__file__).resolve().parents[3]

# Understands stdin as every fence agent does. What it switches is noted, and nothing else.
_POWER = r"""#!/bin/sh
while IFS='=' read -r key value; do
    case $key in
        action) action=$value ;;
        plug|port|nodename) node=$value ;;
    esac
done
case $action in
    metadata)
        cat /usr/share/fence_power.xml ;;
    on|off|reboot)
        echo "$(date +%s.%N) $(hostname) $action $node" >> /run/shared/power.log ;;
    monitor|status|list|validate-all|start|stop) ;;
    *)
        echo "fence_power: action '$action'" >&2
        exit 1 ;;
esac
"""

_POWER_METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_power" shortdesc="Notes who is to be switched off">
<longdesc>The last level: it always succeeds, and writes each call to a log.</longdesc>
<vendor-url></vendor-url>
<parameters>
  <parameter name="action" unique="0" required="0">
    <getopt mixed="-o, --action=ACTION" /><content type="string" default="reboot" />
    <shortdesc lang="en">What to do</shortdesc>
  </parameter>
  <parameter name="plug" unique="0" required="0">
    <getopt mixed="-n, --plug=NODE" /><content type="string" />
    <shortdesc lang="en">The node</shortdesc>
  </parameter>
</parameters>
<actions>
  <action name="on" /><action name="off" /><action name="reboot" />
  <action name="monitor" /><action name="status" /><action name="metadata" />
</actions>
</resource-agent>
"""

# What the package is made of; setup.py and what lies in these folders.
_SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "src", "packaging", "docs")
_NOT_SOURCES = (".so", ".pyc", ".egg-info", "_native", "__pycache__")


def package(folder: Path = HERE / "build" / "cluster") -> Path:
    """Return the Debian package of this tree, made if need be, as `make deb` makes it.

    Raises tests.support.debian.NotAvailable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = folder / _recipe()
        if not target.is_dir():
            for older in folder.glob("package-*"):
                shutil.rmtree(older)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                fresh = Path(scratch, "package")
                done = subprocess.run(
                    ["sh", str(HERE / "packaging/deb.sh"), sys.executable, str(fresh)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                    timeout=300,
                )
                if done.returncode != 0:
                    raise NotAvailable(f"no Debian package of this tree: {done.stdout}")
                fresh.replace(target)
    (found,) = target.glob("*.deb")
    return found


def _recipe() -> str:
    """Name what the package would be made of now."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        top = HERE / source
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            relative = str(path.relative_to(HERE))
            if path.is_file() and not any(word in relative for word in _NOT_SOURCES):
                digest.update(relative.encode() + b"\0" + path.read_bytes())
    return f"package-{digest.hexdigest()[:12]}"


def install(site: Site, which: str) -> None:
    """Put the agents on all machines that will be booted here; `which` is "ours" or "stock".

    The stock agent lies in the root file system, as Debian's package has it. Ours is installed
    by dpkg over that, which has to get out of its way.
    """
    _write(site.layer / "usr/sbin/fence_power", _POWER, 0o755)
    _write(site.layer / "usr/share/fence_power.xml", _POWER_METADATA)
    if which == "ours":
        shutil.copy(package(), site.shared / "kdumpfence.deb")
        with site.common_root() as run:
            run("dpkg", "--force-unsafe-io", "--install", "/mnt/kdumpfence.deb")
            said = run("/usr/sbin/fence_kdump", "-V")
            assert "kdumpfence, compiled core" in said, said


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
