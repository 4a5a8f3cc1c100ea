# SPDX-License-Identifier: LGPL-2.1-or-later
"""An agent at a site that the node cannot reach, and a kdumpfenced between the two that can.

node1 --- 10.0.0.0/24 --- watcher --- 10.1.0.0/24 --- site
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.running import Kdumpfenced, until
from tests.support import packets
from tests.support.answerer import CURRENT, FOREIGN, NODE, key_text
from tests.support.netlab import Host, Lab
from tests.system.network.programs import BOTH_CORES, Programs, Running

pytestmark = pytest.mark.slow

WATCHER, THERE = "10.0.0.2", "10.1.0.1"
PLACE = f"http://{THERE}:9742"
KEY_FILE = "/etc/kdump-key"
SIGNED = ("--auth=sha256", f"--key-file={KEY_FILE}")


def give_key(host: Host, text: str) -> None:
    host.write_file(KEY_FILE, text)
    (host.root / KEY_FILE.lstrip("/")).chmod(0o600)


def node_key(cluster: bytes = CURRENT) -> str:
    """What is in the node's crash image."""
    key = packets.node_key(cluster, NODE).hex()
    return f"node {NODE}\nsigns {packets.key_id(cluster):08x} {key}\n"


@pytest.fixture
def site(lab: Lab, node: Host, watcher: Host) -> Host:
    made = lab.host("site")
    lab.link(node, watcher, ["10.0.0.1/24"], [f"{WATCHER}/24"])
    lab.link(watcher, made, [f"{THERE}/24"], ["10.1.0.2/24"])
    return made


@pytest.fixture
def watcher(lab: Lab) -> Host:
    return lab.host("watcher")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Kdumpfenced]:
    made = Kdumpfenced(tmp_path)
    made.port = 7410
    yield made
    made.close()


def start(daemon: Kdumpfenced, watcher: Host, auth: str) -> None:
    give_key(watcher, key_text(CURRENT))
    top = f'auth = "{auth}"\n' + (f'key_file = "{KEY_FILE}"' if auth != "none" else "")
    daemon.configure(top, f'{NODE} = ["10.0.0.1"]')
    with daemon.settings.open("a") as file:
        file.write(f'[http]\naddress = "{THERE}"\nport = 9742\n')
    daemon.start_on(watcher)


def agent(programs: Programs, site: Host, *options: str, seconds: int = 60) -> Running:
    return programs.agent(site, "-n", NODE, "-t", str(seconds), "--listener", PLACE, *options)


@BOTH_CORES
def test_what_the_daemon_heard_is_a_yes_there(
    programs: Programs, node: Host, watcher: Host, site: Host, daemon: Kdumpfenced
) -> None:
    start(daemon, watcher, "none")
    waiting = agent(programs, site)
    waiting.says(f"[debug]: waiting for {PLACE} to hear '{NODE}'")
    programs.sender(node, WATCHER)
    waiting.says(f"[debug]: heard '{NODE}' from 10.0.0.1 by {PLACE}")
    assert waiting.process.wait(60) == 0


@BOTH_CORES
def test_with_a_key_the_real_sender_answers_the_agent_itself(
    programs: Programs, node: Host, watcher: Host, site: Host, daemon: Kdumpfenced
) -> None:
    give_key(node, node_key())
    give_key(site, key_text(CURRENT))
    start(daemon, watcher, "sha256")
    # It was heard before the wait, and says nothing more by itself in the next ten minutes.
    programs.sender(node, "-i", "600", f"--key-file={KEY_FILE}", WATCHER)
    until(lambda: daemon.dumping() == {NODE})
    waiting = agent(programs, site, *SIGNED)
    waiting.says_of(
        f"[debug]: received signed answer of '{NODE}' from 10.0.0.1, key ",
        f", passed on by {PLACE}",
    )
    assert waiting.process.wait(60) == 0


@BOTH_CORES
def test_a_daemon_of_another_cluster_convinces_nobody(
    programs: Programs, node: Host, watcher: Host, site: Host, daemon: Kdumpfenced
) -> None:
    give_key(node, node_key())
    give_key(site, key_text(FOREIGN))
    start(daemon, watcher, "sha256")
    programs.sender(node, f"--key-file={KEY_FILE}", WATCHER)
    until(lambda: daemon.dumping() == {NODE})
    waiting = agent(programs, site, *SIGNED, seconds=2)
    waiting.says_of("[debug]: timeout after 2 seconds")
    assert waiting.process.wait(60) == 1
