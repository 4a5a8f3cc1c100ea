# SPDX-License-Identifier: GPL-2.0-or-later
"""The smallest crash initramfs that does the job: busybox, virtio's modules, senders, and a plan.

A plan is a shell script made of the words that small.sh has: `start`, `last_step`, `usable`,
`memory`, `stop`, and of busybox' own.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

from tests.support.initramfs import Initramfs
from tests.system.crash.first import add_busybox
from tests.system.netem import kernel

INIT = Path(__file__).with_name("small.sh")

#: For a crash kernel that is to say little and to end the guest when its init ends.
ARGUMENTS = (
    "console=ttyS0 quiet loglevel=3 panic=-1 nr_cpus=1 irqpoll reset_devices nokaslr "
    "mitigations=off"
)

# What a NIC of QEMU needs, in the order in which they are to be loaded.
MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("failover", "net_failover", "virtio_net"),
)
_APPLETS = ("echo", "grep", "insmod", "ip", "kill", "mount", "nc", "sh", "sleep", "true")


def save(file: Path, plan: str, programs: Mapping[str, Path], *, packed: bool = False) -> None:
    """Write a crash initramfs with these programs in /usr/bin, and with their libraries.

    It is packed with gzip if asked for, as crash kernels' are; that costs an emulated processor
    some time. Raises tests.support.debian.NotAvailable.
    """
    files = Initramfs()
    for name in ("/dev", "/proc", "/sys"):
        files.add_directory(Path(name))
    add_busybox(files, *_APPLETS)
    for name, program in programs.items():
        files.put(f"/usr/bin/{name}", program, 0o755)
    files.add_libraries()
    for number, module in enumerate(kernel.get(MODULES).modules):
        files.put(f"/modules/{number}-{module.name}", module)
    files.write("/etc/nsswitch.conf", "hosts: files\n")
    files.write("/etc/hosts", "127.0.0.1 localhost\n")
    files.write("/plan", plan)
    files.put("/init", INIT, 0o755)
    files.save(file)
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
