# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence key: the key that the nodes of a cluster share, and those derived from it.

A rotation is made so that at each step every node accepts what any crash kernel signs, whichever
nodes have taken the step already:

    rotate            a new key is accepted         copy the file to all nodes
    rotate --switch   and signed with               copy it, then build all images anew
    rotate --drop     and the old one forgotten     copy it

So a second key is never replaced: it is switched to or dropped, by someone who knows which.
"""

from __future__ import annotations

import argparse
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kdumpfence import keys
from kdumpfence.cli import CommandError
from kdumpfence.cli.install_options import say
from kdumpfence.install import layouts, this_node
from kdumpfence.install.sysroot import Sysroot
from kdumpfence.keys import DEFAULT_PATH, KEY_BYTES, KeyFileError, Keys
from kdumpfence.text import shown

HELP = "make, show and rotate the cluster's key, and derive those of nodes"

_COMMENT = """\
# The key of a cluster for kdumpfence, the same on all its nodes: see kdumpfence(8).
# Whoever has it can make the cluster believe that a node crashed: for root alone, mode 0600.
"""

_COPY = "next: copy this file to every other node"
_INSTALL = "kdumpfence install-sender, and rebuild the crash kernel's image as it says"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of all actions."""
    parser.add_argument("action", nargs="?", metavar="ACTION", help=", ".join(_ACTIONS))
    parser.add_argument(
        "--file", default=DEFAULT_PATH, metavar="PATH", help=f"the key file ({DEFAULT_PATH})"
    )
    parser.add_argument("--switch", action="store_true", help="rotate: sign with the other key")
    parser.add_argument(
        "--drop", action="store_true", help="rotate: accept only the key that is signed with"
    )
    parser.add_argument("--node", metavar="NAME", help="derive: what the cluster calls the node")
    parser.add_argument(
        "--out", metavar="PATH", help="derive: the file to write (default: a pipe on stdout)"
    )


def run(given: argparse.Namespace) -> int:
    """Do it."""
    if given.action not in _ACTIONS:
        what = "no action" if given.action is None else shown(given.action)
        raise CommandError(f"{what}: not one of {', '.join(_ACTIONS)}; see kdumpfence key --help")
    action, options = _ACTIONS[given.action]
    for option in ("switch", "drop", "node", "out"):
        if getattr(given, option) and option not in options:
            raise CommandError(f"--{option}: not an option of {given.action}")
    try:
        action(given)
    except KeyFileError as error:
        raise CommandError(str(error)) from None
    return 0


# ------------------------------------------------------------------ actions


def _create(given: argparse.Namespace) -> None:
    with _held(given.file) as (root, path):
        if root.find(path) is not None:
            raise CommandError(f"{path} exists; to replace its key: {_command(given, 'rotate')}")
        made = Keys(_new_slot())
        _write(root, path, made)
    say(f"{path}: made, with key {_name(made.signs)}")
    say(f"{_COPY}; if one of them has a key, take that instead")
    say(f"then, on each node: {_INSTALL}")
    say("last, when every node has done so: auth=sha256 for the fence device")


def _show(given: argparse.Namespace) -> None:
    if given.file == DEFAULT_PATH and not os.path.lexists(given.file):
        own = _node_key(given)
        if own is not None and own.node:
            say(f"node-key {_name(own.signs)} of {own.node}")
            say(f"{given.file} is not here: this node signs, but cannot fence with auth=sha256")
            return
    found = keys.read(given.file)
    if found.node:
        say(f"node     {found.node}")
    say(f"signs    {_name(found.signs)}")
    if found.accepts:
        say(f"accepts  {_name(found.accepts)}")
    own = _node_key(given)
    if own is None or found.node:
        return
    if not own.node:
        raise CommandError(
            f"{layouts.NODE_KEY} is a cluster's key: 'kdumpfence install-sender' replaces it by "
            "this node's own; then rebuild the crash kernel's image"
        )
    say(f"node-key {_name(own.signs)} of {own.node}")
    derived = found.of(own.node)
    if derived is None or derived.by_id(own.signs[0]) != own.signs[1]:
        say("warning: no node that has this file accepts what this node's crash kernel signs")
    if own.signs[0] != found.signs[0]:
        say(f"next, on this node: {_INSTALL}")


def _rotate(given: argparse.Namespace) -> None:
    if given.switch and given.drop:
        raise CommandError("--switch and --drop are two steps: one at a time")
    with _held(given.file) as (root, path):
        old = _cluster(path)
        if given.switch:
            new, then = _switched(given, path, old)
        elif not given.drop:
            new, then = _staged(given, path, old)
        elif old.accepts is not None:
            new, then = _dropped(path, old, old.accepts, _node_key(given))
        else:
            say(f"nothing to do: {path} has one key, {_name(old.signs)}")
            return
        _write(root, path, new)
    for line in then:
        say(line)


def _staged(given: argparse.Namespace, path: str, old: Keys) -> tuple[Keys, list[str]]:
    if old.accepts is not None:
        raise CommandError(
            f"{path}: a rotation is under way: {_command(given, 'rotate --switch')} signs with "
            f"{_name(old.accepts)}, {_command(given, 'rotate --drop')} forgets it (once no crash "
            "kernel's image signs with it)"
        )
    slot = _new_slot()
    return Keys(old.signs, slot), [
        f"{path}: {_name(slot)} is accepted too, {_name(old.signs)} still signs",
        _COPY,
        f"only when all of them have it: {_command(given, 'rotate --switch')}",
    ]


def _switched(given: argparse.Namespace, path: str, old: Keys) -> tuple[Keys, list[str]]:
    if old.accepts is None:
        raise CommandError(
            f"{path}: no other key to sign with: {_command(given, 'rotate')} makes one"
        )
    return Keys(old.accepts, old.signs), [
        f"{path}: {_name(old.accepts)} signs from now on, {_name(old.signs)} is still accepted",
        _COPY,
        f"then, on each node: {_INSTALL}",
        f"only when every node has done so: {_command(given, 'rotate --drop')}",
    ]


def _dropped(
    path: str, old: Keys, dropped: tuple[int, bytes], own: Keys | None
) -> tuple[Keys, list[str]]:
    if own is not None and own.signs[0] == dropped[0]:
        raise CommandError(
            f"{layouts.NODE_KEY}: this node's crash kernel still signs with {_name(dropped)}: "
            "run 'kdumpfence install-sender' and rebuild its image, on every node"
        )
    return Keys(old.signs), [f"{path}: {_name(dropped)} is no longer accepted", _COPY]


def _derive(given: argparse.Namespace) -> None:
    if given.node is None:
        raise CommandError("no --node NAME, by which the cluster knows it")
    cluster = _cluster(given.file)
    try:
        content = this_node.key_file(cluster, given.node)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if given.out is None:
        _print_key(content)
        return
    with _held(given.out) as (root, path):
        if root.find(path) is not None and not keys.read(path).node:
            raise CommandError(f"{path} is a cluster's key: not overwritten")
        root.write(path, content, 0o600)
    say(f"{path}: made, the key of node {shown(given.node)}, from {_name(cluster.signs)}")


_ACTIONS = {
    "create": (_create, ()),
    "show": (_show, ()),
    "rotate": (_rotate, ("switch", "drop")),
    "derive": (_derive, ("node", "out")),
}

# ------------------------------------------------------------------ what they share


@contextmanager
def _held(name: str) -> Iterator[tuple[Sysroot, str]]:
    """The path of that file, links followed; nobody else changes it by this command meanwhile."""
    path = os.path.realpath(name)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder) and path != DEFAULT_PATH:
        raise CommandError(f"{folder}: no such directory")
    with Sysroot("/") as root, root.locked(folder):
        yield root, path


def _new_slot() -> tuple[int, bytes]:
    key = os.urandom(KEY_BYTES)
    return keys.key_id(key), key


def _write(root: Sysroot, path: str, new: Keys) -> None:
    root.write(path, (_COMMENT + new.text()).encode(), 0o600)


def _cluster(path: str) -> Keys:
    found = keys.read(path)
    if found.node:
        raise CommandError(f"{path} is the key of node {shown(found.node)}, not the cluster's")
    return found


def _node_key(given: argparse.Namespace) -> Keys | None:
    """What this node's crash kernel signs with, if this is about its own cluster."""
    if given.file != DEFAULT_PATH or not os.path.lexists(layouts.NODE_KEY):
        return None
    return keys.read(layouts.NODE_KEY)


def _print_key(content: bytes) -> None:
    """To a pipe: what is on a screen or in a file for all to read is no secret any more."""
    if sys.stdout.isatty():
        raise CommandError("the key would be on this terminal: give --out PATH, or pipe it away")
    about = os.fstat(sys.stdout.fileno())
    if stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
        raise CommandError("others may read the file on stdout: give --out PATH instead")
    sys.stdout.buffer.write(content)


def _name(slot: tuple[int, bytes]) -> str:
    """The id of a key, which is all that is ever shown of it."""
    return f"{slot[0]:08x}"


def _command(given: argparse.Namespace, action: str) -> str:
    file = "" if given.file == DEFAULT_PATH else f" --file {shlex.quote(given.file)}"
    return f"'kdumpfence key {action}{file}'"
