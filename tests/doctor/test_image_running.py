# SPDX-License-Identifier: LGPL-2.1-or-later
"""What only the running system knows: the interfaces that lead to the nodes, when kdump started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kdumpfence.doctor import checks
from kdumpfence.doctor.finding import Finding
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.sysroot import Sysroot
from tests.doctor import planted
from tests.doctor.planted import IMAGE
from tests.install import roots

_BOOT = 1_700_000_000
_STARTED = 3600


class Running(Machine):
    """A planted root that is taken for the running system; what its programs say stands here."""

    def __init__(self, root: Sysroot) -> None:
        super().__init__(root)
        self.runs = True

    def ask(self, *command: str, seconds: float = 3) -> subprocess.CompletedProcess[str]:
        said = {
            "ip": f"{command[-1]} dev bond0 src 198.51.100.71 uid 0 \\    cache \n",
            "systemctl": f"ActiveEnterTimestampMonotonic={_STARTED * 1_000_000}\n",
        }
        return subprocess.CompletedProcess(command, 0, said[command[0]], "")


def findings(root: Path) -> list[Finding]:
    with Sysroot(str(root)) as opened:
        return checks.examine(Running(opened), ["image"])["image"]


@pytest.fixture
def bonded(healthy_rhel: Path) -> Path:
    """The way to the nodes is a bond of one card; kdump was started after its image was made."""
    root = healthy_rhel
    net, modules = root / "sys/class/net", root / "sys/module"
    for name in ("bonding", "virtio_net"):
        (modules / name).mkdir(parents=True)
        (modules / name / "initstate").write_text("live\n")
    (net / "bond0/bonding").mkdir(parents=True)
    (net / "bond0/lower_eth0").symlink_to("../eth0")
    (net / "eth0/device/driver").mkdir(parents=True)
    (net / "eth0/device/driver/module").symlink_to("/sys/module/virtio_net")
    roots.put(root, "/etc/sysconfig/kdump", "KDUMP_KERNELVER=6.12.0-1.el10.x86_64\n")
    roots.put(root, "/proc/stat", f"cpu 0 0\nbtime {_BOOT}\n")
    return root


def driver(files: planted.Files) -> None:
    files["/usr/lib/modules/6.12/kernel/drivers/net/bonding/bonding.ko.zst"] = (b"", 0o644)


def built_in(files: planted.Files) -> None:
    files["/usr/lib/modules/6.12/modules.builtin"] = (b"kernel/net/bonding.ko\n", 0o644)


def image_at(root: Path, seconds: int) -> None:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            planted.touch(path, _BOOT)
    planted.touch(root / IMAGE[1:], _BOOT + seconds)


@pytest.mark.parametrize("change", [driver, built_in])
def test_drivers_inside_and_a_kdump_that_was_started_since_are_fine(
    bonded: Path, change: planted.Change
) -> None:
    planted.with_image(bonded, change=change)
    image_at(bonded, _STARTED - 10)
    found = findings(bonded)
    assert planted.wrong(found) == []
    texts = {one.check: one.text for one in found}
    assert texts["drivers inside"] == "bonding of bond0, virtio_net of eth0"
    assert "image loaded" in texts


def test_a_driver_that_the_image_lacks_is_named(bonded: Path) -> None:
    image_at(bonded, _STARTED - 10)
    found = findings(bonded)
    assert planted.wrong(found) == [("fails", "drivers inside")]
    (fault,) = (one for one in found if one.remedy)
    assert fault.text == "the image lacks bonding of bond0"
    assert "extra_modules bonding" in fault.remedy


def test_an_image_that_is_newer_than_the_start_of_kdump_is_not_what_is_loaded(bonded: Path) -> None:
    planted.with_image(bonded, change=driver)
    image_at(bonded, _STARTED + 10)
    found = findings(bonded)
    assert planted.wrong(found) == [("warning", "image loaded")]
    assert [one.remedy for one in found if one.remedy] == ["systemctl restart kdump.service"]


def test_the_image_of_another_kernel_is_not_what_the_crash_boots(bonded: Path) -> None:
    roots.put(bonded, "/etc/sysconfig/kdump", 'KDUMP_KERNELVER=""\n')
    found = findings(bonded)
    assert planted.wrong(found) == [("fails", "image found")]
    assert f"no image for the kernel {os.uname().release}" in found[1].text


def test_with_a_firmware_assisted_dump_the_image_has_to_be_named(bonded: Path) -> None:
    roots.put(bonded, "/sys/kernel/fadump/enabled", "1\n")
    assert planted.wrong(findings(bonded)) == [("unknown", "image found")]
