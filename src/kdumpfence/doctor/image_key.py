# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the crash kernel signs with a key that the other nodes believe, and with no other's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from kdumpfence import keys
from kdumpfence.cmdline import OptionError
from kdumpfence.doctor import kdump
from kdumpfence.doctor.archive import Archive
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.image import SENDER, Boots, boots, installing
from kdumpfence.doctor.machine import Machine
from kdumpfence.install import InstallError, native_sender, node_name
from kdumpfence.install.layouts import NODE_KEY
from kdumpfence.install.record import Record
from kdumpfence.install.this_node import CLUSTER_KEY
from kdumpfence.keys import KeyFileError, Keys
from kdumpfence.sender import options
from kdumpfence.text import shown

_CHECK = "key inside"


def key_inside(machine: Machine) -> Iterator[Finding]:
    """The sender signs with this node's own key, if the cluster has one."""
    known = boots(machine)
    if known is None or not known.sender:
        return
    remedy = installing(known.kdump)
    if isinstance(known.contents, Archive) and known.contents.mode(CLUSTER_KEY) is not None:
        yield fails(
            _CHECK,
            f"the cluster's key, {CLUSTER_KEY}, is in the image: whoever reads that can speak for "
            "every node",
            f"keep it out of the image, {remedy}, then kdumpfence key rotate",
        )
    words = known.words()
    if not words:
        return
    path = _key_file(words)
    if not path:
        for place in (CLUSTER_KEY, NODE_KEY):
            if machine.exists(place) and known.sender == SENDER:
                text = f"there is {machine.root.outside(place)}, but messages will not be signed"
                yield warning(_CHECK, text, remedy)
                return
        return
    content = known.contents.read(path)
    if content is None:
        text = f"no {path} in {known.what}: messages will not be signed"
        yield fails(_CHECK, text, remedy)
        return
    if native_sender.CANNOT_SIGN in (known.contents.read(known.sender) or b""):
        yield fails(
            _CHECK,
            f"{known.sender} was built without BearSSL and cannot sign",
            f"install a build that can sign (docs/building.md), then {remedy}",
        )
    if (known.contents.mode(path) or 0) & 0o077:
        text = f"others have rights to {path} in {known.what}: the sender does not use it"
        yield fails(_CHECK, text, f"chmod 600 {path}, then {remedy}")
        return
    try:
        own = keys.parse(content.decode("ascii"))
    except (KeyFileError, UnicodeDecodeError) as error:
        why = error if isinstance(error, KeyFileError) else "not text"
        yield fails(_CHECK, f"{path} in {known.what}: {why}", remedy)
        return
    trouble = list(_trouble(machine, known, own, remedy))
    yield from trouble or [
        ok(_CHECK, f"signs as node {shown(own.node)} with key {own.signs[0]:08x}")
    ]


def _key_file(words: list[str]) -> str:
    """Which key file the sender is told to use; "" if none."""
    try:
        return options.sender_from_argv([*words, "any-node"]).key_file
    except OptionError:
        return ""


def _trouble(machine: Machine, known: Boots, own: Keys, remedy: str) -> Iterator[Finding]:
    if not own.node:
        yield fails(
            _CHECK,
            f"what {known.what} has for this node's key is the cluster's: whoever reads that can "
            "speak for every node",
            f"rm {NODE_KEY}; {remedy}, then kdumpfence key rotate",
        )
        return
    try:
        name = Record.load(machine.root).node or node_name.of(machine.root)
    except InstallError as error:
        raise Unknown(str(error)) from None
    if name and own.node != name:
        yield fails(
            _CHECK,
            f"the key is that of node {shown(own.node)}, and this is {shown(name)}",
            f"{remedy} (--node NAME if the cluster calls this node otherwise)",
        )
        return
    content = machine.bytes_of(CLUSTER_KEY)
    if content is None:
        return  # made elsewhere: only the other nodes know
    try:
        cluster = keys.parse(content.decode("ascii"))
    except (KeyFileError, UnicodeDecodeError) as error:
        why = error if isinstance(error, KeyFileError) else "not text"
        yield fails("cluster key", f"{CLUSTER_KEY}: {why}", "copy it from another node")
        return
    if cluster.node:
        return  # which install-sender refuses
    number, key = own.signs
    believed = (cluster.of(own.node) or cluster).by_id(number)
    if believed is None:
        text = f"signs with key {number:08x}, which is not in {CLUSTER_KEY}: nobody believes it"
        yield fails(_CHECK, text, remedy)
    elif believed != key:
        text = f"not the key that is derived from {number:08x} for node {shown(own.node)}"
        yield fails(_CHECK, text, remedy)
    elif number != cluster.signs[0]:
        text = f"signs with the older key {number:08x}: key rotate --drop would make it worthless"
        yield warning(_CHECK, text, remedy)


def image_private(machine: Machine) -> Iterator[Finding]:
    """An image with a key can be read by root alone."""
    known = boots(machine)
    if known is None or not isinstance(known.contents, Archive):
        return
    if known.contents.mode(NODE_KEY) is None:
        return
    path = kdump.image_path(machine, known.kdump)
    real = machine.root.real_path(path)
    mode = 0 if real is None else os.stat(machine.root.outside(real)).st_mode
    if mode & 0o044:
        yield warning(
            "image private",
            f"{path} has this node's key, and mode {stat.S_IMODE(mode):04o}: others can read it",
            f"chmod 600 {path}",
        )
    else:
        yield ok("image private", "only root can read it")


CHECKS = (key_inside, image_private)
