# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every crash kernel gets its own node's name and key, and never the cluster's key."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence import keys
from kdumpfence.cli.main import main
from kdumpfence.install import layouts, native_sender, node_name, record, this_node
from kdumpfence.install.sysroot import Sysroot
from tests.install import roots
from tests.install.conftest import OURS, Command

KEY, NODE_KEY, THIS_NODE = this_node.CLUSTER_KEY, layouts.NODE_KEY, layouts.THIS_NODE
SIGNS = f"--key-file={NODE_KEY}"


@pytest.fixture
def root(root_directory: Path) -> Path:
    """A node's root, with its host name."""
    roots.put(root_directory, "/etc/hostname", "node1\n")
    return root_directory


@pytest.fixture(params=layouts.LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def cluster_key(root: Path) -> keys.Keys:
    """Give the root a cluster's key."""
    key = os.urandom(32)
    made = keys.Keys((keys.key_id(key), key))
    roots.put(root, KEY, made.text(), 0o600)
    return made


def node_key(root: Path, node: str = "node1") -> keys.Keys:
    """Give it a node's key."""
    key = os.urandom(32)
    made = keys.Keys((keys.key_id(key), keys.node_key(key, node)), node=node)
    roots.put(root, NODE_KEY, made.text(), 0o600)
    return made


def in_root(root: Path, path: str) -> Path:
    return root / path[1:]


def told(root: Path) -> str:
    """What the sender is told of its node."""
    (line,) = (line for line in in_root(root, THIS_NODE).read_text().splitlines()
               if not line.startswith("#"))  # fmt: skip
    assert line.startswith('THIS_NODE="')
    return line[len('THIS_NODE="') : -1]


# ------------------------------------------------------------------ the key


def test_the_sender_gets_its_own_nodes_key_and_never_the_clusters(
    command: Command, root: Path, layout: str
) -> None:
    cluster = cluster_key(root)
    before = roots.snapshot(root)
    said = command.ok(root, "--distribution", layout)
    found = keys.read(str(in_root(root, NODE_KEY)))
    expected = cluster.of("node1")
    assert expected is not None
    assert (found.node, found.signs, found.accepts) == ("node1", expected.signs, None)
    assert stat.S_IMODE(in_root(root, NODE_KEY).stat().st_mode) == 0o600
    assert told(root) == f"--node=node1 {SIGNS}"
    assert f"its crash kernel signs as node 'node1' with key {cluster.signs[0]:08x}\n" in said

    secrets = {cluster.signs[1]: {KEY}, expected.signs[1]: {NODE_KEY}}
    files = [path for path, seen in roots.snapshot(root).items() if seen.kind == stat.S_IFREG]
    for secret, places in secrets.items():
        assert secret.hex() not in said
        having = {
            path for path in files if secret.hex().encode() in in_root(root, path).read_bytes()
        }
        assert having == places
    command.ok(root, "--distribution", layout, "--remove")
    assert roots.snapshot(root) == before


def test_without_a_key_the_sender_is_told_its_name_alone(
    command: Command, root: Path, layout: str
) -> None:
    said = command.ok(root, "--distribution", layout)
    assert told(root) == "--node=node1"
    assert not in_root(root, NODE_KEY).exists()
    assert "signs" not in said


def test_debians_sender_is_told_what_images_are_told(command: Command, root: Path) -> None:
    cluster_key(root)
    command.ok(root, "--distribution", "debian")
    resolved = in_root(root, layouts.RESOLVED).read_text()
    assert resolved.endswith(in_root(root, THIS_NODE).read_text())
    unit = in_root(root, "/etc/systemd/system/kdumpfence-send.service").read_text()
    assert "fence_kdump_send $THIS_NODE $ARGS $ADDRESSES $NODES\n" in unit


def test_after_a_rotation_it_gets_the_key_that_is_signed_with_now(
    command: Command, root: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = cluster_key(root)
    file = str(in_root(root, KEY))
    options = ("--distribution", layout)
    command.ok(root, *options)
    assert main(["key", "rotate", "--file", file]) == 0
    assert "nothing to do" in command.ok(root, *options)
    assert main(["key", "rotate", "--switch", "--file", file]) == 0
    assert f"update {NODE_KEY}\n" in command.ok(root, *options)
    found = keys.read(str(in_root(root, NODE_KEY)))
    new = keys.read(file)
    derived = new.of("node1")
    assert new.signs != old.signs
    assert derived is not None
    assert found.signs == derived.signs
    assert not list(in_root(root, NODE_KEY).parent.glob(".*"))


def replace(file: Path, make: Callable[[Path], None]) -> None:
    """Put something else in the place of a file."""
    file.unlink()
    make(file)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: file.chmod(0o640), "mode 0640"),
        (lambda file: os.chown(file, 1234, 0), "owned by user 1234"),
        (lambda file: file.write_text("nonsense\n"), "line 1: not 'signs ID KEY'"),
        (lambda file: file.write_text(""), "no line 'signs ID KEY'"),
        (lambda file: file.write_text(keys.Keys((1, bytes(32)), node="node1").text()),
         "is the key of the node 'node1', not the cluster's"),
        (lambda file: replace(file, os.mkdir), "not a regular file"),
        (lambda file: replace(file, os.mkfifo), "not a regular file"),
    ],
    ids=["mode", "owner", "nonsense", "empty", "a node's", "a directory", "a pipe"],
)  # fmt: skip
def test_a_key_that_cannot_be_used_is_said_before_anything_is_changed(
    command: Command, root: Path, layout: str, spoil: Callable[[Path], object], why: str
) -> None:
    cluster_key(root)
    spoil(in_root(root, KEY))
    before = roots.snapshot(root)
    said = command.refused("--root", str(root), "--distribution", layout)
    assert str(root)[:40] in said  # a long path is cut
    assert why in said
    after = roots.snapshot(root)
    assert set(after) - set(before) <= {"/usr", "/usr/lib", "/usr/lib/kdumpfence"}  # the lock
    assert {path: after[path] for path in before} == before


def test_a_key_that_leads_out_of_the_root_is_not_followed(command: Command, root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    cluster_key(outside)
    in_root(root, KEY).parent.mkdir(exist_ok=True)
    in_root(root, KEY).symlink_to(in_root(outside, KEY))
    command.ok(root, "--distribution", "dracut")
    assert not in_root(root, NODE_KEY).exists()


# ------------------------------------------------------------------ a key without the cluster's


def test_a_nodes_key_that_was_brought_is_used_and_stays(
    command: Command, root: Path, layout: str
) -> None:
    own = node_key(root)
    before = roots.snapshot(root)
    said = command.ok(root, "--distribution", layout)
    assert told(root) == f"--node=node1 {SIGNS}"
    assert f"key {own.signs[0]:08x} of {in_root(root, NODE_KEY)}, since" in said
    assert roots.snapshot(root)[NODE_KEY] == before[NODE_KEY]
    command.ok(root, "--distribution", layout, "--remove")
    assert roots.snapshot(root) == before


def test_it_tells_the_name_where_nothing_else_does(command: Command, root: Path) -> None:
    in_root(root, "/etc/hostname").unlink()
    node_key(root, "node7")
    command.ok(root, "--distribution", "dracut")
    assert told(root) == f"--node=node7 {SIGNS}"


def test_another_nodes_key_is_refused(command: Command, root: Path, layout: str) -> None:
    node_key(root, "node2")
    options = ("--root", str(root), "--distribution", layout)
    said = command.refused(*options)
    assert "is the key of the node 'node2', and this is 'node1'" in said
    assert "--node node2" in said
    assert command.run(*options, "--node", "node2").status == 0


def test_the_clusters_key_in_the_place_of_a_nodes_is_refused(command: Command, root: Path) -> None:
    cluster_key(root)
    in_root(root, KEY).rename(in_root(root, NODE_KEY))
    said = command.refused("--root", str(root), "--distribution", "dracut")
    assert "is a cluster's key, which must not be in a crash kernel's image" in said


def test_a_nodes_key_outlives_the_clusters(command: Command, root: Path, layout: str) -> None:
    cluster_key(root)
    options = ("--distribution", layout)
    command.ok(root, *options)
    own = roots.snapshot(root)[NODE_KEY]
    in_root(root, KEY).unlink()
    for _ in range(2):
        assert f"since {in_root(root, KEY)} is missing" in command.ok(root, *options)
        assert roots.snapshot(root)[NODE_KEY] == own
    command.ok(root, *options, "--remove")
    assert not in_root(root, NODE_KEY).exists()


def test_a_nodes_key_that_was_brought_is_kept_where_the_clusters_comes(
    command: Command, root: Path
) -> None:
    node_key(root)
    before = roots.whats(root)[NODE_KEY]
    cluster_key(root)
    command.ok(root, "--distribution", "dracut")
    assert roots.whats(root)[NODE_KEY] != before
    kept = roots.snapshot(root)["/etc/kdumpfence/.node-key.stock"]
    assert (kept.what, kept.mode) == (before, 0o600)
    command.ok(root, "--distribution", "dracut", "--remove")
    assert roots.whats(root)[NODE_KEY] == before


def test_a_key_is_left_as_long_as_another_image_needs_it(command: Command, root: Path) -> None:
    cluster_key(root)
    for name in ("debian", "dracut"):
        command.ok(root, "--distribution", name)
    said = command.ok(root, "--distribution", "debian", "--remove")
    assert f"left: {NODE_KEY}, which is needed for dracut" in said
    assert keys.read(str(in_root(root, NODE_KEY))).node == "node1"
    command.ok(root, "--distribution", "dracut", "--remove")
    assert not in_root(root, NODE_KEY).exists()


# ------------------------------------------------------------------ the name


def test_the_name_that_is_given_counts_from_then_on(command: Command, root: Path) -> None:
    cluster_key(root)
    command.ok(root, "--distribution", "dracut", "--node", "n1.ring")
    for _ in range(2):
        assert told(root) == f"--node=n1.ring {SIGNS}"
        assert keys.read(str(in_root(root, NODE_KEY))).node == "n1.ring"
        command.ok(root, "--distribution", "installed")  # as after an upgrade of the package
    command.ok(root, "--distribution", "debian")
    assert told(root) == f"--node=n1.ring {SIGNS}"
    command.ok(root, "--distribution", "dracut", "--node", "n2")
    assert told(root) == f"--node=n2 {SIGNS}"


def test_a_dry_run_remembers_no_name(command: Command, root: Path) -> None:
    command.ok(root, "--distribution", "dracut", "--node", "n2", "--dry-run")
    command.ok(root, "--distribution", "dracut")
    assert told(root) == "--node=node1"


@pytest.mark.parametrize("name", ["a b", 'a"b', "a$b", "a`b", "x" * 65, "nöde", "a\nb", "(none)"])
def test_a_name_that_cannot_be_passed_on_is_refused(
    command: Command, root: Path, name: str
) -> None:
    before = roots.snapshot(root)
    said = command.refused("--root", str(root), "--distribution", "dracut", "--node", name)
    assert "not 1 to 64 letters, digits and" in said
    assert set(roots.snapshot(root)) - set(before) <= {"/usr", "/usr/lib", "/usr/lib/kdumpfence"}


@pytest.mark.parametrize("name", [None, "", "localhost\n", "localhost.localdomain\n", "a b\n"])
def test_a_root_that_tells_no_name(command: Command, root: Path, name: str | None) -> None:
    in_root(root, "/etc/hostname").unlink()
    if name is not None:
        roots.put(root, "/etc/hostname", name)
    command.ok(root, "--distribution", "dracut")
    assert told(root) == ""
    cluster_key(root)
    said = command.refused("--root", str(root), "--distribution", "dracut")
    assert said == "this node's name is not known: give --node NAME\n"
    command.ok(root, "--distribution", "dracut", "--node", "node1")
    assert told(root) == f"--node=node1 {SIGNS}"


@pytest.mark.parametrize("name", ["a$b", 'a"b', "a`b", "a;b"])
def test_a_name_that_a_shell_would_not_leave_alone_is_in_the_key_alone(
    command: Command, root: Path, name: str
) -> None:
    roots.put(root, "/etc/hostname", f"{name}\n")
    command.ok(root, "--distribution", "dracut")
    assert told(root) == ""
    cluster_key(root)
    command.ok(root, "--distribution", "dracut")
    assert told(root) == SIGNS
    assert keys.read(str(in_root(root, NODE_KEY))).node == name


COROSYNC = """\
totem {
    version: 2
    cluster_name: c
    interface {
        ringnumber: 0
    }
}
nodelist {
    node {
        ring0_addr: 192.0.2.1
        ring1_addr: 198.51.100.1
        name: one
        nodeid: 1
    }
    # node {
    node {
        name: two.cluster
        ring0_addr: alpha
        nodeid: 2
    }
\tnode {
\t\tring0_addr: beta
\t}
}
"""


@pytest.mark.parametrize(
    ("host", "own", "name"),
    [
        ("one", [], "one"),
        ("one.example.com", [], "one"),
        ("two", [], "two.cluster"),
        ("alpha", [], "two.cluster"),
        ("alpha.example.com", [], "two.cluster"),
        ("beta", [], "beta"),
        ("beta.example.com", [], "beta.example.com"),  # as Pacemaker names it then
        ("web7", ["127.0.0.1", "192.0.2.1"], "one"),
        ("web7", ["198.51.100.1", "fe80::1"], "one"),
        ("web7", ["192.0.2.11"], "web7"),
        ("node", ["::1"], "node"),
    ],
)
def test_a_node_is_found_in_corosync_conf(
    root: Path, monkeypatch: pytest.MonkeyPatch, host: str, own: list[str], name: str
) -> None:
    roots.put(root, node_name.COROSYNC, COROSYNC)
    roots.put(root, "/etc/hostname", f"{host}\n")
    with Sysroot(str(root)) as opened:
        if not own:
            assert node_name.of(opened) == name
        # As on the machine itself, with no cluster that runs.
        monkeypatch.setattr(opened, "root", "/")
        monkeypatch.setattr(node_name, "ask", lambda *_: None)
        monkeypatch.setattr(
            node_name, "ip", lambda *_: "".join(f"1: eth0    inet {one}/24 brd\n" for one in own)
        )
        names = os.uname_result(("Linux", host, "", "", ""))
        monkeypatch.setattr(os, "uname", lambda: names)
        assert node_name.of(opened) == name


@pytest.mark.parametrize(
    ("status", "said", "name"),
    [
        (0, "cluster-name\n", "cluster-name"),
        (0, "\n", "host"),
        (0, "two words\n", "host"),
        (102, "crm_node: Could not connect to controller\n", "host"),
        (None, "", "host"),
    ],
)
def test_a_cluster_that_runs_is_asked_first(
    root: Path, monkeypatch: pytest.MonkeyPatch, status: int | None, said: str, name: str
) -> None:
    def ask(*command: str) -> subprocess.CompletedProcess[str] | None:
        assert command == ("crm_node", "-n")
        return None if status is None else subprocess.CompletedProcess(command, status, said, "")

    monkeypatch.setattr(node_name, "ask", ask)
    monkeypatch.setattr(node_name, "ip", lambda *_: "")
    names = os.uname_result(("Linux", "host", "", "", ""))
    monkeypatch.setattr(os, "uname", lambda: names)
    with Sysroot(str(root)) as opened:
        monkeypatch.setattr(opened, "root", "/")
        assert node_name.of(opened) == name


def test_below_another_root_no_program_is_asked(
    command: Command, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*asked: str) -> str:
        raise AssertionError(asked)

    monkeypatch.setattr(node_name, "ask", ask)
    monkeypatch.setattr(node_name, "ip", ask)
    command.ok(root, "--distribution", "dracut")
    assert told(root) == "--node=node1"


def test_a_record_of_an_older_version_names_no_node(command: Command, root: Path) -> None:
    command.ok(root, "--distribution", "dracut", "--node", "n1")
    file = in_root(root, record.PATH)
    fields = json.loads(file.read_text())
    assert fields.pop("node") == "n1"
    file.write_text(json.dumps(fields))
    command.ok(root, "--distribution", "dracut")
    assert told(root) == "--node=node1"


# ------------------------------------------------------------------ remarks


def test_a_sender_that_cannot_sign_is_warned_of_once_there_is_a_key(
    command: Command, root: Path
) -> None:
    command.build(b"\x7fELF ...: " + native_sender.CANNOT_SIGN + b"\0")
    assert "cannot sign" not in command.ok(root, "--distribution", "dracut")
    cluster_key(root)
    assert "cannot sign" in command.ok(root, "--distribution", "dracut")
    command.build(OURS)
    assert "cannot sign" not in command.ok(root, "--distribution", "dracut")


def test_what_is_looked_for_is_what_such_a_sender_says(built: str) -> None:
    source = Path(__file__).resolve().parents[2] / "src/native/status.pxi"
    assert f'b"{native_sender.CANNOT_SIGN.decode()}"' in source.read_text()
    said = subprocess.run(
        [built, "--check", "--key-file=/nonexistent", "127.0.0.1"],
        capture_output=True, check=False,
    ).stderr  # fmt: skip
    signs = native_sender.CANNOT_SIGN not in said
    assert signs == (native_sender.CANNOT_SIGN not in Path(built).read_bytes())


@pytest.mark.parametrize(
    ("files", "readable"),
    [
        ({}, True),
        ({"initramfs.conf": "# UMASK=0077\n"}, True),
        ({"initramfs.conf": "UMASK=0022\n"}, True),
        ({"initramfs.conf": "UMASK=0077\n"}, False),
        ({"conf.d/kdumpfence": 'UMASK="077"\n'}, False),
        ({"initramfs.conf": "UMASK=0077\n", "conf.d/other": "UMASK=022\n"}, True),
    ],
)
def test_images_that_everybody_may_read_are_warned_of_once_there_is_a_key(
    command: Command, root: Path, files: dict[str, str], readable: bool
) -> None:
    for name, text in files.items():
        roots.put(root, f"/etc/initramfs-tools/{name}", text)
    warning = "warning: everybody may read the images of mkinitramfs"
    options = ("--distribution", "initramfs-tools")
    assert warning not in command.ok(root, *options)
    cluster_key(root)
    said = command.ok(root, *options)
    assert (warning in said) == readable
    assert ("write UMASK=0077 into" in said) == readable
    assert warning not in command.ok(root, "--distribution", "dracut")


@pytest.mark.parametrize(
    ("conf", "warned"),
    [
        ("fence_kdump_nodes 192.0.2.9\n", False),
        ("fence_kdump_nodes 192.0.2.9\ndracut_args --omit kdumpfence\n", True),
        ("dracut_args -o 'rdma kdumpfence'\nfence_kdump_nodes 192.0.2.9\n", True),
        ("dracut_args --omit rdma\nfence_kdump_nodes 192.0.2.9\n", False),
        (f"fence_kdump_args {SIGNS}\ndracut_args --omit kdumpfence --install {NODE_KEY}\n"
         "fence_kdump_nodes 192.0.2.9\n", False),
    ],
)  # fmt: skip
def test_kdump_utils_own_way_is_told_what_it_needs_to_sign(
    command: Command, root: Path, conf: str, warned: bool
) -> None:
    roots.put(root, "/etc/kdump.conf", conf)
    what = f"write fence_kdump_args {SIGNS}, and --install {NODE_KEY} here"
    assert what not in command.ok(root, "--distribution", "rhel")
    cluster_key(root)
    assert (what in command.ok(root, "--distribution", "rhel")) == warned


@pytest.mark.parametrize("words", ["", f"{SIGNS} "])
def test_suses_scripts_are_told_what_they_need_to_sign(
    command: Command, root: Path, words: str
) -> None:
    roots.put(
        root,
        "/etc/sysconfig/kdump",
        f"KDUMP_PRESCRIPT='setsid -f /usr/lib/fence_kdump_send {words}192.0.2.9'\n",
    )
    what = f"KDUMP_PRESCRIPT: its messages are not signed: add {SIGNS}"
    assert what not in command.ok(root, "--distribution", "suse")
    cluster_key(root)
    assert (what in command.ok(root, "--distribution", "suse")) == (not words)
