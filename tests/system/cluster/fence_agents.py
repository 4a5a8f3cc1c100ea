# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is installed on the nodes: fence agents, ours or the stock one; a power device that bears
witness; and what our package brings beside, keys and the daemon.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import sys
import tempfile
from pathlib import Path

from tests.support import debian
from tests.support.debian import NotAvailable
from tests.system.cluster.machine import Machine, Site

ROOT = Path(__file__).resolve().parents[3]

#: The cluster's key on a node.
KEY = "/etc/kdumpfence/key"

# The key as it was made, on no machine's disk: nodes may have another one since.
_MADE_KEY = "/run/disk/key"

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


# Goes before fence_kdump, with a child that lives as long as the agent and then says so, unless
# it was killed with it.
_WITNESS = """#!/bin/sh
call=$(mktemp /run/shared/call.XXXXXX)
cat > "$call"
(while kill -0 $$; do sleep 0.1; done; echo >> /run/shared/survivors) > /dev/null 2>&1 &
exec /usr/libexec/witnessed/fence_kdump "$@" < "$call"
"""


@functools.cache
def packages() -> list[Path]:
    """Return the Debian packages of this tree, made as `make deb` makes them, once a process: in
    the order in which dpkg takes them.

    Raises tests.support.debian.NotAvailable.
    """
    folder = Path(tempfile.mkdtemp(prefix="kdumpfence-deb-"))
    atexit.register(shutil.rmtree, folder)
    done = debian.attempt("sh", str(ROOT / "packaging/deb.sh"), sys.executable, str(folder))
    if done.returncode != 0:
        raise NotAvailable(f"no Debian packages of this tree: {done.stdout}")
    (library,) = folder.glob("python3-kdumpfence_*.deb")
    (programs,) = folder.glob("kdumpfence_*.deb")
    return [library, programs]


def install(site: Site, which: str) -> None:
    """Put the agents on all machines that will be booted here; `which` is "ours" or "stock".

    The stock agent lies in the root file system, as Debian's package has it. Ours is installed
    by dpkg over that, which has to get out of its way.
    """
    _write(site.layer / "usr/sbin/fence_power", _POWER, 0o755)
    _write(site.layer / "usr/share/fence_power.xml", _POWER_METADATA)
    if which == "ours":
        for package in packages():
            shutil.copy(package, site.shared)
        with site.common_root() as run:
            for package in packages():
                run("dpkg", "--force-unsafe-io", "--install", f"/mnt/{package.name}")
            said = run("/usr/sbin/fence_kdump", "-V")
            assert "kdumpfence, compiled core" in said, said


def give_key(site: Site) -> None:
    """Put the cluster's key on all machines that will be booted here."""
    _write(site.layer / KEY.lstrip("/"), _made_key(site).read_text(), 0o600)


def node_key(node: Machine) -> str:
    """Where a node's sender finds its key, as if in a crash image: only what was derived for it."""
    _made_key(node.site)
    image_key = f"/run/disk/{node.name}/node-key"
    _key(node.site, "derive", "--file", _MADE_KEY, "--node", node.name, "--out", image_key)
    return image_key


def _made_key(site: Site) -> Path:
    made = site.disk / Path(_MADE_KEY).name
    if not made.exists():
        _key(site, "create", "--file", _MADE_KEY)
    return made


def _key(site: Site, *argv: str) -> None:
    site.tool(sys.executable, "-m", "kdumpfence.cli", "key", *argv, kinds=("mount",))


def enable_daemon(site: Site) -> None:
    """Let kdumpfenced run on all machines that will be booted here, as `systemctl enable` does."""
    _write(site.layer / "etc/kdumpfence/kdumpfenced.toml", 'networks = ["10.0.0.0/8"]\n')
    wants = site.layer / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "kdumpfenced.service").symlink_to("/lib/systemd/system/kdumpfenced.service")


def witness(site: Site) -> None:
    """Note what each call of fence_kdump is given, on all machines that will be booted here."""
    _write(site.shared / "witness", _WITNESS, 0o755)
    with site.common_root() as run:
        run("mkdir", "/usr/libexec/witnessed")
        run("mv", "/usr/sbin/fence_kdump", "/usr/libexec/witnessed")
        run("mv", "/mnt/witness", "/usr/sbin/fence_kdump")


def calls(site: Site, action: str) -> list[dict[str, str]]:
    """What fence_kdump was given on stdin for that action: parameters and values, oldest first."""
    notes = sorted(site.shared.glob("call.*"), key=lambda note: note.stat().st_mtime_ns)
    given = [
        dict(line.split("=", 1) for line in note.read_text().splitlines() if "=" in line)
        for note in notes
    ]
    return [call for call in given if call.get("action") == action]


def survivors(site: Site) -> int:
    """How many agents left a child behind, of those that have ended."""
    try:
        return len((site.shared / "survivors").read_text().splitlines())
    except FileNotFoundError:
        return 0


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
