# SPDX-License-Identifier: LGPL-2.1-or-later
"""What keeps the sender from telling the cluster, in the image or the root that the crash boots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdumpfence import keys
from kdumpfence.doctor.finding import Finding
from kdumpfence.install import layouts, native_sender
from tests.doctor import planted
from tests.doctor.planted import HOME, IMAGE, KEY, Change, Fault, Files, aged, gone, put
from tests.install import roots

_PART = "image"
_UNIT = "/etc/systemd/system/kdumpfence-send.service"
_WANTS = "/etc/systemd/system/kdump-tools-dump.service.wants/kdumpfence-send.service"
_SENDER = f"{HOME}/fence_kdump_send"
_AGAIN = "kdumpfence install-sender"
_REBUILD = "kdumpctl rebuild && kdumpctl reload"
_HOOK = "/var/lib/dracut/hooks/cmdline/00-kdumpfence.sh"

#: An older or a newer key of the cluster, and what a node has of it.
_OTHER = bytes(32)
_OTHER_ID = keys.key_id(_OTHER)


def node_key(cluster: bytes = KEY, node: str = "node1", number: int = 0) -> str:
    own = keys.node_key(cluster, node)
    return keys.Keys((number or keys.key_id(cluster), own), node=node).text()


def masked(root: Path) -> None:
    (root / _UNIT[1:]).unlink()
    (root / _UNIT[1:]).symlink_to("/dev/null")


def changed(*pairs: tuple[str, str], path: str) -> Fault:
    def change(root: Path) -> None:
        text = (root / path[1:]).read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        (root / path[1:]).write_text(text)

    return change


#: Of the root that kdump-tools boots. What install-sender would put back, it says as well.
ROOT_FAULTS: dict[str, tuple[Fault, list[tuple[str, str]], str]] = {
    "nothing installed": (
        lambda root: [gone(f"{HOME}/installed")(root), gone(_SENDER)(root)],
        [("fails", "sender installed"), ("fails", "sender inside")],
        _AGAIN,
    ),
    "no sender": (
        gone(_SENDER),
        [("warning", "sender installed"), ("fails", "sender inside")],
        _AGAIN,
    ),
    "a sender that is not executable": (
        lambda root: (root / _SENDER[1:]).chmod(0o644),
        [("warning", "sender installed"), ("fails", "sender inside")],
        _AGAIN,
    ),
    "a sender without its libraries": (
        gone("/usr/lib/libc.so.6"),
        [("fails", "sender inside")],
        f"{_AGAIN} --static",
    ),
    "a sender that is none": (
        put(_SENDER, b"\x7fELF" + b"\xff" * 200, 0o755),
        [("warning", "sender installed"), ("fails", "sender inside")],
        _AGAIN,
    ),
    "a unit that is not enabled": (
        gone(_WANTS),
        [("warning", "sender installed"), ("fails", "sender started")],
        _AGAIN,
    ),
    "a unit that is masked": (
        masked,
        [("warning", "sender installed"), ("fails", "sender started")],
        "systemctl unmask kdumpfence-send.service",
    ),
    "no nodes": (
        lambda root: [
            put(layouts.NODES, "NODES=\n")(root),
            changed((planted.NODES, ""), path=layouts.RESOLVED)(root),
        ],
        [("fails", "nodes inside")],
        f"list them in {layouts.NODES}",
    ),
    "nodes that cannot be": (
        put(layouts.NODES, 'NODES="198.51.100.72;198.51.100.73"\n'),
        [("fails", "sender installed"), ("warning", "nodes inside")],
        "correct it",
    ),
    "options that make no sense": (
        put(layouts.NODES, f'NODES="{planted.NODES}"\nARGS="-i 10x"\n'),
        [("fails", "sender installed"), ("warning", "nodes inside")],
        f"correct it in {layouts.NODES}",
    ),
    "a sender that ends": (
        lambda root: [
            put(layouts.NODES, f'NODES="{planted.NODES}"\nARGS="-c 5"\n')(root),
            changed(('ARGS=""', 'ARGS="-c 5"'), path=layouts.RESOLVED)(root),
        ],
        [("warning", "nodes inside")],
        "take -c out",
    ),
    "nodes of which resolved knows nothing": (
        put(layouts.NODES, f'NODES="{planted.NODES} 198.51.100.74"\n'),
        [("warning", "sender installed")],
        _AGAIN,
    ),
    "no key": (
        gone(layouts.NODE_KEY),
        [("warning", "sender installed"), ("fails", "key inside")],
        _AGAIN,
    ),
    "the cluster's key instead of the node's": (
        put(layouts.NODE_KEY, planted.CLUSTER.text(), 0o600),
        [("warning", "sender installed"), ("fails", "key inside")],
        "kdumpfence key rotate",
    ),
    "the key of another node": (
        put(layouts.NODE_KEY, node_key(node="node2"), 0o600),
        [("warning", "sender installed"), ("fails", "key inside")],
        _AGAIN,
    ),
    "a key that nobody accepts": (
        put(layouts.NODE_KEY, node_key(_OTHER), 0o600),
        [("warning", "sender installed"), ("fails", "key inside")],
        _AGAIN,
    ),
    "a key that was derived from another": (
        put(layouts.NODE_KEY, node_key(_OTHER, number=keys.key_id(KEY)), 0o600),
        [("warning", "sender installed"), ("fails", "key inside")],
        _AGAIN,
    ),
    "a key that has been rotated": (
        put(
            "/etc/kdumpfence/key",
            keys.Keys((_OTHER_ID, _OTHER), (keys.key_id(KEY), KEY)).text(),
            0o600,
        ),
        [("warning", "sender installed"), ("warning", "key inside")],
        _AGAIN,
    ),
    "a key that others may read": (
        lambda root: (root / layouts.NODE_KEY[1:]).chmod(0o644),
        [("warning", "sender installed"), ("fails", "key inside")],
        "chmod 600",
    ),
    "a key file that is damaged": (
        put(layouts.NODE_KEY, "signs 1234\n", 0o600),
        [("warning", "sender installed"), ("fails", "key inside")],
        _AGAIN,
    ),
    "a key that is not used": (
        changed((f" --key-file={layouts.NODE_KEY}", ""), path=layouts.RESOLVED),
        [("warning", "sender installed"), ("warning", "key inside")],
        _AGAIN,
    ),
}


def remedies(found: list[Finding]) -> str:
    return "\n".join(one.remedy for one in found if one.remedy)


@pytest.mark.parametrize("fault", ROOT_FAULTS)
def test_a_fault_in_the_root_is_found_with_its_remedy(healthy: Path, fault: str) -> None:
    plant, wrong, remedy = ROOT_FAULTS[fault]
    plant(healthy)
    found = planted.findings(healthy, _PART)
    assert planted.wrong(found) == wrong
    assert remedy in [one.remedy for one in found if one.remedy][-1]


def without(*paths: str) -> Change:
    return lambda files: [files.pop(path) for path in paths]


def with_file(path: str, content: str, mode: int = 0o644) -> Change:
    return lambda files: files.update({path: (content.encode(), mode)})


def cannot_sign(files: Files) -> None:
    content, mode = files[_SENDER]
    files[_SENDER] = (content + native_sender.CANNOT_SIGN, mode)


def no_nodes(files: Files) -> None:
    this_node = files[layouts.THIS_NODE][0]
    files[layouts.RESOLVED] = (b'NODES=""\nADDRESSES=""\nARGS=""\n' + this_node, 0o644)
    files["/etc/kdump.conf"] = (b"", 0o644)


#: Of an image, by what is in it.
IMAGE_FAULTS: dict[str, tuple[Change, str, str, str]] = {
    "no sender": (
        without(_SENDER, "/usr/libexec/fence_kdump_send"),
        *("fails", "sender inside", _REBUILD),
    ),
    "a sender that is not executable": (
        lambda files: files.update({_SENDER: (files[_SENDER][0], 0o644)}),
        *("fails", "sender inside", _REBUILD),
    ),
    "no hook": (without(_HOOK), "fails", "sender started", _REBUILD),
    "a hook that is not executable": (
        lambda files: files.update({_HOOK: (files[_HOOK][0], 0o644)}),
        *("fails", "sender started", _REBUILD),
    ),
    "no starter": (without(f"{HOME}/start-sender"), "fails", "sender started", _REBUILD),
    "no nodes": (no_nodes, "fails", "nodes inside", "list them in /etc/kdump.conf"),
    "no settings at all": (
        without(layouts.RESOLVED),
        *("fails", "nodes inside", "list them in /etc/kdump.conf"),
    ),
    "no key": (without(layouts.NODE_KEY), "fails", "key inside", _REBUILD),
    "the cluster's key": (
        with_file("/etc/kdumpfence/key", planted.CLUSTER.text(), 0o600),
        *("fails", "key inside", "kdumpfence key rotate"),
    ),
    "the cluster's key as the node's": (
        with_file(layouts.NODE_KEY, planted.CLUSTER.text(), 0o600),
        *("fails", "key inside", "kdumpfence key rotate"),
    ),
    "a sender that cannot sign": (cannot_sign, "fails", "key inside", "a build that can sign"),
    "no network": (
        without("/etc/cmdline.d/50neednet.conf"),
        *("fails", "network set up", "fence_kdump_nodes"),
    ),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
def test_a_fault_in_an_image_is_found_with_its_remedy(healthy_rhel: Path, fault: str) -> None:
    change, state, check, remedy = IMAGE_FAULTS[fault]
    planted.with_image(healthy_rhel, change=change)
    found = planted.findings(healthy_rhel, _PART)
    assert (state, check) in planted.wrong(found)
    assert {one.check for one in found if one.state != "ok"} == {check}
    assert remedy in remedies(found)


def cut_short(root: Path) -> None:
    image = root / IMAGE[1:]
    image.write_bytes(image.read_bytes()[:-100])


def of_other_nodes(root: Path) -> None:
    text = "fence_kdump_nodes node2.cluster node3.cluster\n"
    roots.put(root, "/etc/kdump.conf", text)
    aged("/etc/kdump.conf", -60)(root)


def with_connections(root: Path) -> None:
    roots.put(root, "/etc/NetworkManager/system-connections/eth1.nmconnection", "[ipv4]\n")
    aged("/etc/NetworkManager/system-connections/eth1.nmconnection", 60)(root)


def omitted(root: Path) -> None:
    planted.with_image(
        root, change=without(_SENDER, "/usr/libexec/fence_kdump_send", layouts.RESOLVED)
    )
    text = "fence_kdump_nodes 198.51.100.72\ndracut_args --omit kdumpfence\n"
    roots.put(root, "/etc/kdump.conf", text)


#: Of an image, and what is around it.
AROUND: dict[str, tuple[Fault, str, str, str]] = {
    "no image": (gone(IMAGE), "fails", "image found", _REBUILD),
    "an image that is cut short": (cut_short, "fails", "image found", _REBUILD),
    "an image that is none": (put(IMAGE, b"not an image\n"), "fails", "image found", _REBUILD),
    "an empty image": (put(IMAGE), "fails", "image found", _REBUILD),
    "no libraries": (
        lambda root: planted.with_image(root, libraries=False),
        *("fails", "sender inside", f"{_AGAIN} --static"),
    ),
    "nodes that it does not know": (of_other_nodes, "fails", "nodes inside", _REBUILD),
    "a newer network": (with_connections, "warning", "image current", _REBUILD),
    "an image that others may read": (
        lambda root: (root / IMAGE[1:]).chmod(0o644),
        *("warning", "image private", f"chmod 600 {IMAGE}"),
    ),
}


@pytest.mark.parametrize("fault", AROUND)
def test_a_fault_of_an_image_is_found_with_its_remedy(healthy_rhel: Path, fault: str) -> None:
    plant, state, check, remedy = AROUND[fault]
    plant(healthy_rhel)
    found = planted.findings(healthy_rhel, _PART)
    assert planted.wrong(found) == [(state, check)]
    assert remedy in remedies(found)


def test_a_module_that_is_left_out_is_named(healthy_rhel: Path) -> None:
    omitted(healthy_rhel)
    found = planted.findings(healthy_rhel, _PART)
    inside = next(one for one in found if one.check == "sender inside")
    assert inside.state == "fails"
    assert "dracut_args in /etc/kdump.conf omits it" in inside.text


@pytest.mark.parametrize("path", [_SENDER, layouts.NODE_KEY, layouts.THIS_NODE])
@pytest.mark.parametrize("same", [True, False])
def test_what_was_touched_and_not_changed_makes_no_image_old(
    healthy_rhel: Path, path: str, same: bool
) -> None:
    if not same:
        with (healthy_rhel / path[1:]).open("ab") as file:
            file.write(b"\n")
    aged(path, 60)(healthy_rhel)
    found = planted.findings(healthy_rhel, _PART)
    assert ("warning", "image current") in planted.wrong(found) or same
    assert planted.wrong(found) == [] or not same


@pytest.mark.parametrize(("root", "checks"), [("healthy", 5), ("healthy_rhel", 9)])
def test_nothing_is_wrong_where_nothing_is_wrong(
    request: pytest.FixtureRequest, root: str, checks: int
) -> None:
    found = planted.findings(request.getfixturevalue(root), _PART)
    assert planted.wrong(found) == []
    assert len({one.check for one in found}) == checks


def test_without_our_module_kdump_utils_starts_the_sender_late(healthy_rhel: Path) -> None:
    for path in (f"{HOME}/installed", "/etc/kdumpfence/key", layouts.NODE_KEY):
        gone(path)(healthy_rhel)
    sender = (healthy_rhel / _SENDER[1:]).read_bytes()
    planted_sender = "/usr/libexec/fence_kdump_send"
    roots.put(healthy_rhel, "/etc/kdumpfence/this-node")
    roots.put(healthy_rhel, layouts.NODE_KEY)

    def stock(files: Files) -> None:
        for path in [path for path in files if "kdumpfence" in path]:
            del files[path]
        files[planted_sender] = (sender, 0o755)

    planted.with_image(healthy_rhel, change=stock)
    os.remove(healthy_rhel / layouts.NODE_KEY[1:])
    found = planted.findings(healthy_rhel, _PART)
    assert planted.wrong(found) == [("warning", "sender installed"), ("warning", "sender started")]
    assert all(_REBUILD in one.remedy for one in found if one.remedy)
