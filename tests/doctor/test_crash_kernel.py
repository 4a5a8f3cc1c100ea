# SPDX-License-Identifier: LGPL-2.1-or-later
"""What keeps a crash or hang from a crash kernel, or resets the node while it dumps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor import planted
from tests.doctor.planted import IMAGE, Fault, gone, put
from tests.install import roots

_PART = "crash kernel"
_KEXEC = "/sys/kernel/kexec_crash_"
_SYSCTL = "/proc/sys/kernel/"
_NOTIFIERS = "crash_kexec_post_notifiers"
_SBD = "/etc/default/sbd"


def both(*faults: Fault) -> Fault:
    return lambda root: [fault(root) for fault in faults]


def sbd(settings: str) -> Fault:
    wants = "/etc/systemd/system/corosync.service.requires/sbd.service"
    return both(put(wants), put(_SBD, settings), lambda root: (root / "sys/class/watchdog").rmdir())


def watchdog(identity: str, state: str = "active", driver: str = "iTCO_wdt") -> Fault:
    def plant(root: Path) -> None:
        folder = "/sys/class/watchdog/watchdog0"
        files = {"identity": identity, "state": state, "timeout": "5"}
        for name, text in files.items():
            roots.put(root, f"{folder}/{name}", f"{text}\n")
        if driver:
            (root / f"sys/module/{driver}").mkdir(parents=True)
            (root / folder[1:] / "device/driver").mkdir(parents=True)
            (root / folder[1:] / "device/driver/module").symlink_to(f"/sys/module/{driver}")

    return plant


def without_watchdog_class(root: Path) -> None:
    (root / "sys/class/watchdog").rmdir()


FAULTS: dict[str, tuple[Fault, str, str, str]] = {
    "no memory": (
        both(put(f"{_KEXEC}size", "0\n"), put(f"{_KEXEC}loaded", "0\n"), put("/proc/cmdline", "")),
        *("fails", "crash kernel loaded", "update-grub"),
    ),
    "memory asked for and not given": (
        both(put(f"{_KEXEC}size", "0\n"), put(f"{_KEXEC}loaded", "0\n")),
        *("fails", "crash kernel loaded", "dmesg | grep -i crashkernel"),
    ),
    "not loaded": (
        put(f"{_KEXEC}loaded", "0\n"),
        *("fails", "crash kernel loaded", "systemctl restart kdump-tools.service"),
    ),
    "not loaded, and never to be": (
        both(put(f"{_KEXEC}loaded", "0\n"), put(f"{_SYSCTL}kexec_load_disabled", "1\n")),
        *("fails", "crash kernel loaded", "kernel.kexec_load_disabled=1 out of /etc/sysctl.d"),
    ),
    "a kernel without kexec": (
        both(gone(f"{_KEXEC}size"), gone(f"{_KEXEC}loaded")),
        *("fails", "crash kernel loaded", "CONFIG_CRASH_DUMP"),
    ),
    "not started at boot": (
        gone("/etc/systemd/system/multi-user.target.wants/kdump-tools.service"),
        *("fails", "kdump enabled", "systemctl enable kdump-tools.service"),
    ),
    "switched off": (
        put("/etc/default/kdump-tools", "USE_KDUMP=1\nUSE_KDUMP=0\n"),
        *("fails", "kdump enabled", "USE_KDUMP=1"),
    ),
    "no kdump-tools": (
        gone("/usr/sbin/kdump-config"),
        *("fails", "kdump enabled", "apt-get install kdump-tools"),
    ),
    "notifiers first": (
        both(
            put(f"/sys/module/kernel/parameters/{_NOTIFIERS}", "Y\n"),
            put("/proc/cmdline", f"crashkernel=256M {_NOTIFIERS}\n"),
        ),
        *("warning", "panic undisturbed", f"take {_NOTIFIERS} off"),
    ),
    "an oops is no panic": (
        put(f"{_SYSCTL}panic_on_oops", "0\n"),
        *("warning", "oops panics", "kernel.panic_on_oops=1"),
    ),
    "a hard lockup is no panic": (
        put(f"{_SYSCTL}hardlockup_panic", "0\n"),
        *("warning", "hang panics", "kernel.hardlockup_panic=1"),
    ),
    "nobody looks for lockups": (
        put(f"{_SYSCTL}nmi_watchdog", "0\n"),
        *("warning", "hang panics", "kernel.softlockup_panic=1"),
    ),
    "a hardware watchdog": (
        watchdog("iTCO_wdt"),
        *("warning", "watchdog", "echo iTCO_wdt >>/etc/initramfs-tools/modules"),
    ),
    "a hardware watchdog of an unknown driver": (
        watchdog("i6300ESB timer", driver=""),
        *("warning", "watchdog", "its driver"),
    ),
    "sbd's watchdog, in a root that does not run": (
        sbd("SBD_WATCHDOG_DEV=/dev/watchdog\nSBD_WATCHDOG_TIMEOUT=15\n"),
        *("warning", "watchdog", "/etc/initramfs-tools/modules"),
    ),
    "systemd's watchdog, in a root that does not run": (
        both(
            without_watchdog_class,
            put("/etc/systemd/system.conf", "[Manager]\nRuntimeWatchdogSec=off\n"),
            put("/usr/lib/systemd/system.conf.d/10-x.conf", "[Manager]\nRuntimeWatchdogSec=30s\n"),
        ),
        *("warning", "watchdog", "/etc/initramfs-tools/modules"),
    ),
    "sbd crashes the node and gives it no time": (
        sbd('SBD_WATCHDOG_DEV=/dev/null\nSBD_TIMEOUT_ACTION="flush,crashdump"\nSBD_OPTS="-C 0"\n'),
        *("warning", "sbd crash dump", "kdumpfence history: POWER"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_with_its_remedy(healthy: Path, fault: str) -> None:
    plant, state, check, remedy = FAULTS[fault]
    plant(healthy)
    found = planted.findings(healthy, _PART)
    assert planted.wrong(found) == [(state, check)]
    assert remedy in next(one.remedy for one in found if one.check == check)


#: What is as good as what a healthy root has.
_FINE: dict[str, Fault] = {
    "as it is": lambda root: None,
    "kernel.panic is no matter": put(f"{_SYSCTL}panic", "0\n"),
    "a soft lockup panics": both(
        put(f"{_SYSCTL}nmi_watchdog", "0\n"), put(f"{_SYSCTL}softlockup_panic", "1\n")
    ),
    "an NMI panics": both(
        put(f"{_SYSCTL}nmi_watchdog", "0\n"), put(f"{_SYSCTL}unknown_nmi_panic", "1\n")
    ),
    "notifiers first, as the platform wants it": put(
        f"/sys/module/kernel/parameters/{_NOTIFIERS}", "Y\n"
    ),
    "a software watchdog": watchdog("Software Watchdog", driver=""),
    "a watchdog that does not run": watchdog("iTCO_wdt", "inactive"),
    "sbd without a watchdog": sbd("SBD_WATCHDOG_DEV=/dev/null\n"),
    "sbd gives the time to dump": sbd(
        "SBD_WATCHDOG_DEV=/dev/null\nSBD_TIMEOUT_ACTION=crashdump\nSBD_OPTS='-C 600'\n"
    ),
    "the watchdog's time is off": both(
        without_watchdog_class, put("/etc/systemd/system.conf", "RuntimeWatchdogSec=0\n")
    ),
}


@pytest.mark.parametrize("fine", _FINE)
def test_what_is_fine_is_not_complained_of(healthy: Path, fine: str) -> None:
    _FINE[fine](healthy)
    found = planted.findings(healthy, _PART)
    assert planted.wrong(found) == []
    assert {"crash kernel loaded", "kdump enabled", "hang panics"} <= {one.check for one in found}


@pytest.mark.parametrize("inside", [True, False])
def test_a_watchdog_whose_driver_is_in_the_image_is_taken_over(
    healthy_rhel: Path, inside: bool
) -> None:
    watchdog("iTCO_wdt")(healthy_rhel)
    module = "/usr/lib/modules/6.12/kernel/drivers/watchdog/iTCO_wdt.ko.xz"
    if inside:
        planted.with_image(healthy_rhel, IMAGE, lambda files: files.update({module: (b"", 0o644)}))
    found = planted.findings(healthy_rhel, _PART)
    assert planted.wrong(found) == ([] if inside else [("warning", "watchdog")])
    assert inside or "extra_modules iTCO_wdt" in found[-1].remedy


def test_a_root_that_does_not_run_has_no_crash_kernel_to_look_at(tmp_path: Path) -> None:
    roots.make(tmp_path, "sles")
    assert planted.wrong(planted.findings(tmp_path, _PART)) == [
        ("unknown", "crash kernel loaded"),
        ("fails", "kdump enabled"),
    ]
