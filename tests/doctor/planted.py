# SPDX-License-Identifier: LGPL-2.1-or-later
"""Roots of machines in a cluster, as far as `kdumpfence doctor` looks at them."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kdumpfence import keys
from kdumpfence.doctor import checks, elf
from kdumpfence.doctor.finding import Finding
from kdumpfence.doctor.machine import Machine
from kdumpfence.install import layouts, native_sender
from kdumpfence.install.sysroot import Sysroot
from tests.conftest import cannot_run
from tests.install import roots
from tests.support.initramfs import Initramfs

KEY = bytes(range(32))
CLUSTER = keys.Keys((keys.key_id(KEY), KEY))
HOME = layouts.HOME
NODES = "198.51.100.72 198.51.100.73"
IMAGE = "/boot/initramfs-6.12.0-1.el10.x86_64kdump.img"
SYSCTL = {
    "panic": 10,
    "panic_on_oops": 1,
    "nmi_watchdog": 1,
    "hardlockup_panic": 1,
    "softlockup_panic": 0,
    "unknown_nmi_panic": 0,
    "hung_task_panic": 0,
}

Fault = Callable[[Path], object]
#: Of an image: the content and the mode of each file.
Files = dict[str, tuple[bytes, int]]
Change = Callable[[Files], object]


def put(path: str, content: bytes | str = b"", mode: int = 0o644) -> Fault:
    """The fault that a file is there, or has another content."""
    return lambda root: roots.put(root, path, content, mode)


def gone(path: str) -> Fault:
    """The fault that a file is missing."""
    return lambda root: (root / path[1:]).unlink()


def findings(root: Path, part: str, image: str = "") -> list[Finding]:
    """What that part's checks find there."""
    with Sysroot(str(root)) as opened:
        return checks.examine(Machine(opened, image), [part])[part]


def wrong(found: list[Finding]) -> list[tuple[str, str]]:
    """The states and checks that are not ok."""
    return [(one.state, one.check) for one in found if one.state != "ok"]


def installed(root: Path, system: str, layout: str, service: str) -> Path:
    """A node of a cluster with that system, after install-sender with a key."""
    root.mkdir()
    roots.make(root, system)
    _running(root)
    if service:
        wants = root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True)
        (wants / service).symlink_to(f"/usr/lib/systemd/system/{service}")
    roots.put(root, "/etc/hostname", "node1\n")
    roots.put(root, "/etc/kdumpfence/key", CLUSTER.text(), 0o600)
    if layout == "rhel":
        roots.put(root, "/etc/kdump.conf", f"path /var/crash\nfence_kdump_nodes {NODES}\n")
    else:
        roots.put(root, layouts.NODES, f'NODES="{NODES}"\nARGS=""\n')
    _install(root, layout)
    return root


def debian(root: Path) -> Path:
    """Debian with kdump-tools and a key."""
    installed(root, "debian", "debian", "kdump-tools.service")
    roots.put(root, "/etc/default/kdump-tools", "USE_KDUMP=1\n")
    _libraries(root)
    return root


def rhel(root: Path) -> Path:
    """RHEL with kdump-utils, a key, and an image."""
    return with_image(installed(root, "rhel9", "rhel", "kdump.service"))


def _running(root: Path) -> None:
    for name, value in (("size", 256 << 20), ("loaded", 1)):
        roots.put(root, f"/sys/kernel/kexec_crash_{name}", f"{value}\n")
    for name, value in SYSCTL.items():
        roots.put(root, f"/proc/sys/kernel/{name}", f"{value}\n")
    roots.put(root, "/sys/module/kernel/parameters/crash_kexec_post_notifiers", "N\n")
    roots.put(root, "/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 crashkernel=256M\n")
    (root / "sys/class/watchdog").mkdir(parents=True)


def _install(root: Path, layout: str) -> None:
    try:
        native_sender.find()
    except native_sender.NotBuilt as error:
        cannot_run(str(error))
    done = subprocess.run(
        [sys.executable, "-m", "kdumpfence.cli", "install-sender", "--root", str(root)]
        + ["--distribution", layout],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def _libraries(root: Path) -> None:
    """What the sender needs, as far as it is looked at."""
    needs = elf.needs(Path(native_sender.find()).read_bytes())
    for path in (needs.interpreter, *(f"/usr/lib/{name}" for name in needs.libraries)):
        roots.put(root, path, "", 0o755)


def image_files(root: Path) -> Files:
    """What the dracut module and kdump-utils put into their image, beside libraries."""
    resolved = f'NODES=""\nADDRESSES="{NODES}"\nARGS=""\n'.encode()
    own = {path: (root / path[1:]).read_bytes() for path in (layouts.THIS_NODE, layouts.NODE_KEY)}
    files = {
        layouts.RESOLVED: (resolved + own[layouts.THIS_NODE], 0o644),
        layouts.THIS_NODE: (own[layouts.THIS_NODE], 0o644),
        layouts.NODE_KEY: (own[layouts.NODE_KEY], 0o600),
        "/etc/kdump.conf": (f"fence_kdump_nodes  {NODES}\n".encode(), 0o644),
        "/etc/cmdline.d/50neednet.conf": (b"rd.neednet\n", 0o644),
        "/var/lib/dracut/hooks/cmdline/00-kdumpfence.sh": (
            layouts.data("dracut/kdumpfence.sh"),
            0o755,
        ),
        "/usr/libexec/fence_kdump_send": (layouts.data("dracut/unless-it-runs"), 0o755),
        "/usr/lib/modules/6.12/kernel/drivers/net/virtio_net.ko.xz": (b"", 0o644),
    }
    for name in ("fence_kdump_send", "start-sender", "tell-end"):
        files[f"{HOME}/{name}"] = ((root / HOME[1:] / name).read_bytes(), 0o755)
    return files


def with_image(
    root: Path,
    path: str = IMAGE,
    change: Change = lambda files: None,
    libraries: bool = True,
) -> Path:
    """Make the image anew, with these changes of what is in it."""
    files = image_files(root)
    change(files)
    return save_image(root, path, files, libraries)


def save_image(root: Path, path: str, files: Files, libraries: bool = False) -> Path:
    """Make an image of these files, with the libraries of what is in it or without."""
    image, sources = Initramfs(), root.parent / "sources"
    for name, (content, mode) in files.items():
        source = roots.put(sources, name, content)
        image.put(name, source, mode)
    if libraries:
        image.add_libraries()
    target = roots.put(root, path)
    image.save(target)
    target.write_bytes(gzip.compress(target.read_bytes(), 1))
    target.chmod(0o600)
    return root


def aged(path: str, seconds: int) -> Fault:
    """The fault that a file was changed so many seconds after (or before) the image."""

    def change(root: Path) -> None:
        touch(root / path[1:], (root / IMAGE[1:]).stat().st_mtime + seconds)

    return change


def touch(path: Path, time: float) -> None:
    """Let it have been changed then."""
    os.utime(path, (time, time))
