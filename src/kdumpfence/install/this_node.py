# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the sender of a crash kernel is told of its own node: its name, and the key to sign with.

The node's key is derived from the cluster's, which never leaves its file. Where there is none, a
node's key that was brought here is used as it is.
"""

from __future__ import annotations

import re

from kdumpfence import keys
from kdumpfence.install import InstallError, node_name
from kdumpfence.install.layouts import NODE_KEY, THIS_NODE, Item
from kdumpfence.install.record import Record
from kdumpfence.install.sysroot import Sysroot
from kdumpfence.keys import Keys
from kdumpfence.text import shown

CLUSTER_KEY = keys.DEFAULT_PATH

#: Of a name: what neither a shell nor systemd replaces or splits.
PLAIN = re.compile(r"[A-Za-z0-9.:%_=,@/+-]{1,64}")

_COMMENT = """\
# A node's key for kdumpfence, which its crash kernel signs messages with: see kdumpfence(8).
# Whoever has it can make the cluster believe that this node crashed: for root alone, mode 0600.
"""
_TOLD = """\
# Made by kdumpfence install-sender: do not edit.
THIS_NODE="{}"
"""


def key_file(cluster: Keys, node: str) -> bytes:
    """The content of the key file of a node. ValueError for a name that no packet can carry."""
    number, key = cluster.signs
    return (_COMMENT + Keys((number, keys.node_key(key, node)), node=node).text()).encode()


def files(root: Sysroot, known: Record, given: str) -> tuple[list[Item], str]:
    """The files of this node, which is called `given` if anything is, and a remark on the key.

    No remark: messages will not be signed. Raises InstallError.
    """
    if given and not PLAIN.fullmatch(given):
        raise InstallError(
            f"--node {shown(given)}: not 1 to 64 letters, digits and . : % _ = , @ / + -"
        )
    name = given or known.node or node_name.of(root)
    items, remark = [], ""
    cluster = _read(root, CLUSTER_KEY)
    own = None if cluster else _read(root, NODE_KEY)
    if cluster:
        if cluster.node:
            raise InstallError(
                f"{root.outside(CLUSTER_KEY)} is the key of the node {shown(cluster.node)}, not "
                f"the cluster's: move it to {root.outside(NODE_KEY)}"
            )
        if not name:
            raise InstallError("this node's name is not known: give --node NAME")
        items.append(Item(NODE_KEY, mode=0o600, content=key_file(cluster, name)))
        remark = f"its crash kernel signs as node {shown(name)} with key {cluster.signs[0]:08x}"
    elif own:
        if not own.node:
            raise InstallError(
                f"{root.outside(NODE_KEY)} is a cluster's key, which must not be in a crash "
                "kernel's image: 'kdumpfence key derive' makes a node's"
            )
        if name and own.node != name:
            raise InstallError(
                f"{root.outside(NODE_KEY)} is the key of the node {shown(own.node)}, and this is "
                f"{shown(name)}: derive its own, or give --node {own.node}"
            )
        name = own.node
        if known.ours.get(NODE_KEY):  # as long as it is used
            items.append(Item(NODE_KEY, mode=0o600, content=root.read(NODE_KEY) or b""))
        remark = (
            f"its crash kernel signs as node {shown(name)} with key {own.signs[0]:08x} of "
            f"{root.outside(NODE_KEY)}, since {root.outside(CLUSTER_KEY)} is missing"
        )
    options = [f"--node={name}"] if PLAIN.fullmatch(name) else []
    options += [f"--key-file={NODE_KEY}"] if remark else []
    items.append(Item(THIS_NODE, content=_TOLD.format(" ".join(options)).encode()))
    return items, remark


def images_are_readable(root: Sysroot) -> bool:
    """Whether everybody may read the images that initramfs-tools makes."""
    folder = "/etc/initramfs-tools"
    paths = [f"{folder}/conf.d/{name}" for name in root.names(f"{folder}/conf.d")]
    texts = ((root.read(path) or b"").decode(errors="replace") for path in
             (f"{folder}/initramfs.conf", *paths))  # fmt: skip
    masks = [mask for text in texts for mask in _UMASK.findall(text)]
    return not masks or not masks[-1].endswith("77")


_UMASK = re.compile(r"""^[ \t]*(?:export[ \t]+)?UMASK=["']?([0-7]+)""", re.MULTILINE)


def _read(root: Sysroot, path: str) -> Keys | None:
    """The keys in a file of the root, links followed; None if there is none."""
    real = root.real_path(path)
    if real is None:
        return None
    try:
        return keys.read(root.outside(real))
    except keys.KeyFileError as error:
        raise InstallError(str(error)) from None
