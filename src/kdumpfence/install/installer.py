# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the sender or the agent where others look for it, and takes it away again.

First all steps are found, then they are told, then they are done. Each leaves either the
old file or the new one, so a run may be killed anywhere: the next one finds out what is
left. It knows our files from others by their digests, which are written down before a file
is put anywhere.

What was there before is kept as .NAME.stock beside it, a name that neither Pacemaker, nor
systemd, nor initramfs-tools looks at; and where it belongs to a package of dpkg, it is
diverted to that name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from kdumpfence.install import dpkg, layouts, root_directory, sender_arguments
from kdumpfence.install.layouts import HOME, NODES, RESOLVED, Item, Layout
from kdumpfence.install.root_directory import Found, Tree

RECORD = f"{HOME}/installed"
_OWN_DIRECTORIES = (HOME, os.path.dirname(NODES))


class InstallError(Exception):
    """It cannot be done; the text says why, in one line."""


@dataclass
class Record:
    """What this program did below a root, as written down there."""

    layouts: dict[str, list[str]] = field(default_factory=dict)  #: their paths
    ours: dict[str, list[str]] = field(default_factory=dict)  #: digests by path
    directories: list[str] = field(default_factory=list)  #: made by us, outermost first

    @classmethod
    def load(cls, root: Tree) -> Record:
        """What is written down. Raises InstallError if that cannot be understood."""
        content = root.read(RECORD)
        if content is None:
            return cls()
        try:
            fields = json.loads(content)
            record = cls(fields["layouts"], fields["ours"], fields["directories"])
            lists = [*record.layouts.values(), *record.ours.values(), record.directories]
            if not all(isinstance(text, str) for one in lists for text in one):
                raise TypeError("not a text")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InstallError(
                f"{root.outside(RECORD)}: not as this program wrote it; move it away, and put "
                "back by hand what is kept as .NAME.stock"
            ) from None
        return record

    def save(self, root: Tree) -> None:
        """Write it down."""
        text = json.dumps(vars(self), indent=1, sort_keys=True) + "\n"
        if root.read(RECORD) != text.encode():
            root.write(RECORD, text.encode(), 0o644)

    def forget(self) -> None:
        """Drop what is known of files that belong to no layout any more."""
        self.ours = {path: known for path, known in self.ours.items() if self.users(path)}

    def users(self, path: str) -> list[str]:
        """The layouts that this file belongs to."""
        return [name for name, paths in self.layouts.items() if path in paths]


@dataclass(frozen=True)
class Step:
    """One thing to be done, and how it is told."""

    text: str
    do: Callable[[], None]


@dataclass
class Plan:
    """What is to be done, and what there is to say about it."""

    steps: list[Step] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, text: str, do: Callable[[], None]) -> None:
        """Put one more step at the end."""
        self.steps.append(Step(text, do))


def kept_name(path: str) -> str:
    """Where what was at this path is kept."""
    folder, name = os.path.split(path)
    return f"{folder}/.{name}.stock"


def _shown(path: str) -> str:
    """The path, but of the agent's modules the directory alone: they come and go together."""
    match = re.match(rf"{HOME}/agent-[^/]+/", path)
    return match[0] if match else path


@dataclass(frozen=True)
class _Wanted:
    """A file as it is to be."""

    item: Item
    content: bytes

    @property
    def found(self) -> Found:
        if self.item.is_link:
            return root_directory.link(self.item.source)
        return root_directory.file(self.content, self.item.mode)


def install(
    root: Tree, layout: Layout, sender: bytes, dry_run: bool, say: Callable[[str], None]
) -> None:
    """Put all files of a layout in their places. Raises InstallError, OSError, DpkgError."""
    missing = root.missing_directories(RECORD)  # before the lock makes them
    with contextlib.nullcontext() if dry_run else root.locked(HOME):
        _install(root, layout, sender, missing, dry_run, say)


def _install(
    root: Tree,
    layout: Layout,
    sender: bytes,
    missing: list[str],
    dry_run: bool,
    say: Callable[[str], None],
) -> None:
    record = Record.load(root)
    plan = Plan()
    wanted = [_wanted(item, sender) for item in layout.items]
    if layout.name in layouts.LAYOUTS:
        plan.remarks += _check_feeds(root, layout)
    if layout.resolves:
        content, said = _resolve(root)
        wanted.append(_Wanted(Item(RESOLVED, ""), content))
        plan.remarks += said
    for one in wanted:
        _plan_item(plan, root, record, one)
    paths = [one.item.path for one in wanted]
    before = record.layouts.get(layout.name, [])
    record.layouts[layout.name] = paths
    for path in before:
        if not record.users(path):  # an older version put it there
            _plan_removal(plan, root, record, path)
    if layout.kdump and root.find(layout.kdump) is None:
        plan.remarks.append(f"kdump seems not to be installed: no {root.outside(layout.kdump)}")
    for one in wanted:
        known = record.ours.setdefault(one.item.path, [])
        if not one.item.only_if_missing or root.find(one.item.path) in (None, one.found):
            known[:] = list(dict.fromkeys([*known, one.found.digest]))
    for path in paths:
        missing += root.missing_directories(path)
    record.directories = list(dict.fromkeys([*record.directories, *missing]))
    record.layouts[layout.name] = list(dict.fromkeys([*before, *paths]))
    if plan.steps and not dry_run:
        record.save(root)
    _carry_out(plan, dry_run, say)
    record.layouts[layout.name] = paths
    record.forget()
    for one in wanted:
        if one.found.digest in record.ours[one.item.path]:
            record.ours[one.item.path] = [one.found.digest]
    if not dry_run:
        for path in before:
            if not record.users(path):  # a run for that one may have been killed
                root.sweep(path)
        _remove_unused_directories(root, record)
        record.save(root)
    say(layout.afterwards if plan.steps else "nothing to do: all is in its place")


def remove(root: Tree, layout: Layout, dry_run: bool, say: Callable[[str], None]) -> None:
    """Take a layout's files away and bring back what they replaced. Raises as install()."""
    if root.find(RECORD) is None:
        if not dry_run:
            _tidy(root, [], [])  # a run may have been killed there
        say("nothing to do: nothing was installed by this program")
        return
    with contextlib.nullcontext() if dry_run else root.locked(HOME):
        _remove(root, layout, dry_run, say)


def _remove(root: Tree, layout: Layout, dry_run: bool, say: Callable[[str], None]) -> None:
    record = Record.load(root)
    plan = Plan()
    paths = record.layouts.pop(layout.name, None)
    if paths is None:
        say(f"nothing to do: nothing was installed for {layout.title}")
        return
    for path in reversed(paths):
        if record.users(path):
            others = " and ".join(record.users(path))
            plan.remarks.append(f"left: {path}, which is needed for {others}")
        else:
            _plan_removal(plan, root, record, path)
    _carry_out(plan, dry_run, say)
    if not dry_run:
        record.forget()
        for path in paths:
            root.sweep(path)
            root.sweep(kept_name(path))
        # Without its record the directories would no longer be known as ours: these first.
        for folder in reversed(record.directories):
            root.remove_directory(folder)
        if record.layouts:
            record.save(root)
        else:
            _tidy(root, [RECORD], record.directories)
    if layout.after_removal:
        say(layout.after_removal)


def _tidy(root: Tree, files: list[str], directories: list[str]) -> None:
    """Remove the last files, and directories that are empty then."""
    for path in files:
        root.remove(path)
    root.sweep(RECORD)
    for folder in [*_OWN_DIRECTORIES, *reversed(directories)]:
        root.remove_directory(folder)


def _remove_unused_directories(root: Tree, record: Record) -> None:
    """Remove those that an older version made and in which this one has nothing."""
    paths = [path for paths in record.layouts.values() for path in (*paths, RECORD)]
    for folder in reversed(record.directories[:]):
        if not any(path.startswith(f"{folder}/") for path in paths):
            root.remove_directory(folder)
            if root.resolved(f"{folder}/.") is None:
                record.directories.remove(folder)


def _wanted(item: Item, sender: bytes) -> _Wanted:
    if item.is_link:
        return _Wanted(item, b"")
    if item.content is not None:
        return _Wanted(item, item.content)
    return _Wanted(item, sender if item.source == layouts.SENDER else layouts.data(item.source))


def _carry_out(plan: Plan, dry_run: bool, say: Callable[[str], None]) -> None:
    if dry_run and plan.steps:
        say("dry run, nothing is changed; this would be done:")
    said = ""
    for step in plan.steps:
        if step.text != said:
            say(step.text)
        said = step.text
        if not dry_run:
            step.do()
    for remark in plan.remarks:
        say(remark)


def _is_ours(record: Record, path: str, there: Found | None) -> bool:
    return there is not None and there.digest in record.ours.get(path, ())


def _plan_item(plan: Plan, root: Tree, record: Record, one: _Wanted) -> None:
    """The steps that put one file in its place."""
    path, kept = one.item.path, kept_name(one.item.path)
    there = root.find(path)
    if there == one.found or (there is not None and one.item.only_if_missing):
        return
    text = f"put {_shown(path)}"
    if there is not None:
        if _is_ours(record, path, there):
            text = f"replace {_shown(path)}, which is ours"
        else:
            _plan_keeping(plan, root, path, kept, there)
    if one.item.is_link:
        plan.add(f"{text} -> {one.item.source}", lambda: root.symlink(path, one.item.source))
    else:
        plan.add(text, lambda: root.write(path, one.content, one.item.mode))


def _plan_keeping(plan: Plan, root: Tree, path: str, kept: str, there: Found) -> None:
    if not there.content:
        raise InstallError(f"{root.outside(path)} is neither a file nor a link")
    diverted = dpkg.diverted_to(root, path)
    if diverted == kept and root.find(kept) is not None and not root.same(path, kept):
        raise InstallError(
            f"{root.outside(path)} is neither ours nor a package's, which is kept as {kept}: "
            "move it away"
        )
    package = None if diverted else dpkg.owner(root, path)
    plan.add(f"keep what is there as {kept}", lambda: root.keep(path, kept))
    if package:
        plan.add(
            f"divert {path} of the package {package} to {kept}",
            lambda: dpkg.divert(root, path, kept),
        )


def _plan_removal(plan: Plan, root: Tree, record: Record, path: str) -> None:
    """The steps that remove one file of ours and bring back what was there before."""
    kept = kept_name(path)
    there = root.find(path)
    has_kept = root.find(kept) is not None
    diverted = dpkg.diverted_to(root, path) == kept
    if there is None or _is_ours(record, path, there):
        if has_kept:
            plan.add(f"bring back {path} from {kept}", lambda: root.bring_back(kept, path))
        elif there is not None:
            plan.add(f"remove {_shown(path)}", lambda: root.remove(path))
    elif has_kept and diverted and not root.same(path, kept):
        plan.remarks.append(f"left: {path}, which is not ours, and the package's {kept}")
        return
    else:
        plan.remarks.append(f"left: {path}, which is not as this program put it")
        if has_kept:  # the package's update brought a newer one
            plan.add(f"remove the older {kept}", lambda: root.remove(kept))
    if diverted:
        plan.add(f"divert {path} no longer", lambda: dpkg.undivert(root, path))


def _check_feeds(root: Tree, layout: Layout) -> list[str]:
    """Warnings about what the sender is going to be told. Raises InstallError.

    Our own file is refused if it makes no sense; those of others are theirs to keep, as long as
    they let a crash kernel be loaded.
    """
    errors = []
    if any(item.path == NODES for item in layout.items):
        errors += sender_arguments.own_file(root.outside(NODES), _resolve(root, "--read")[0])
    machine = sender_arguments.Machine.this() if root.root == "/" else sender_arguments.Machine()
    found = sender_arguments.others(root, layout.name, machine)
    errors += found.errors
    if errors:
        raise InstallError("; ".join(errors))
    return [f"warning: {one}" for one in found.warnings]


def _resolve(root: Tree, *arguments: str) -> tuple[bytes, list[str]]:
    """The nodes with their addresses, by the script that does it for images too."""
    nodes = root.read(NODES)
    done = subprocess.run(
        ["/bin/sh", layouts.data_path("common/resolve-nodes"), *arguments, "/dev/stdin", NODES],
        input=layouts.data("common/nodes") if nodes is None else nodes,
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode(errors="replace").splitlines()
    said = [line[len("kdumpfence: ") :] for line in said]
    if done.returncode:
        raise InstallError("; ".join(said).replace(NODES, root.outside(NODES)))
    return done.stdout, said
