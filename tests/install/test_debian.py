# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's crash kernel starts the sender before the dump: the real units, and a real systemd.

The units and the init script are those of the real kdump-tools. Of the machine that runs the
tests only systemd itself is used, and no unit of its own but a few that every boot has.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.install import layouts
from kdumpfence.wire import decode_packet
from tests.conftest import cannot_run, fill
from tests.install import roots
from tests.install.conftest import Command
from tests.install.machine import OVERLAY, senders, until
from tests.install.terminals import terminal
from tests.support.labs import lab
from tests.support.netlab import Host

SYSTEMD = "/lib/systemd/systemd"
UNIT = "kdumpfence-send.service"
_ARROW = "(?:->|→)"  # by the version of systemd
# What a boot has in any case, as far as the dump needs it.
BOOT_UNITS = (
    *("basic.target", "sysinit.target", "local-fs.target", "shutdown.target", "final.target"),
    *("network.target", "network-online.target", "umount.target", "reboot.target"),
    *("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"),
    *("emergency.target", "rescue.target", "sockets.target", "paths.target", "timers.target"),
    *("slices.target", "swap.target", "multi-user.target"),
)


@pytest.fixture
def root(root_directory: Path) -> Path:
    """Debian with the real kdump-tools, and the units of a boot."""
    roots.make(root_directory, "debian")
    (root_directory / "lib").symlink_to("usr/lib")  # packages have units on either side of it
    roots.with_package(root_directory, "kdump-tools")
    system = root_directory / "lib/systemd/system"
    for unit in BOOT_UNITS:
        real = Path("/lib/systemd/system") / unit
        if not real.exists():
            cannot_run(f"{real} is missing")
        shutil.copy(real, system / unit)
    return root_directory


@pytest.mark.slow
def test_the_unit_is_sound(command: Command, root: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        cannot_run("systemd-analyze is missing")
    command.ok(root)
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--root={root}", "--man=no", f"/etc/systemd/system/{UNIT}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Else systemd 258 and later do nothing, on a machine that has the older hierarchy.
_UNIFIED = 'mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec "$@"'


def transaction(root: Path, unit: str) -> tuple[set[str], str]:
    """What systemd would start to boot into that unit, and what it knows of ours."""
    if os.geteuid() != 0 or not Path(SYSTEMD).exists():
        cannot_run(f"not root, or no {SYSTEMD}")
    capabilities = "+dac_read_search"  # it does not test as root; and it shall change nothing
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", _UNIFIED, "sh"),
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *("--inh-caps", capabilities, "--ambient-caps", capabilities),
            *(SYSTEMD, "--test", "--system", f"--unit={unit}", "--no-pager"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={
            "SYSTEMD_UNIT_PATH": f"{root}/etc/systemd/system:{root}/lib/systemd/system",
            "PATH": "/usr/bin:/bin",
        },
    )
    assert done.returncode == 0, done.stderr
    units, _, jobs = done.stdout.partition("-> By jobs:")
    started = set(re.findall(r"Action: (\S+) -> start", jobs))
    ours = re.search(
        rf"^\t{_ARROW} Unit {UNIT}:\n(.*?)(?=^\t{_ARROW} Unit |\Z)", units, re.MULTILINE | re.DOTALL
    )
    return started, "" if ours is None else ours[1]


@pytest.mark.parametrize("boot", ["kdump-tools-dump.service", "kdump-tools.service"])
@pytest.mark.slow
def test_the_boot_into_the_dump_starts_the_sender_first(
    command: Command, root: Path, boot: str
) -> None:
    assert UNIT not in transaction(root, boot)[0]
    command.ok(root)
    started, ours = transaction(root, boot)
    assert {boot, UNIT} <= started
    assert f"Before: {boot} " in ours
    # For nothing that may take time or fail, and ended by no shutdown.
    waits_for = set(re.findall(r"After: (\S+)", ours))
    assert waits_for == {"system.slice", "systemd-journald.socket"}
    assert set(re.findall(r"(?:Requires|BindsTo|Wants|PartOf): (\S+)", ours)) == {"system.slice"}
    assert re.findall(r"(?:Conflicts|ConflictedBy): (\S+)", ours) == []


def test_the_normal_boot_of_kdump_tools_is_the_one_that_is_known(root: Path) -> None:
    """kdump-config has the crash kernel boot the unit that ours is wanted by."""
    script = (root / "usr/sbin/kdump-config").read_text()
    assert "systemd.unit=kdump-tools-dump.service" in script
    assert "reboot -f" in (root / "etc/init.d/kdump-tools").read_text()


# A boot of that root. /proc/vmcore cannot be made, so in these copies it is /etc/vmcore.
_BOOT = (
    OVERLAY
    + """
    rm -rf etc/systemd etc/fstab etc/kdumpfence usr/lib/kdumpfence usr/lib/systemd/system-generators
    tar -C "$ROOT" -cf - etc/systemd etc/kdumpfence etc/init.d/kdump-tools etc/default \
        usr/lib/kdumpfence usr/sbin/kdump-config | tar -xf -
    ln -sf /usr/bin/systemctl usr/sbin/reboot  # as systemd-sysv has it
    mkdir units talk
    mount --bind "$ROOT/talk" talk
    cp -a "$ROOT/lib/systemd/system/." units/
    sed -i 's,/proc/vmcore,/etc/vmcore,' etc/init.d/kdump-tools \
        etc/systemd/system/kdumpfence-send.service usr/lib/kdumpfence/tell-end
    test -z "$CRASHED" || echo dump > etc/vmcore
    mount -t proc proc proc
    mount -t tmpfs tmpfs run
    mount -t tmpfs tmpfs tmp
    mount -t sysfs -o ro sysfs sys
    hierarchy=
    if test -e "$GROUP/cgroup.controllers"; then
        mount -t cgroup2 cgroup2 sys/fs/cgroup
    else
        # It would mount the other one too, where there is no group of its own.
        hierarchy='systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1'
        mount -t tmpfs tmpfs sys/fs/cgroup
        mkdir sys/fs/cgroup/systemd
        mount -t cgroup -o none,name=systemd,xattr cgroup sys/fs/cgroup/systemd
    fi
    mount -t tmpfs tmpfs dev
    cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom dev/
    ln -s /proc/self/fd dev/fd
    mkdir dev/shm
    : > dev/console
    mount --bind "$CONSOLE" dev/console
    exec chroot . env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        SYSTEMD_UNIT_PATH=/etc/systemd/system:/units SYSTEMD_PROC_CMDLINE="$hierarchy" \
        /lib/systemd/systemd --system --unit=kdump-tools-dump.service \
        --log-target="$LOG" --show-status=no
"""
)

# In the place of kdump-config: a dump that takes as long as the test wants.
_DUMP = """#!/bin/sh
echo "$*" >/talk/begun.new
mv /talk/begun.new /talk/begun
read -r end </talk/end
[ "$end" = saved ]
"""


@contextlib.contextmanager
def own_cgroup() -> Iterator[Path]:
    """A control group for one boot, with all that systemd makes in it, and nothing left."""
    top = Path("/sys/fs/cgroup")
    unified = (
        folder for folder in (top, top / "unified") if (folder / "cgroup.controllers").exists()
    )
    # systemd 258 and later know no other hierarchy, older ones do without it.
    above = next(unified, top / "systemd")
    group = above / f"kdumpfence-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        cannot_run(f"no control group of its own for systemd: {error}")
    try:
        yield group
    finally:
        for _ in range(200):  # the last process leaves it a little after its end
            with contextlib.suppress(OSError):
                for folder, _, _ in os.walk(group, topdown=False):
                    os.rmdir(folder)
                break
            time.sleep(0.05)
        assert not group.exists()


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """The node that crashes, and another."""
    with lab() as opened:
        node1, node2 = opened.host("node1"), opened.host("node2")
        opened.link(node1, node2, ["10.0.0.1/24"], ["10.0.0.2/24"])
        yield node1, node2


@pytest.fixture
def ear(hosts: tuple[Host, Host]) -> Iterator[socket.socket]:
    """What the other node hears."""
    with hosts[1].open_socket() as sock:
        sock.bind(("10.0.0.2", 7410))
        sock.settimeout(60)
        yield sock


@contextlib.contextmanager
def booted(
    host: Host, root: Path, crashed: bool, stuck: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Boot that root on that host; yields when the dump, or the loading, has begun.

    A console that is stuck is full from the beginning, and nobody reads it before the end.
    """
    console, inside, name = terminal(host)
    said: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(console, said))
    if stuck:
        fill(inside)
    else:
        reader.start()
    try:
        with own_cgroup() as group:
            program = host.popen(
                [
                    *("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"),
                    *("unshare", "--mount", "--pid", "--ipc", "--uts", "--cgroup"),
                    *("--fork", "--kill-child=KILL", "sh", "-c", _BOOT),
                ],
                env={
                    "GROUP": str(group),
                    "ROOT": str(root),
                    "CONSOLE": name,
                    "CRASHED": "yes" if crashed else "",
                    "LOG": "null" if stuck else "console",
                },
                stdout=inside,
                stderr=inside,
            )
            os.close(inside)
            try:
                begun = root / "talk/begun"
                until(lambda: program.poll() is not None or begun.exists())
                assert begun.exists(), b"".join(said).decode(errors="replace")
                yield program
            finally:
                program.kill()
                program.wait()
    finally:
        if stuck:
            reader.start()
        reader.join()
        os.close(console)


def _read_all(console: int, said: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while True:
            said.append(os.read(console, 4096))


@pytest.fixture
def bootable(command: Command, root: Path, built: str) -> Path:
    """That root with the real sender, one node to be told and a dump in the test's hands."""
    if not Path(SYSTEMD).exists():
        cannot_run(f"{SYSTEMD} is missing")
    command.build(Path(built).read_bytes())
    roots.put(root, layouts.NODES, 'NODES="no-such-node"\nARGS=" -v\t-i  5"\n')
    roots.put(root, "/etc/default/kdump-tools", "USE_KDUMP=1\n")
    roots.put(root, "/usr/sbin/kdump-config", _DUMP, 0o755)
    (root / "talk").mkdir()
    os.mkfifo(root / "talk/end")
    command.ok(root)
    # As it was when the name could still be looked up.
    roots.put(
        root,
        layouts.RESOLVED,
        'NODES="no-such-node"\nADDRESSES="10.0.0.2"\nARGS="-v"\nTHIS_NODE="--node=node1"\n',
    )
    return root


@pytest.mark.slow
def test_a_crash_kernel_tells_until_it_reboots(
    hosts: tuple[Host, Host], bootable: Path, ear: socket.socket
) -> None:
    with booted(hosts[0], bootable, crashed=True) as program:
        assert (bootable / "talk/begun").read_text() == "savecore\n"
        for _ in range(3):
            assert len(ear.recv(100)) >= 8
        # Split as a shell does it, and at the = by the sender.
        options = ["--node", "node1", "-v", "-i", "5"]
        command = ["@fence_kdump_send", *options, "10.0.0.2", "no-such-node"]
        assert list(senders(hosts[0]).values()) == [command]
        (bootable / "talk/end").write_text("saved\n")
        assert program.wait(60) != 0  # killed by `reboot -f`, which nothing holds up
        assert senders(hosts[0]) == {}


#: What kdumpfence(8) says is to be put at the end of /etc/default/kdump-tools.
(_LINES,) = re.findall(
    r"^if \[ -x \S+ \]; then\n +KDUMP_SCRIPT=\S+\nfi\n",
    (Path(__file__).resolve().parents[2] / "docs/kdumpfence.8").read_text().replace("\\-", "-"),
    re.MULTILINE,
)


@pytest.mark.parametrize("state", ["finished", "failed"])
@pytest.mark.slow
def test_how_the_dump_ended_is_told_before_the_reboot(
    hosts: tuple[Host, Host], bootable: Path, ear: socket.socket, state: str
) -> None:
    with (bootable / "etc/default/kdump-tools").open("a") as settings:
        settings.write(_LINES)
    with booted(hosts[0], bootable, crashed=True) as program:
        assert (bootable / "talk/begun").read_text() == "savecore\n"
        packet = decode_packet(ear.recv(200))
        assert packet is not None
        assert packet.state == "dumping"
        (bootable / "talk/end").write_text("saved\n" if state == "finished" else "no space\n")
        while packet is None or packet.state == "dumping":
            packet = decode_packet(ear.recv(200))
        assert (packet.name, packet.state) == ("node1", state)
        assert program.wait(60) != 0


@pytest.mark.slow
def test_the_dump_is_saved_when_the_sender_is_gone_and_the_settings_are_not(
    hosts: tuple[Host, Host], bootable: Path
) -> None:
    with (bootable / "etc/default/kdump-tools").open("a") as settings:
        settings.write(_LINES)
    shutil.rmtree(bootable / "usr/lib/kdumpfence")
    (bootable / "usr/lib/kdumpfence").mkdir()
    (bootable / "usr/lib/kdumpfence/tell-end").touch()  # for the script that makes the boot
    with booted(hosts[0], bootable, crashed=True) as program:
        assert (bootable / "talk/begun").read_text() == "savecore\n"
        (bootable / "talk/end").write_text("saved\n")
        assert program.wait(60) != 0


@pytest.mark.slow
def test_a_normal_boot_sends_nothing(hosts: tuple[Host, Host], bootable: Path) -> None:
    with booted(hosts[0], bootable, crashed=False):
        assert (bootable / "talk/begun").read_text() == "load\n"
        assert senders(hosts[0]) == {}  # it would be there by now, being ordered before


@pytest.mark.parametrize("trouble", ["the list is gone", "the console is stuck", "no sender"])
@pytest.mark.slow
def test_whatever_is_wrong_the_dump_begins_and_the_reboot_comes(
    hosts: tuple[Host, Host], bootable: Path, ear: socket.socket, trouble: str
) -> None:
    if trouble == "the list is gone":
        (bootable / layouts.NODES[1:]).unlink()  # its addresses are still known
    elif trouble == "no sender":
        (bootable / "usr/lib/kdumpfence/fence_kdump_send").unlink()
    stuck = trouble == "the console is stuck"
    with booted(hosts[0], bootable, crashed=True, stuck=stuck) as program:
        if trouble != "no sender":
            for _ in range(3):
                assert len(ear.recv(100)) >= 8
        (bootable / "talk/end").write_text("saved\n")
        assert program.wait(60) != 0
