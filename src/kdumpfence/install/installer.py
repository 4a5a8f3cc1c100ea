# SPDX-License-Identifier: LGPL-2.1-or-later
"""Puts the files of a layout in their places, and takes them away again.

First all steps are found, then they are told, then they are done. Each leaves either the
old file or the new one, so a run may be killed anywhere: the next one finds out what is left.

What was there before is kept as .NAME.stock beside it, a name that neither Pacemaker, nor
systemd, nor initramfs-tools looks at.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from kdumpfence.install import (
    InstallError,
    dracut_config,
    layouts,
    native_sender,
    record,
    sender_arguments,
    this_node,
)
from kdumpfence.install.layouts import HOME, NODES, RESOLVED, Item, Layout
from kdumpfence.install.record import Record
from kdumpfence.install.sysroot import Sysroot

Say = Callable[[str], None]

_OWN_DIRECTORIES = (HOME, os.path.dirname(NODES), os.path.dirname(layouts.DRACUT_MODULE))


def kept_name(path: str) -> str:
    """Where what was at this path is kept."""
    folder, name = os.path.split(path)
    return f"{folder}/.{name}.stock"


def _diversions(root: Sysroot, paths: list[str]) -> list[str]:
    """What to do about dpkg's diversions of these, which version 0.1.0 of this program made."""
    lines = (root.read("/var/lib/dpkg/diversions") or b"").decode(errors="replace").split("\n")
    diverted = set(zip(lines[0::3], lines[1::3], lines[2::3]))
    return [
        f"warning: dpkg still diverts {path} to {kept_name(path)}, so updates do not reach it: "
        f"run dpkg-divert --local --no-rename --remove {path}"
        for path in paths
        if (path, kept_name(path), ":") in diverted
    ]


def _shown(path: str) -> str:
    """The path, but of the agent's modules the directory alone: they come and go together."""
    match = re.match(rf"{HOME}/agent-[^/]+/", path)
    return match[0] if match else path


@dataclass
class _Plan:
    """What is to be done, and what there is to say about it."""

    root: Sysroot
    known: Record
    steps: list[tuple[str, Callable[[], None]]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def put(self, item: Item) -> None:
        """The steps that put one file in its place."""
        root, path, kept = self.root, item.path, kept_name(item.path)
        there = root.find(path)
        if there == item.found or (there is not None and item.only_if_missing):
            return
        text = f"put {_shown(path)}"
        if self.known.is_ours(path, there):
            text = f"update {_shown(path)}"
        elif there is not None:
            if not there.content:
                raise InstallError(f"{root.outside(path)} is neither a file nor a link")
            self.steps.append((f"keep the existing file as {kept}", lambda: root.keep(path, kept)))
        if item.target:
            self.steps.append((f"{text} -> {item.target}", lambda: root.symlink(path, item.target)))
        else:
            self.steps.append((text, lambda: root.write(path, item.content, item.mode)))

    def take_away(self, path: str) -> None:
        """The steps that remove one file of ours and bring back what was there before."""
        root, kept = self.root, kept_name(path)
        there, has_kept = root.find(path), root.find(kept) is not None
        if there is not None and not self.known.is_ours(path, there):
            self.remarks.append(f"left: {path}, which was changed since")
            if has_kept:  # an update of the stock package brought a newer one
                self.steps.append((f"remove the older {kept}", lambda: root.remove(kept)))
        elif has_kept:
            self.steps.append((f"restore {path} from {kept}", lambda: root.bring_back(kept, path)))
        elif there is not None:
            self.steps.append((f"remove {_shown(path)}", lambda: root.remove(path)))

    def carry_out(self, dry_run: bool, say: Say) -> None:
        """Tell the steps, and do them."""
        if dry_run and self.steps:
            say("dry run, nothing is changed; the steps would be:")
        said = ""
        for text, do in self.steps:
            if text != said:
                say(text)
            said = text
            if not dry_run:
                do()
        for remark in self.remarks:
            say(remark)


def install(
    root: Sysroot, layout: Layout, sender: bytes, dry_run: bool, say: Say, node: str = ""
) -> None:
    """Put all files of a layout in their places, on the node of that name if one is given.

    Raises InstallError, OSError.
    """
    missing = root.missing_directories(record.PATH)  # before the lock makes them
    with contextlib.nullcontext() if dry_run else root.locked(HOME):
        _install(root, layout, sender, missing, dry_run, say, node)


def _install(
    root: Sysroot,
    layout: Layout,
    sender: bytes,
    missing: list[str],
    dry_run: bool,
    say: Say,
    node: str,
) -> None:
    known = Record.load(root)
    plan = _Plan(root, known)
    items = [item.filled(sender) for item in layout.items]
    if layout.name in layouts.LAYOUTS:
        own, signs = this_node.files(root, known, node)
        items = [*own, *items]
        known.node = node or known.node
        plan.remarks += _check_arguments(root, layout, bool(signs))
        if signs:
            plan.remarks.append(signs)
            if native_sender.CANNOT_SIGN in sender:
                plan.remarks.append(
                    "warning: this installation's native sender was built without BearSSL and "
                    "cannot sign: see docs/building.md"
                )
    if layout.resolves:
        content, said = resolve(root)
        content += b"".join(item.content for item in items if item.path == layouts.THIS_NODE)
        items.append(Item(RESOLVED, content=content))
        plan.remarks += said
    for item in items:
        plan.put(item)
    paths = [item.path for item in items]
    plan.remarks += _diversions(root, paths)
    before = known.layouts.get(layout.name, [])
    known.layouts[layout.name] = paths
    outdated = [path for path in before if not known.users(path)]  # an older version put it there
    for path in outdated:
        plan.take_away(path)
    if layout.kdump and root.find(layout.kdump) is None:
        plan.remarks.append(
            f"kdump does not seem to be installed: {root.outside(layout.kdump)} is missing"
        )
    for item in items:
        digests = known.ours.setdefault(item.path, [])
        if not item.only_if_missing or root.find(item.path) in (None, item.found):
            digests[:] = list(dict.fromkeys([*digests, item.found.digest]))
        missing += root.missing_directories(item.path)
    known.directories = list(dict.fromkeys([*known.directories, *missing]))
    known.layouts[layout.name] = list(dict.fromkeys([*before, *paths]))
    if plan.steps and not dry_run:
        known.save(root)
    plan.carry_out(dry_run, say)
    known.layouts[layout.name] = paths
    known.forget()
    for item in items:
        if item.found.digest in known.ours[item.path]:
            known.ours[item.path] = [item.found.digest]
    if not dry_run:
        for path in outdated:
            root.sweep(path)  # a run for that one may have been killed
        _remove_unused_directories(root, known)
        known.save(root)
    say(layout.afterwards if plan.steps else "nothing to do: everything is in place")


def remove(root: Sysroot, layout: Layout, dry_run: bool, say: Say) -> None:
    """Take a layout's files away and bring back what they replaced. Raises as install()."""
    if root.find(record.PATH) is None:
        if not dry_run:
            _tidy(root, [])  # a run may have been killed there
        say("nothing to do: nothing was installed by this program")
        return
    with contextlib.nullcontext() if dry_run else root.locked(HOME):
        _remove(root, layout, dry_run, say)


def _remove(root: Sysroot, layout: Layout, dry_run: bool, say: Say) -> None:
    known = Record.load(root)
    plan = _Plan(root, known)
    paths = known.layouts.pop(layout.name, None)
    if paths is None:
        say(f"nothing to do: nothing was installed for {layout.title}")
        return
    if layouts.DRACUT_MODULE in paths and not known.users(layouts.DRACUT_MODULE):
        for where in dracut_config.asking(root):
            raise InstallError(
                f"{where} asks for the module {dracut_config.MODULE}, without which dracut would "
                "make no image: remove it there first"
            )
    for path in reversed(paths):
        others = " and ".join(known.users(path))
        if others:
            plan.remarks.append(f"left: {path}, which is needed for {others}")
        else:
            plan.take_away(path)
    plan.remarks += _diversions(root, paths)
    plan.carry_out(dry_run, say)
    if not dry_run:
        known.forget()
        for path in paths:
            root.sweep(path)
            root.sweep(kept_name(path))
        # Without its record the directories would no longer be known as ours: these first.
        for folder in reversed(known.directories):
            root.remove_directory(folder)
        if known.layouts:
            known.save(root)
        else:
            root.remove(record.PATH)
            _tidy(root, known.directories)
    if layout.after_removal:
        say(layout.after_removal)


def _tidy(root: Sysroot, directories: list[str]) -> None:
    """Remove what is left of the record, and directories that are empty then."""
    root.sweep(record.PATH)
    for folder in [*_OWN_DIRECTORIES, *reversed(directories)]:
        root.remove_directory(folder)


def _remove_unused_directories(root: Sysroot, known: Record) -> None:
    """Remove those that an older version made and in which this one has nothing."""
    paths = [path for paths in known.layouts.values() for path in (*paths, record.PATH)]
    for folder in reversed(known.directories[:]):
        if not any(path.startswith(f"{folder}/") for path in paths):
            root.remove_directory(folder)
            if not root.has_directory(folder):
                known.directories.remove(folder)


def _check_arguments(root: Sysroot, layout: Layout, signs: bool) -> list[str]:
    """Warnings about what the sender is going to be told, and to sign. Raises InstallError.

    Our own file is refused if it makes no sense; those of others are theirs to keep, as long as
    they let a crash kernel be loaded.
    """
    errors = []
    if any(item.path == NODES for item in layout.items):
        errors += sender_arguments.own_file(root.outside(NODES), resolve(root, "--read")[0])
    machine = sender_arguments.Machine.this() if root.root == "/" else sender_arguments.Machine()
    found = sender_arguments.others(root, layout.name, machine, signs)
    errors += found.errors
    if errors:
        raise InstallError("; ".join(errors))
    if signs and layout.name == "initramfs-tools" and this_node.images_are_readable(root):
        found.warnings.append(
            "everybody may read the images of mkinitramfs, and this node's key in them: write "
            f"UMASK=0077 into {root.outside('/etc/initramfs-tools/conf.d/kdumpfence')}, and remove "
            "the old image before the new one is built"
        )
    remarks = [f"warning: {one}" for one in found.warnings]
    where, call = layout.ends
    if where and call not in "\n".join(_settings(root, where)):
        remarks.append(
            f"the end of a dump is told only if {root.outside(where)} calls {call}: "
            "see kdumpfence(8)"
        )
    return remarks


def _settings(root: Sysroot, path: str) -> list[str]:
    """The lines of a file without its comments."""
    lines = (root.read(path) or b"").decode(errors="replace").splitlines()
    return [line for line in lines if not line.lstrip().startswith("#")]


def resolve(root: Sysroot, *arguments: str) -> tuple[bytes, list[str]]:
    """The nodes with their addresses, by the script that does it for images too, and its remarks.

    Raises InstallError.
    """
    nodes = root.read(NODES)
    done = subprocess.run(
        ["/bin/sh", layouts.data_path("common/resolve-nodes"), *arguments, "-", NODES],
        input=layouts.data("common/nodes") if nodes is None else nodes,
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode(errors="replace").splitlines()
    said = [line[len("kdumpfence: ") :] for line in said]
    if done.returncode:
        raise InstallError("; ".join(said).replace(NODES, root.outside(NODES)))
    return done.stdout, said
