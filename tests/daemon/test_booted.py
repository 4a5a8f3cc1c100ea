# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's units under a real systemd: what the daemon gets there, and when it starts."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from kdumpfence import keys
from kdumpfence.wire import Packet, encode_packet, packet_fits
from tests.support.booted import booted, lay
from tests.support.kernel import need_kernel_counting
from tests.support.netlab import Host, Lab
from tests.support.units import UNITS

pytestmark = pytest.mark.slow

CLUSTER = bytes(range(32))
CAP_BPF = 39

_BOOTED = """[Unit]
Wants=kdumpfenced.socket kdumpfenced.service
After=kdumpfenced.socket kdumpfenced.service
[Service]
Type=oneshot
ExecStart=-/bin/sh -c 'systemctl --no-pager status kdumpfenced.service >/talk/status'
ExecStart=-/bin/sh -c 'systemctl show -P MainPID kdumpfenced.service >/talk/pid'
ExecStart=-/bin/sh -c 'grep -E "^(Cap|NoNewPrivs)" /proc/$$(cat /talk/pid)/status >/talk/rights'
ExecStart=-/bin/sh -c 'systemctl reload kdumpfenced.service'
ExecStart=-/bin/sh -c 'systemctl restart kdumpfenced.service'
ExecStart=-/bin/sh -c 'systemctl is-active kdumpfenced.socket kdumpfenced.service >/talk/new'
ExecStart=/bin/mv /talk/new /talk/booted
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What is laid over /etc: the units, and settings."""
    settings = tmp_path / "etc/kdumpfence"
    settings.mkdir(parents=True)
    (settings / "kdumpfenced.toml").write_text('networks = ["127.0.0.0/8"]\nnode = "node1"\n')
    return lay(tmp_path, _BOOTED)


def answer(host: Host, seconds: float = 20.0) -> bytes:
    """What is answered to a question; b"" if nothing is."""
    with host.open_socket() as sock:
        sock.bind(("127.0.0.9", 0))
        nonce = os.urandom(16)
        sock.sendto(encode_packet(Packet("question", "node1", nonce=nonce)), ("127.0.0.1", 7410))
        return sock.recv(4096) if select.select([sock], [], [], seconds)[0] else b""


@pytest.mark.parametrize("key", [False, True])
def test_the_daemon_answers_out_of_the_box_and_signs_if_there_is_a_key(
    lab: Lab, root: Path, key: bool
) -> None:
    if key:
        file = root / "etc/kdumpfence/key"
        file.touch(0o600)
        file.write_text(keys.Keys((keys.key_id(CLUSTER), CLUSTER)).text())
    host = lab.host("node1")
    with booted(host, root) as states:
        assert states == ["active", "active"], (root / "talk/status").read_text()
        data = answer(host)
        assert packet_fits(data, keys.node_key(CLUSTER, "node1")) == key
        assert data[:8] == b"KDFALIVE"
        how = f"signed with key {keys.key_id(CLUSTER):08x}" if key else "not signed: no key file"
        assert how in (root / "talk/log").read_text()


def test_the_kernel_counts_out_of_the_box_and_the_right_to_have_it_so_is_given_up(
    lab: Lab, root: Path
) -> None:
    need_kernel_counting()
    host = lab.host("node1")
    with booted(host, root) as states:
        assert states == ["active", "active"], (root / "talk/status").read_text()
        log = (root / "talk/log").read_text()
        # Once more after a restart, which a reload is not.
        assert log.count("counting in the kernel: repeated messages are not read one by one") == 2
        assert "settings reloaded" in log
        said = (root / "talk/rights").read_text().splitlines()
        rights = {name: int(value, 16) for name, value in (line.split(":") for line in said)}
        bounding = rights.pop("CapBnd")
        assert bounding == 1 << CAP_BPF  # worthless with the last one of these
        assert rights == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapAmb": 0, "NoNewPrivs": 1}


def test_in_a_crash_kernel_neither_the_daemon_nor_its_socket_is_there(lab: Lab, root: Path) -> None:
    (root / "etc/vmcore").touch()
    host = lab.host("node1")
    with booted(host, root) as states:
        assert states == ["inactive", "inactive"]
        with host.open_socket() as sock:
            sock.bind(("0.0.0.0", 7410))  # the sender can have it


def test_the_units_look_for_what_a_crash_kernel_has() -> None:
    for unit in UNITS.iterdir():
        assert "\nConditionPathExists=!/proc/vmcore\n" in unit.read_text(), unit.name
