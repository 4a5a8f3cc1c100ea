# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced believes only what is signed, if it is told so; and never without a key."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.client import Client
from kdumpfence.daemon import key
from kdumpfence.keys import node_key
from kdumpfence.wire import packet_fits
from tests.daemon.running import NODE, Kdumpfenced, until
from tests.daemon.test_answers import answer
from tests.support.signer import FOREIGN_KEY, KEY, OLD_KEY, Signer, key_text, slot

pytestmark = pytest.mark.slow

NODES = "node1 = []\nnode2 = []"


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    write(path, key_text(KEY, OLD_KEY))
    return path


@pytest.fixture
def signed(daemon: Kdumpfenced, key_file: Path) -> Kdumpfenced:
    """A daemon that is not started yet, with a key."""
    daemon.configure(f'auth = "sha256"\nkey_file = "{key_file}"', NODES)
    return daemon


@pytest.fixture
def node(signed: Kdumpfenced) -> Iterator[Signer]:
    """A node that signs, and answers."""
    with Signer(("127.0.0.1", signed.port), host=NODE) as made:
        yield made


def test_what_is_signed_is_recorded_under_the_nodes_name_and_nothing_else_is(
    signed: Kdumpfenced, node: Signer
) -> None:
    signed.start()
    signed.hear(NODE)
    node.send()
    line = signed.says("began")
    assert "'node1'" in line
    assert NODE in line
    until(lambda: signed.dumping() == {"node1"})
    assert [dump.node for dump in signed.past()] == ["node1"]
    with Client(str(signed.control)) as client:
        assert client.node("node1").proof == "signature"
    page = signed.page_with('verdict="unsigned"} 1.0')
    for verdict, number in {"accepted": 1, "replayed": 1, "forged": 0, "key": 0}.items():
        assert f'kdumpfence_datagrams_total{{verdict="{verdict}"}} {number}.0' in page


@pytest.mark.parametrize("core", ["compiled", "pure"])
def test_a_signed_end_ends_a_dump_and_no_other_does(
    tmp_path: Path, key_file: Path, core: str
) -> None:
    daemon = Kdumpfenced(tmp_path, core)
    with contextlib.closing(daemon):
        daemon.configure(f'silence = 600\nauth = "sha256"\nkey_file = "{key_file}"', NODES)
        daemon.start()
        at = ("127.0.0.1", daemon.port)
        with Signer(at, host=NODE) as node, Signer(at, host=NODE, state="finished") as end:
            node.send()
            until(lambda: daemon.dumping() == {"node1"})
            silent = Signer(at, host=NODE)  # one that answers no questions
            silent.send(state="finished")
            silent.send(state="finished", key_id=0, key=b"")
            silent.send(state="finished", key=b"x" * 32)
            silent.sock.close()
            wanted = {"accepted": 1, "replayed": 2, "unsigned": 1, "forged": 1}
            until(lambda: wanted.items() <= daemon.status().counts.items())
            assert daemon.dumping() == {"node1"}
            end.send()
            daemon.says("node 'node1' finished its dump")
            until(lambda: not daemon.dumping())
        assert [(dump.node, dump.end) for dump in daemon.past()] == [("node1", "finished")]


@pytest.mark.parametrize("core", ["compiled", "pure"])
def test_questions_are_answered_signed(tmp_path: Path, key_file: Path, core: str) -> None:
    daemon = Kdumpfenced(tmp_path, core)
    with contextlib.closing(daemon):
        daemon.configure(f'auth = "sha256"\nnode = "node9"\nkey_file = "{key_file}"', NODES)
        daemon.start()
        daemon.says(f"answering questions as node 'node9', signed with key {slot(KEY)[0]:08x}")
        assert packet_fits(answer(daemon, "node9")[1], node_key(KEY, "node9"))
        write(key_file, key_text(FOREIGN_KEY, KEY))
        daemon.reload()
        daemon.says(f"as node 'node9', signed with key {slot(FOREIGN_KEY)[0]:08x}")
        assert packet_fits(answer(daemon, "node9")[1], node_key(FOREIGN_KEY, "node9"))
        key_file.unlink()
        daemon.reload()
        daemon.says("keeping the previous keys")
        assert packet_fits(answer(daemon, "node9")[1], node_key(FOREIGN_KEY, "node9"))


def test_a_key_that_the_service_manager_passes_is_believed(
    signed: Kdumpfenced, node: Signer, key_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    credential = folder / key.CREDENTIAL
    credential.write_text(key_text(KEY))
    key_file.unlink()
    signed.start(environment={"CREDENTIALS_DIRECTORY": str(folder)})
    node.send()
    until(lambda: signed.dumping() == {"node1"})
    credential.write_text("node node1\n" + key_text())
    signed.reload()
    line = signed.says("keeping the previous keys")
    assert "key passed by the service manager: of node 'node1' alone, must be the" in line


def test_a_dump_goes_on_over_a_restart_and_no_older_one_comes_back(
    signed: Kdumpfenced, node: Signer
) -> None:
    signed.start()
    said = [node.send()]
    until(lambda: signed.dumping() == {"node1"})
    assert signed.end() == 0
    with Signer(("127.0.0.1", signed.port), "node2", host=NODE) as other:
        signed.start()
        said += [other.send()]
        until(lambda: signed.dumping() == {"node1", "node2"})
    began = signed.past("node1")[0].since
    for data in said:
        signed.hear("127.3.0.9", data=data)
    until(lambda: signed.status().counts["replayed"] == 3)
    node.send()
    until(lambda: signed.past("node1")[0].messages == 2)
    assert [dump.since for dump in signed.past("node1")] == [began]
    assert signed.past("node1")[0].addresses == (NODE,)


def test_without_a_key_it_does_not_start(signed: Kdumpfenced, key_file: Path) -> None:
    key_file.chmod(0o640)
    for arguments in ([], ["--check"]):
        done = signed.run(*arguments)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert re.fullmatch(rf"kdumpfenced: key file '{key_file}': mode 0640, .*", line)
    key_file.unlink()
    assert "No such file or directory" in signed.run().stderr
    write(key_file, "node node1\n" + key_text())
    assert "of node 'node1' alone" in signed.run().stderr


def test_a_rotation_takes_a_reload_and_loses_nothing(
    signed: Kdumpfenced, node: Signer, key_file: Path
) -> None:
    signed.start()
    node.send()
    until(lambda: signed.dumping() == {"node1"})
    write(key_file, key_text(FOREIGN_KEY, KEY))
    signed.reload()
    line = signed.says("settings reloaded")
    assert f"keys {slot(FOREIGN_KEY)[0]:08x} and {slot(KEY)[0]:08x}" in line
    node.send()
    until(lambda: signed.status().dumps[0].messages == 2)
    with Signer(("127.0.0.1", signed.port), "node2", FOREIGN_KEY) as other:
        other.send()
        until(lambda: signed.dumping() == {"node1", "node2"})
    assert signed.get("/health")[0] == 200


def test_a_key_that_cannot_be_read_again_stays_in_use_and_is_told_of(
    signed: Kdumpfenced, node: Signer, key_file: Path
) -> None:
    signed.start()
    write(key_file, "signs 1 2\n")
    signed.reload()
    line = signed.says("keeping the previous keys")
    assert f"key file '{key_file}': line 1: not a key id" in line
    trouble = "key file refused: keeping the previous keys"
    until(lambda: trouble in signed.status().troubles)
    signed.page_with("\nkdumpfence_settings_refused 1.0\n")
    node.send()
    until(lambda: signed.dumping() == {"node1"})
    write(key_file, key_text(KEY))
    signed.reload()
    signed.page_with("\nkdumpfence_settings_refused 0.0\n")
    until(lambda: not signed.status().troubles)


def test_auth_is_changed_by_a_restart_alone(daemon: Kdumpfenced, key_file: Path) -> None:
    daemon.configure(nodes=f'node1 = ["{NODE}"]')
    daemon.start()
    daemon.configure(f'auth = "sha256"\nkey_file = "{key_file}"', f'node1 = ["{NODE}"]')
    daemon.reload()
    assert "auth changed:" in daemon.says("takes effect after a restart")
    daemon.hear(NODE)
    until(lambda: daemon.dumping() == {"node1"})


@pytest.mark.parametrize(
    ("top", "nodes", "fault"),
    [
        ('auth = "yes"', NODES, 'auth = "yes": not one of none, sha256'),
        ('auth = "sha256"\nkey_file = "key"', NODES, 'key_file = "key": not an absolute path'),
        (
            'auth = "sha256"',
            '"n\xf6de" = ["192.0.2.1"]',
            "cannot be signed with: a node that signs",
        ),
    ],
)
def test_what_cannot_be_is_a_fault_of_the_settings(
    daemon: Kdumpfenced, top: str, nodes: str, fault: str
) -> None:
    daemon.configure(top, nodes)
    done = daemon.run("--check")
    assert done.returncode == 1
    assert fault in done.stderr


def test_a_check_says_why_answers_would_not_be_signed(daemon: Kdumpfenced, key_file: Path) -> None:
    daemon.configure(f'key_file = "{key_file}"', NODES)
    assert "note:" not in daemon.run("--check").stdout
    key_file.chmod(0o644)
    done = daemon.run("--check")
    assert done.returncode == 0
    assert f"answers are not signed: key file '{key_file}': mode 0644" in done.stdout


def test_nodes_that_sign_may_have_the_same_address(signed: Kdumpfenced, key_file: Path) -> None:
    both = f'node1 = ["{NODE}"]\nnode2 = ["{NODE}"]'
    signed.configure(f'auth = "sha256"\nkey_file = "{key_file}"', both)
    done = signed.run("--check")
    assert done.returncode == 0
    assert f"auth: sha256, a node is known by its name; keys: {key_file}\n" in done.stdout
    assert "nodes: 2\n" in done.stdout
    signed.start()
    for name in ("node1", "node2"):
        with Signer(("127.0.0.1", signed.port), name, host=NODE) as node:
            node.send()
            until(lambda name=name: name in signed.dumping())  # type: ignore[misc]
