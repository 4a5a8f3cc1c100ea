# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a dump has ended is told by whatever saves it, and costs three seconds at most.

What the programs of distributions do around it is theirs: kdump-tools' init script and kdump-config
are Debian's own, those of kdump-utils and SUSE's kdump are played as kdump.sh and kdump-save do it.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence import keys
from kdumpfence.install import layouts
from kdumpfence.wire import decode_packet, packet_fits
from tests.install.machine import Machine, until

TELL_END = "/usr/lib/kdumpfence/tell-end"
_RECORD = '#!/bin/sh\necho "$@" >/tmp/call.new\n/bin/mv /tmp/call.new /tmp/call\n{}\n'


class Crashed:
    """The machine in its crash kernel, with a sender that only writes down how it was called."""

    def __init__(self, machine: Machine, vmcore: Path) -> None:
        self.machine = machine
        self.root = machine.root
        self.vmcore = vmcore
        self.call = machine.root / "tmp/call"
        vmcore.write_text("dump")
        (self.root / layouts.RESOLVED[1:]).write_text(
            'NODES="node2 node3"\nADDRESSES="10.0.0.2"\nARGS="-v -i 5"\n'
            f'THIS_NODE="--node=node1 --key-file={layouts.NODE_KEY}"\n'
        )
        self.sender("")

    def sender(self, then: str) -> None:
        """Let the sender do this after it was called."""
        place = self.root / "usr/lib/kdumpfence/fence_kdump_send"
        place.unlink(missing_ok=True)
        place.write_text(_RECORD.format(then))
        place.chmod(0o755)

    def told(self, *command: str, env: dict[str, str] | None = None) -> str:
        """The state that is told when this is run, "" if nothing is; it says nothing, and soon."""
        self.call.unlink(missing_ok=True)
        begin = time.monotonic()
        assert self.machine.chroot(*command, env=env) == ""
        took = time.monotonic() - begin
        if not self.call.exists():
            return ""
        words = self.call.read_text().split()
        assert 2.9 < took < 20, took
        at = words.index("-c") - 1
        assert words[:at] == ["--node=node1", f"--key-file={layouts.NODE_KEY}", "-v", "-i", "5"]
        assert words[at + 1 :] == ["-c", "3", "-i", "1", "10.0.0.2", "node2", "node3"]
        assert words[at].startswith("--state=")
        return words[at][len("--state=") :]


@pytest.fixture
def crashed(machine: Machine, booted: Path) -> Iterator[Crashed]:
    yield Crashed(machine, booted)
    (machine.root / "usr/lib/kdumpfence/fence_kdump_send").unlink()
    (machine.root / layouts.RESOLVED[1:]).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (["finished"], "finished"),
        (["0"], "finished"),
        (["saved successfully"], "finished"),
        (["failed"], "failed"),
        (["1"], "failed"),
        (["127"], "failed"),
        (["error while saving, return code: 1"], "failed"),
        (["deleted (5 < KDUMP_FREE_DISK_SIZE 64)"], "failed"),
        ([], ""),
        ([""], ""),
        (["skipped"], ""),
        (['"$VMCORE_STATUS"'], ""),
        (["00"], ""),
        (["-1"], ""),
        (["1000"], ""),
        (["saved", "successfully"], ""),
    ],
    ids=str,
)
@pytest.mark.slow
def test_the_state_is_that_of_the_dump(crashed: Crashed, status: list[str], state: str) -> None:
    assert crashed.told(TELL_END, *status) == state


def test_on_a_node_that_has_not_crashed_nothing_is_told(crashed: Crashed) -> None:
    crashed.vmcore.unlink()
    begin = time.monotonic()
    assert crashed.told(TELL_END, "finished") == ""
    assert time.monotonic() - begin < 2.5


@pytest.mark.slow
def test_where_there_is_no_sleep_nobody_waits(crashed: Crashed) -> None:
    assert crashed.machine.chroot("/usr/bin/env", "PATH=/none", TELL_END, "finished") == ""
    until(crashed.call.exists)
    assert "--state=finished" in crashed.call.read_text()


@pytest.mark.slow
def test_a_sender_that_hangs_is_not_waited_for(crashed: Crashed) -> None:
    crashed.sender("exec sleep 30")
    assert crashed.told(TELL_END, "finished") == "finished"


@pytest.mark.slow
def test_the_real_sender_signs_what_it_tells(
    machine: Machine, booted: Path, ear: socket.socket
) -> None:
    own = keys.Keys((7, bytes(range(32))), node="node1")
    file = machine.root / layouts.NODE_KEY[1:]
    file.parent.mkdir(exist_ok=True)
    file.touch(0o600)
    file.write_text(own.text())
    booted.write_text("dump")
    (machine.root / layouts.RESOLVED[1:]).write_text(
        'NODES=""\nADDRESSES="10.0.0.2"\nARGS="-i 1"\n'
        f'THIS_NODE="--node=node1 --key-file={layouts.NODE_KEY}"\n'
    )
    try:
        for command, state in (
            (("/usr/lib/kdumpfence/start-sender",), "dumping"),
            ((TELL_END, "finished"), "finished"),
            ((TELL_END, "failed"), "failed"),
        ):
            assert machine.chroot(*command) == ""
            while True:
                data = ear.recv(200)
                packet = decode_packet(data)
                assert packet is not None
                assert (packet.name, packet.key_id) == ("node1", 7)
                assert packet_fits(data, own.signs[1])
                if packet.state == state:
                    break
        assert [words[0] for words in machine.end_senders()] == ["@fence_kdump_send"]
    finally:
        file.unlink()


# ------------------------------------------------------------------ kdump-utils


@pytest.mark.parametrize(
    ("folder", "status", "state"),
    [("post.d", ["0"], "finished"), ("post.d", ["1"], "failed"), ("emergency.d", [], "failed")],
)
@pytest.mark.slow
def test_kdump_utils_scripts_tell_it(
    crashed: Crashed, folder: str, status: list[str], state: str
) -> None:
    (item,) = (item for item in layouts.LAYOUTS["rhel"].items
               if item.path == f"/etc/kdump/{folder}/kdumpfence")  # fmt: skip
    script = crashed.root / "tmp/kdumpfence"
    script.write_bytes(item.filled(b"").content)
    script.chmod(item.mode)
    assert crashed.told("/tmp/kdumpfence", *status) == state
    # An image without our module has the script all the same.
    tell_end = crashed.root / TELL_END[1:]
    tell_end.rename(tell_end.with_name("away"))
    assert crashed.told("/tmp/kdumpfence", *status) == ""
    tell_end.with_name("away").rename(tell_end)


# ------------------------------------------------------------------ SUSE's kdump

#: The line of kdumpfence(8), and how versions run it.
SUSE = f'{TELL_END} "$VMCORE_STATUS"'


@pytest.mark.parametrize(
    ("runs", "status", "state"),
    [
        ('eval "${KDUMP_POSTSCRIPT}"', "saved successfully", "finished"),
        ('eval "${KDUMP_POSTSCRIPT}"', "error while saving, return code: 1", "failed"),
        ('eval "${KDUMP_POSTSCRIPT}"', "skipped", ""),
        ("${KDUMP_POSTSCRIPT}", "saved successfully", ""),  # 1.9 to 2.1.0
        ('sh -c "${KDUMP_POSTSCRIPT}"', "saved successfully", ""),  # 1.0.3 and older
    ],
)
@pytest.mark.slow
def test_suses_script_tells_it_where_the_status_is_known(
    crashed: Crashed, runs: str, status: str, state: str
) -> None:
    script = f"KDUMP_POSTSCRIPT='{SUSE}'; VMCORE_STATUS='{status}'; {runs}"
    assert crashed.told("bash", "-c", script) == state


# ------------------------------------------------------------------ kdump-tools


@pytest.mark.parametrize(
    ("arguments", "status", "state"),
    [
        ("savecore", 0, "finished"),
        ("savecore", 1, "failed"),
        ("load", 0, ""),
        ("unload", 1, ""),
        ("symlinks 6.1 x", 0, ""),
        ("", 1, ""),
    ],
)
@pytest.mark.slow
def test_the_stand_in_for_kdump_config_does_what_it_does_and_tells_it(
    crashed: Crashed, arguments: str, status: int, state: str
) -> None:
    real = crashed.root / "usr/sbin/kdump-config"
    real.write_text(f'#!/bin/sh\necho "$@" >/tmp/asked\nexit {status}\n')
    real.chmod(0o755)
    copied = shutil.copy(layouts.data_path("debian/kdump-config"), crashed.root / "tmp")
    Path(copied).chmod(0o755)
    script = f"/tmp/kdump-config {arguments}; test $? = {status}"
    assert crashed.told("sh", "-c", script) == state
    assert (crashed.root / "tmp/asked").read_text().strip() == arguments
    real.unlink()
