# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether what the crash kernel boots has the sender, and what starts it and tells it its nodes.

That is an image, or for kdump-tools the machine's own root.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from kdumpfence.cmdline import OptionError
from kdumpfence.doctor import elf, kdump
from kdumpfence.doctor.archive import Archive
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.installed import RHEL_SENDER
from kdumpfence.doctor.kdump import Kdump, NoImage, Root
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.settings import variables
from kdumpfence.install import InstallError, dracut_config, installer, node_name
from kdumpfence.install.layouts import HOME, NODES, RESOLVED
from kdumpfence.install.sender_arguments import (
    KDUMP_CONF,
    SUSE_SENDER,
    complaints,
)
from kdumpfence.sender import options
from kdumpfence.text import shown

SENDER = f"{HOME}/fence_kdump_send"
#: Senders that a distribution's kdump starts by itself.
_OTHERS = {"rhel": RHEL_SENDER, "suse": SUSE_SENDER}


class Boots(NamedTuple):
    """What the crash kernel boots."""

    kdump: Kdump
    contents: Root | Archive

    @property
    def sender(self) -> str:
        """The path of its sender: ours, or the one that kdump starts; "" if it has neither."""
        for path in (SENDER, _OTHERS.get(self.kdump.layout, "")):
            if path and self.contents.mode(path) is not None:
                return path
        return ""

    @property
    def what(self) -> str:
        """What it is called."""
        return "the image" if isinstance(self.contents, Archive) else "the root file system"

    def text(self, path: str) -> str:
        """The text of a file in it; "" if there is none."""
        return (self.contents.read(path) or b"").decode(errors="replace")

    def words(self) -> list[str]:
        """What the sender will be called with."""
        if not self.sender:
            return []
        if self.sender == SENDER:
            settings = variables(self.text(RESOLVED))
            if self.kdump.layout == "debian":  # the unit reads both
                settings.update(variables(self.text(NODES)))
            names = ("THIS_NODE", "ARGS", "ADDRESSES", "NODES")
            return " ".join(settings.get(name, "") for name in names).split()
        if self.kdump.layout == "rhel":
            return [
                word
                for option in ("fence_kdump_args", "fence_kdump_nodes")
                for word in kdump_conf(self.text(KDUMP_CONF), option)
            ]
        return []  # a command of the administrator's


def boots(machine: Machine) -> Boots | None:
    """What the crash kernel boots; None if that is not known, which `image_found` has said."""
    try:
        used = kdump.of(machine)
        return Boots(used, kdump.contents(machine, used))
    except (Unknown, NoImage):
        return None


def kdump_conf(text: str, option: str) -> list[str]:
    """The words of an option of kdump.conf."""
    found = re.findall(rf"^[ \t]*{option}[ \t]+([^#\n]*)", text, re.MULTILINE)
    return found[-1].replace('"', "").split() if found else []


def image_found(machine: Machine) -> Iterator[Finding]:
    """There is something to boot, and it can be read."""
    used = kdump.of(machine)
    try:
        contents = kdump.contents(machine, used)
    except NoImage as error:
        yield fails("image found", str(error), used.rebuild)
        return
    if isinstance(contents, Archive):
        yield ok("image found", machine.root.outside(kdump.image_path(machine, used)))


def sender_inside(machine: Machine) -> Iterator[Finding]:
    """The sender is there, and could run."""
    known = boots(machine)
    if known is None:
        return
    check, used, contents, path = "sender inside", known.kdump, known.contents, known.sender
    if not path:
        why = ""
        lines = re.findall(r"^[ \t]*dracut_args[ \t]+([^#\n]*)",
                           machine.read(KDUMP_CONF) or "", re.MULTILINE)  # fmt: skip
        if used.layout == "rhel" and any(map(dracut_config.omits, lines)):
            why = ", since dracut_args in /etc/kdump.conf omits it"
        yield fails(check, f"no {SENDER} in {known.what}{why}", installing(used))
        return
    mode = contents.mode(path) or 0
    if not (stat.S_ISREG(mode) and mode & 0o111):
        yield fails(check, f"{path} is not executable in {known.what}", installing(used))
        return
    content = contents.read(path)
    if content is None:
        raise Unknown(f"{path} is too large to be a sender")
    try:
        needs = elf.needs(content)
    except elf.NotElf as error:
        if not content.startswith(b"#!"):
            yield fails(check, f"{path} is {error}", installing(used))
            return
        needs = elf.Needs("", ())  # kdump-utils' sender, with ours in its place
    missing = [needs.interpreter] if needs.interpreter else []
    missing = [one for one in missing if contents.mode(one) is None]
    missing += [one for one in needs.libraries if not contents.has_library(one)]
    if missing:
        yield fails(
            check,
            f"{path} cannot run: {known.what} lacks {', '.join(missing)}",
            installing(used).replace("install-sender", "install-sender --static"),
        )
        return
    yield ok(check, f"{path}, {'with its libraries' if needs.interpreter else 'static'}")


def nodes_inside(machine: Machine) -> Iterator[Finding]:
    """It will be told whom to tell, in words that it understands."""
    known = boots(machine)
    if known is None or not known.sender:
        return
    if known.sender == SUSE_SENDER:
        return  # what its command says is checked with the settings
    check, used, words = "nodes inside", known.kdump, known.words()
    listed = KDUMP_CONF if used.layout == "rhel" else NODES
    listed_at = f"{listed}, then {used.rebuild}"
    try:
        parsed = options.sender_from_argv(words)
    except OptionError:
        yield fails(check, f"no nodes in {known.what}: nobody is told", f"list them in {listed_at}")
        return
    wrong = complaints(words)
    for text in wrong:
        told = not text.startswith("node ") and "sends nothing" not in text
        yield (warning if told else fails)(check, text, f"correct it in {listed_at}")
    if parsed.count:
        text = f"-c {parsed.count}: the sender ends while the dump may go on"
        yield warning(check, text, f"take -c out of {listed_at}")
    missing = _missing(machine, used, parsed.nodes)
    if missing:
        text = f"{known.what} does not name {', '.join(map(shown, missing))} of {listed}"
        yield fails(check, text, used.rebuild)
    if not wrong and not missing:
        yield ok(check, ", ".join(parsed.nodes))


def _missing(machine: Machine, used: Kdump, inside: tuple[str, ...]) -> list[str]:
    """The nodes that are to be told by now, and will not be."""
    name = node_name.of(machine.root)
    own = {name, name.partition(".")[0]}
    if used.layout == "rhel":
        listed = kdump_conf(machine.read(KDUMP_CONF) or "", "fence_kdump_nodes")
    elif used.layout == "debian" or machine.read(NODES) is None:
        return []  # the unit reads the list itself; install-sender says if its addresses are old
    else:
        try:
            content = installer.resolve(machine.root, *([] if machine.runs else ["--read"]))[0]
        except InstallError:
            return []  # which install-sender has said
        settings = variables(content.decode(errors="replace"))
        listed = f"{settings.get('ADDRESSES', '')} {settings.get('NODES', '')}".split()
    if not machine.runs:  # which addresses are that one's own is not known
        listed = [node for node in listed if ":" not in node and re.search("[A-Za-z]", node)]
    return [node for node in listed if node not in own and node not in inside]


def installing(used: Kdump) -> str:
    """What puts the sender there, and makes the crash kernel have it."""
    return "kdumpfence install-sender" + (
        "" if used.layout == "debian" else f", then {used.rebuild}"
    )


CHECKS = (image_found, sender_inside, nodes_inside)
