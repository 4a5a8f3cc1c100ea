# SPDX-License-Identifier: LGPL-2.1-or-later
"""SUSE's kdump and images of one's own; and files that nobody would expect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdumpfence.install import layouts
from kdumpfence.text import one_line
from tests.doctor import planted
from tests.doctor.planted import HOME, IMAGE, NODES, Fault, Files, gone, put
from tests.doctor.test_crash_kernel import watchdog
from tests.install import roots

pytestmark = pytest.mark.slow

_PART = "image"
_KDUMP = "/etc/sysconfig/kdump"
_SUSE_IMAGE = "/var/lib/kdump/initrd"
_SUSE_SENDER = "/usr/lib/fence_kdump_send"
_SUSE_REBUILD = "mkdumprd -f && systemctl restart kdump"


@pytest.fixture
def suse(tmp_path: Path) -> Path:
    root = planted.installed(tmp_path / "root", "sles", "suse", "kdump.service")
    roots.put(root, _KDUMP, "KDUMP_NETCONFIG='auto:force'\n")
    return planted.with_image(root, _SUSE_IMAGE, as_suse)


def as_suse(files: Files) -> None:
    del files["/usr/libexec/fence_kdump_send"]
    del files["/etc/kdump.conf"]


def without_network(files: Files) -> None:
    as_suse(files)
    del files["/etc/cmdline.d/50neednet.conf"]


def by_script(root: Path) -> None:
    """As SUSE documents it, without our module."""
    script = f"KDUMP_PRESCRIPT='setsid -f {_SUSE_SENDER} {NODES}'\n"
    settings = f"{script}KDUMP_REQUIRED_PROGRAMS='{_SUSE_SENDER}'\nKDUMP_NETCONFIG='auto:force'\n"
    roots.put(root, _KDUMP, settings)
    sender = (root / _SUSE_SENDER[1:]).read_bytes()

    def change(files: Files) -> None:
        as_suse(files)
        for path in [path for path in files if "kdumpfence" in path]:
            del files[path]
        files[_SUSE_SENDER] = (sender, 0o755)
        files[_KDUMP] = (settings.encode(), 0o644)

    planted.with_image(root, _SUSE_IMAGE, change)


def test_suses_image_is_found_and_has_nothing_wrong(suse: Path) -> None:
    found = planted.findings(suse, _PART)
    assert planted.wrong(found) == []
    assert found[1].text.endswith(_SUSE_IMAGE)


def test_a_sender_that_suses_script_starts_will_do(suse: Path) -> None:
    by_script(suse)
    found = planted.findings(suse, _PART)
    assert ("ok", "sender started") in [(one.state, one.check) for one in found]
    assert ("fails", "sender inside") not in planted.wrong(found)


def older(root: Path) -> None:
    (root / "boot").mkdir()
    (root / _SUSE_IMAGE[1:]).rename(root / "boot/initrd-5.14.21-150500.53-default-kdump")


def test_of_older_versions_it_is_found_in_boot(suse: Path) -> None:
    older(suse)
    found = planted.findings(suse, _PART)
    assert planted.wrong(found) == []
    assert found[1].text.endswith("-kdump")


_SUSE_FAULTS: dict[str, tuple[Fault, list[tuple[str, str]], str]] = {
    "no network asked for": (
        put(_KDUMP, "KDUMP_SAVEDIR=/var/crash\n"),
        [("warning", "sender settings"), ("warning", "image current")],
        _SUSE_REBUILD,
    ),
    "no image": (gone(_SUSE_IMAGE), [("fails", "image found")], _SUSE_REBUILD),
    "no nodes": (
        put(layouts.NODES, "NODES=\nBAD LINE\n"),
        [("fails", "sender installed"), ("warning", "image current")],
        _SUSE_REBUILD,
    ),
    "no network inside": (
        lambda root: planted.with_image(root, _SUSE_IMAGE, without_network),
        [("fails", "network set up")],
        "KDUMP_NETCONFIG='auto:force'",
    ),
}


@pytest.mark.parametrize("fault", _SUSE_FAULTS)
def test_a_fault_on_suse_is_found_with_its_remedy(suse: Path, fault: str) -> None:
    plant, wrong, remedy = _SUSE_FAULTS[fault]
    plant(suse)
    image = suse / _SUSE_IMAGE[1:]
    if image.exists():
        planted.touch(suse / _KDUMP[1:], image.stat().st_mtime + (10 if len(wrong) > 1 else -10))
    found = planted.findings(suse, _PART)
    assert planted.wrong(found) == wrong
    assert remedy in next(one.remedy for one in found if one.remedy)


# ------------------------------------------------------------------ images of one's own

_OWN = "/boot/crash.img"
_INIT_TOP = "/scripts/init-top/kdumpfence"
_ORDER = "/scripts/init-top/ORDER"


def as_initramfs_tools(files: Files) -> None:
    without_network(files)
    del files["/var/lib/dracut/hooks/cmdline/00-kdumpfence.sh"]
    files[_INIT_TOP] = (layouts.data("initramfs-tools/init-top"), 0o755)
    files[_ORDER] = (b'/scripts/init-top/kdumpfence "$@"\n', 0o644)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    root = planted.installed(tmp_path / "root", "debian", "initramfs-tools", "")
    roots.put(root, "/usr/share/initramfs-tools/hook-functions")
    roots.put(root, "/etc/initramfs-tools/conf.d/umask", "UMASK=0077\n")
    return planted.with_image(root, _OWN, as_initramfs_tools)


def test_an_image_of_ones_own_has_to_be_named(own: Path) -> None:
    assert planted.wrong(planted.findings(own, _PART)) == [("unknown", "image found")]
    found = planted.findings(own, _PART, _OWN)
    assert planted.wrong(found) == []
    assert {"sender inside", "sender started", "key inside"} <= {one.check for one in found}


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.pop(_INIT_TOP),
        lambda files: files.update({_ORDER: (b"/scripts/init-top/udev\n", 0o644)}),
        lambda files: files.update({_INIT_TOP: (b"", 0o644)}),
    ],
)
def test_a_script_that_initramfs_tools_does_not_run_starts_nothing(
    own: Path, change: planted.Change
) -> None:
    def changed(files: Files) -> None:
        as_initramfs_tools(files)
        change(files)

    planted.with_image(own, _OWN, changed)
    found = planted.findings(own, _PART, _OWN)
    assert planted.wrong(found) == [("fails", "sender started")]
    assert "mkinitramfs" in next(one.remedy for one in found if one.remedy)


@pytest.mark.parametrize("inside", [True, False])
def test_kdump_tools_image_has_the_driver_of_the_watchdog_or_not(
    healthy: Path, inside: bool
) -> None:
    watchdog("iTCO_wdt")(healthy)
    module = "/usr/lib/modules/6.12/kernel/drivers/watchdog/iTCO_wdt.ko"
    files = {module if inside else "/init": (b"", 0o644)}
    planted.save_image(healthy, "/var/lib/kdump/initrd.img-6.12", files)
    (healthy / "var/lib/kdump/initrd.img").symlink_to("/var/lib/kdump/initrd.img-6.12")
    wrong = planted.wrong(planted.findings(healthy, "crash kernel"))
    assert wrong == ([] if inside else [("warning", "watchdog")])


# ------------------------------------------------------------------ what nobody would expect

_LOOKED_AT = (
    f"{HOME}/installed",
    f"{HOME}/fence_kdump_send",
    layouts.NODES,
    layouts.RESOLVED,
    layouts.NODE_KEY,
    "/etc/kdumpfence/key",
    "/etc/kdump.conf",
    "/etc/os-release",
    "/etc/hostname",
    "/etc/sysconfig/kdump",
    "/etc/systemd/system.conf",
    "/proc/cmdline",
    "/proc/sys/kernel/panic_on_oops",
    "/sys/kernel/kexec_crash_size",
    IMAGE,
)


def strange(kind: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or path.is_symlink():
        path.unlink()
    if kind == "bytes":
        path.write_bytes(bytes(range(256)) * 4)
    elif kind == "braces":
        path.write_text('{"layouts": {"rhel": [1]}, "ours": 3}\n$(reboot) `reboot` \x1b[31m\n')
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "many":
        path.write_text("NODES=" + "9" * 5000 + "\n" * 5000)


@pytest.mark.parametrize("kind", ["bytes", "braces", "directory", "loop", "fifo", "many"])
@pytest.mark.parametrize("system", ["healthy", "healthy_rhel"])
def test_whatever_a_file_is_there_are_findings_of_one_line(
    request: pytest.FixtureRequest, system: str, kind: str
) -> None:
    root: Path = request.getfixturevalue(system)
    for path in _LOOKED_AT:
        target = root / path[1:]
        kept = target.read_bytes() if target.is_file() else None
        mode = target.stat().st_mode if kept is not None else 0
        strange(kind, target)
        for part in ("crash kernel", "image"):
            for one in planted.findings(root, part):
                assert "Traceback" not in one.text
                assert "\n" not in one_line(one.text)
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        else:
            target.unlink()
        if kept is not None:
            roots.put(root, path, kept, mode & 0o7777)


def test_the_command_says_it_all_and_ends_with_the_worst(healthy: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kdumpfence.cli", "doctor", "--root", str(healthy), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("image", "crash kernel")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith(" ok")
    put("/proc/sys/kernel/panic_on_oops", "0\n")(healthy)
    done = run("crash kernel")
    assert done.returncode == 1
    assert "crash kernel: oops panics: printf" in done.stdout
    gone(f"{HOME}/fence_kdump_send")(healthy)
    assert run().returncode == 2
    assert '"state": "fails"' in run("--json").stdout
