# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every place that gives a crash kernel's sender its arguments, and what is wrong there.

In a crash kernel nobody reads a complaint. So the very words that the sender will get are put
through its own parser beforehand, from wherever they come: our own file, kdump.conf, the files in
/etc/sysconfig. Nothing of them is executed, and nothing is looked up but what kdump-utils looks up
itself when it makes an image. What a file means is taken from those who read it: kdump-utils
(kdump-lib-initramfs.sh, kdumpctl, 99kdumpbase), SUSE's kdump (kdump-save, mkdumprd).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kdumpfence import addresses
from kdumpfence.cmdline import OptionError
from kdumpfence.install import dracut_config, rhel_network, suse_network
from kdumpfence.install.asking import ip
from kdumpfence.install.layouts import HOME, NODE_KEY, NODES
from kdumpfence.install.sysroot import Sysroot
from kdumpfence.sender import options
from kdumpfence.text import shown

KDUMP_CONF = dracut_config.KDUMP_CONF
FENCE_KDUMP = "/etc/sysconfig/fence_kdump"
SUSE = "/etc/sysconfig/kdump"
SUSE_SENDER = "/usr/lib/fence_kdump_send"

#: Variables of SUSE's kdump that are run, and what it does not do before each has ended.
_NO_REBOOT = "does not reboot"
_NO_DUMP = "neither dumps nor reboots"
SUSE_SCRIPTS = {
    "KDUMP_PRESCRIPT": _NO_DUMP,
    "KDUMP_POSTSCRIPT": _NO_REBOOT,
    "KDUMP_TRANSFER": _NO_DUMP,
}
_SUSE_COMMAND_LINES = ("KDUMP_COMMANDLINE", "KDUMP_COMMANDLINE_APPEND")
_SUSE_READ = (*SUSE_SCRIPTS, *_SUSE_COMMAND_LINES, "KDUMP_NETCONFIG", "KDUMP_SAVEDIR")

_KEY_FILE = f"--key-file={NODE_KEY}"

_NO_CRASH_KERNEL = "kdumpctl will not load a crash kernel"

#: Stands for the nodes where only the options are known; a name that no parser changes.
_ANY_NODE = "any-node"

#: What stands for itself in every version of every shell, and where there is none.
_PLAIN = re.compile(r"[A-Za-z0-9.:%_=,@/+\[\]-]+")


class Machine(NamedTuple):
    """What the machine that is worked on calls itself; empty where that is another one."""

    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    trouble: Callable[[str], str] = lambda node: ""  #: on the way to a node, as kdump-utils sees it

    @classmethod
    def this(cls) -> Machine:
        """The one on which this runs, without its loopback and link-local addresses."""
        name = os.uname().nodename
        found = re.findall(r"^\d+: (\S+)\s+inet6? ([^\s/]+)", ip("addr"), re.MULTILINE)
        own = [address for device, address in found if device != "lo"]
        addresses = tuple(one for one in own if not one.startswith("fe80:"))
        return cls((name,), addresses, rhel_network.trouble)


@dataclass
class Findings:
    """What is wrong: with an error nothing is installed, a warning is only told."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, where: str, *texts: str) -> None:
        """Add warnings about that place."""
        self.warnings += [f"{where}: {text}" for text in texts]


def complaints(words: Sequence[str], to_be_continued: bool = False) -> list[str]:
    """What the sender has to complain of, called with these words (and nodes behind them)."""
    try:
        parsed = options.sender_from_argv([*words, _ANY_NODE] if to_be_continued else words)
    except OptionError as error:
        return [*getattr(error, "complaints", ()), str(error)]
    found = list(parsed.complaints)
    if parsed.action != "send":
        found.append(f"--{parsed.action} sends nothing")
    for node in (part for text in parsed.nodes for part in text.split(",") if part):
        why = _why_no_node(node)
        if why and not any(shown(node) in one for one in found):
            found.append(f"node {shown(node)}: {why}")
    return list(dict.fromkeys(found))


def _why_no_node(node: str) -> str:
    """Why this can be no node, by the judge of all programs; "" if it can."""
    if not _PLAIN.fullmatch(node):
        return "neither a host name nor an IP address"
    try:
        addresses.literal(node, addresses.FAMILIES["auto"])
    except addresses.LookUpError as error:
        return str(error)
    return ""


def own_file(name: str, settings: bytes) -> list[str]:
    """What is wrong with our file of nodes, as `resolve-nodes --read` prints it."""
    values = dict(
        line.split("=", 1) for line in settings.decode(errors="replace").splitlines() if line
    )
    words, nodes = (_words(values[key].strip('"')) for key in ("ARGS", "NODES"))
    found = [f"{name}: ARGS: {one}" for one in complaints(words, to_be_continued=True)]
    return found + [f"{name}: NODES: {one}" for one in complaints(nodes, to_be_continued=True)]


def others(root: Sysroot, distribution: str, machine: Machine, signs: bool = False) -> Findings:
    """What is wrong with the files that belong to others, in this root.

    `signs`: whether this node has a key to sign with.
    """
    found = Findings()
    _kdump_utils(root, distribution == "rhel", machine, signs, found)
    _suse(root, distribution == "suse", machine, signs, found)
    return found


def nodes_told(root: Sysroot, distribution: str) -> tuple[str, list[str]]:
    """The file in which this distribution's sender finds its nodes, and the nodes as written."""
    if distribution == "rhel":
        lines = _kdump_conf(KDUMP_CONF, _text(root, KDUMP_CONF)).get("fence_kdump_nodes", [])
        return KDUMP_CONF, [word for line in lines[:1] for word in _words(line.value)]
    return NODES, _listed(root)


def _words(text: str) -> list[str]:
    """As a shell splits what it replaces, unless told otherwise."""
    return [word for word in re.split(r"[ \t\n]+", text) if word]


def _text(root: Sysroot, path: str) -> str:
    return (root.read(path) or b"").decode(errors="surrogateescape")


# ------------------------------------------------------------------ kdump-utils


class _Line(NamedTuple):
    where: str
    value: str
    quoted: bool
    again: bool  #: whether it has come before


def _kdump_utils(
    root: Sysroot, wanted: bool, machine: Machine, signs: bool, found: Findings
) -> None:
    name = root.outside(KDUMP_CONF)
    conf = _kdump_conf(name, _text(root, KDUMP_CONF))
    nodes, args = conf.get("fence_kdump_nodes", []), conf.get("fence_kdump_args", [])
    mistaken = rhel_network.mistaken(_text(root, "/etc/hosts"), machine.addresses)
    if wanted and not any(line.value for line in nodes):
        pcs = any(root.find(path) for path in ("/usr/sbin/pcs", "/usr/bin/pcs"))
        unless = "unless the cluster runs while it is built" if pcs else "since pcs is missing"
        found.warn(
            name,
            f"no fence_kdump_nodes: the image will silently lack the sender {unless}; see "
            "lsinitrd /boot/initramfs-$(uname -r)kdump.img | grep fence_kdump_send",
        )
        if mistaken:
            found.warn(
                root.outside("/etc/hosts"),
                f"kdump-utils takes {', '.join(map(shown, mistaken))} for this machine, whose "
                "address is part of theirs, and leaves them out: write fence_kdump_nodes",
            )
    for line in conf.get("dracut_args", []) if wanted and signs else []:
        if dracut_config.omits(line.value) and _KEY_FILE not in "".join(one.value for one in args):
            found.warn(
                line.where,
                f"without the module {dracut_config.MODULE} messages are not signed: write "
                f"fence_kdump_args {_KEY_FILE}, and --install {NODE_KEY} here",
            )
    for option, (line, *_) in conf.items():
        if option.lower().startswith("fence_kdump") and conf[option] not in (nodes, args):
            found.warn(line.where, f"not an option of kdump.conf: {_NO_CRASH_KERNEL}")
    for line in (*nodes, *args):
        if line.again:
            found.warn(line.where, f"given twice: {_NO_CRASH_KERNEL}")
        if line.quoted:
            found.warn(
                line.where,
                "kdump-utils before November 2025 passes the quotes on to the sender: remove them",
            )
        found.warn(line.where, *complaints(_words(line.value), to_be_continued=line in args))
    for line in nodes:
        for node in _words(line.value):
            why = _kdumpctl_refuses(node, machine)
            if why:
                found.errors.append(f"{line.where}: {why} ({_NO_CRASH_KERNEL})")
                continue
            if node in mistaken:
                found.warn(
                    line.where,
                    f"kdump-utils takes {shown(node)} for this machine, whose address is part of "
                    f"{mistaken[node]}, and sets up no network for it: write {mistaken[node]}",
                )
            elif wanted and _PLAIN.fullmatch(node) and not node.startswith("-"):
                found.warn(line.where, *filter(None, [machine.trouble(node)]))
    _unread(root, FENCE_KDUMP, ("FENCE_KDUMP_OPTS",), found)
    for one in _assignments(_text(root, FENCE_KDUMP)):
        where = f"{root.outside(FENCE_KDUMP)}: line {one.line}: {one.name}"
        if one.name != "FENCE_KDUMP_OPTS":
            if one.name.startswith("FENCE_KDUMP"):
                found.warn(where, "kdump-utils only reads FENCE_KDUMP_OPTS")
        elif nodes:
            found.warn(
                where, f"no effect beside fence_kdump_nodes: write fence_kdump_args in {name}"
            )
        elif not one.literal:
            found.warn(where, "contains $ or a backquote: cannot be checked in advance")
        else:
            found.warn(where, *complaints(_words(one.value), to_be_continued=True))


def _kdump_conf(name: str, text: str) -> dict[str, list[_Line]]:
    """The lines of kdump.conf by their option, as kdump_read_conf takes them apart."""
    found: dict[str, list[_Line]] = {}
    for number, text_of_line in enumerate(text.split("\n"), 1):
        option, value = (*text_of_line.strip().split(None, 1), "", "")[:2]
        if not option or option.startswith("#"):
            continue
        value = value.partition("#")[0].strip()
        quoted = len(value) > 1 and value[0] == value[-1] == '"'
        where = f"{name}: line {number}: {option}"
        line = _Line(where, value[1:-1] if quoted else value, quoted, option in found)
        found.setdefault(option, []).append(line)
    return found


def _kdumpctl_refuses(node: str, machine: Machine) -> str:
    """Why kdumpctl takes this node for the machine itself.

    It looks for the node at the end of each of its own addresses, as grep does: a dot is any
    character.
    """
    if node in machine.names:
        return f"{shown(node)} is this machine"
    ending = re.compile(re.escape(node).replace(r"\.", ".") + "$")
    for own in machine.addresses:
        if own == node:
            return f"{shown(node)} is this machine"
        if ending.search(own):
            return (
                f"kdumpctl takes {shown(node)} for this machine's own address {own}, "
                "which ends in it; use that node's host name"
            )
    return ""


# ------------------------------------------------------------------ /etc/sysconfig


class _Assignment(NamedTuple):
    line: int
    name: str
    value: str
    literal: bool  #: whether the shell replaces nothing in it


#: One word of a shell with its quotations; double ones are caught, since $ counts in them.
_WORD = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'\\])*""", re.DOTALL)
_QUOTED = re.compile(r"""("(?:\\.|[^"\\])*")|'[^']*'|\\.""", re.DOTALL)


def _assignments(text: str) -> Iterator[_Assignment]:
    """The variables that a shell sets which reads this file, each as often as it is set."""
    at, number = 0, 1
    while at < len(text):
        start = re.compile(r"[ \t]*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=").match(text, at)
        end = at
        if start is not None:
            word = _WORD.match(text, start.end())
            assert word is not None  # it may be empty
            end = word.end()
            if text[end : end + 1] not in ("'", '"', "\\"):  # else a quotation without an end
                bare = _QUOTED.sub(lambda part: re.sub(r"\\.", "", part[1] or ""), word[0])
                joined = _QUOTED.sub(_join_lines, word[0])
                value = "".join(shlex.split(joined))
                yield _Assignment(number, start[1], value, not re.search(r"[$`]", bare))
        line_end = text.find("\n", end)
        line_end = len(text) if line_end < 0 else line_end
        number += text.count("\n", at, line_end + 1)
        at = line_end + 1


def _join_lines(part: re.Match[str]) -> str:
    """A quotation without the ends of lines that are escaped in it."""
    return part[0] if part[0][0] == "'" else re.sub(r"(\\[^\n])|\\\n", r"\1", part[0])


def _unread(root: Sysroot, path: str, names: Sequence[str], found: Findings) -> None:
    """Warn of what is meant to set one of these variables, and is not understood here."""
    text = _text(root, path)
    read = {one.line for one in _assignments(text)}
    for number, line in enumerate(text.split("\n"), 1):
        name = re.match(r"[ \t]*(?:export\s+)?([A-Za-z0-9_]+)\s*\+?=", line)
        if name and name[1] in names and number not in read:
            found.warn(
                f"{root.outside(path)}: line {number}: {name[1]}",
                f"not a plain shell assignment: write {name[1]}=VALUE",
            )


_REPLACED = "$ or a backquote is replaced when the image is made: use single quotes"

#: What starts the sender so that nobody waits for it, or not for long.
_ALONE = re.compile(r"(?:^|\s)(?:\S*/)?setsid\s+(?:-c?fc?|--fork)\s+\S*$")
_FOR_A_WHILE = re.compile(r"(?:^|\s)(?:\S*/)?timeout\s+(?:-\S+\s+)*[1-9]\S*\s+\S*$")


def _suse(root: Sysroot, wanted: bool, machine: Machine, signs: bool, found: Findings) -> None:
    _unread(root, SUSE, _SUSE_READ, found)
    last = {one.name: one for one in _assignments(_text(root, SUSE))}
    scripts = [
        last[name]
        for name in SUSE_SCRIPTS
        if name in last and "fence_kdump_send" in last[name].value
    ]
    names = [one.name for one in scripts]
    values = {name: one.value for name, one in last.items()}
    taken = SUSE_SENDER in values.get("KDUMP_POSTSCRIPT", "")  # kdump looks there, and only there
    programs = _words(values.get("KDUMP_REQUIRED_PROGRAMS", "")) + [SUSE_SENDER] * taken
    listed = _listed(root) if wanted else []
    if scripts or (wanted and root.find(SUSE)):
        nodes = listed + [word for one in scripts for word in _words(one.value)]
        _suse_network(root.outside(SUSE), last, taken, nodes if machine.names else None, found)
    end = last.get("KDUMP_POSTSCRIPT")
    if end is not None and f"{HOME}/tell-end" in end.value and not end.literal:
        found.warn(f"{root.outside(SUSE)}: line {end.line}: {end.name}", _REPLACED)
    for one in scripts:
        where = f"{root.outside(SUSE)}: line {one.line}: {one.name}"
        found.warn(where, *_suse_script(one, machine))
        if wanted and signs and "--key-file" not in one.value:
            found.warn(where, f"its messages are not signed: add {_KEY_FILE}")
        sender = re.search(r"[^\s\"']*fence_kdump_send", one.value)
        if sender and sender[0] not in programs:
            found.warn(
                where, f"the image has no {sender[0]} unless KDUMP_REQUIRED_PROGRAMS names it"
            )
        if values.get("KDUMP_TRANSFER") and one.name != "KDUMP_TRANSFER":
            found.warn(where, "ignored because KDUMP_TRANSFER is set")
        elif one.name == "KDUMP_POSTSCRIPT" and "KDUMP_PRESCRIPT" not in names and not listed:
            found.warn(
                where,
                "the cluster hears nothing until the dump is saved, and cuts the power before that "
                f"if it takes longer than the agents' timeout: list the nodes in {NODES}",
            )


def _listed(root: Sysroot) -> list[str]:
    """The nodes in our own file, of which others have said whether it makes sense."""
    lines = re.findall(r"""^\s*NODES=["']?([^"'\n]*)""", _text(root, NODES), re.MULTILINE)
    return re.split(r"[ \t,]+", lines[-1].strip()) if lines and lines[-1].strip() else []


def _suse_network(
    name: str, last: dict[str, _Assignment], taken: bool, nodes: list[str] | None, found: Findings
) -> None:
    """Why the image has no network, or none that leads to a node of this machine's list."""

    def where(variable: str) -> str:
        line = f"line {last[variable].line}: " if variable in last else ""
        return f"{name}: {line}{variable}"

    values = {variable: one.value for variable, one in last.items()}
    netconfig = values.get("KDUMP_NETCONFIG") or "auto"
    is_local = re.match("$|/|file:", values.get("KDUMP_SAVEDIR", ""))
    if is_local and not taken and not netconfig.endswith(":force"):
        found.warn(where("KDUMP_NETCONFIG"), "the image has no network: write 'auto:force'")
        return
    words = {variable: _words(values.get(variable, "")) for variable in _SUSE_COMMAND_LINES}
    for variable, given in words.items():
        if any(word.startswith("ip=") for word in given):
            if not any(word.startswith("rd.neednet") for given in words.values() for word in given):
                found.warn(
                    where(variable),
                    "with ip= kdump configures no network, and nobody does without rd.neednet=1",
                )
            return
    if nodes is None:
        return
    found.warn(where("KDUMP_NETCONFIG"), *filter(None, [suse_network.trouble(netconfig, nodes)]))


def _suse_script(script: _Assignment, machine: Machine) -> list[str]:
    """What is wrong with a command of SUSE's kdump that starts the sender.

    kdump 1.9 to 2.1.0 runs its words as they are, without a shell; older and newer versions have
    one. Only what means the same to all of them is taken for good.
    """
    found = []
    if not script.literal:
        found.append(_REPLACED)
    foreign = [word for word in _words(script.value) if not _PLAIN.fullmatch(word)]
    if foreign:
        found.append(
            f"{shown(foreign[0])}: kdump 1.9 to 2.1.0 uses no shell and passes it on "
            "as a word: remove it"
        )
    before, _, behind = script.value.partition("fence_kdump_send")
    # Of a command for a shell: up to what ends it, without what goes elsewhere.
    behind = re.sub(r"[0-9]*(&>|[<>]+&?)\s*\S*", " ", behind)
    words = [word.strip("\"'") for word in _words(re.split(r"[;&|()\n]", behind)[0])]
    waits = SUSE_SCRIPTS[script.name]
    right = f"setsid -f {SUSE_SENDER} NODE..."
    if waits == _NO_REBOOT:
        right = f"timeout 20 {SUSE_SENDER} -c 5 -i 2 NODE..."
    if _ALONE.search(before):
        if waits == _NO_REBOOT:
            found.append(
                f"kdump reboots at once, before the first message has left perhaps: write {right}"
            )
    elif not (waits == _NO_REBOOT and _FOR_A_WHILE.search(before)):
        found.append(f"kdump waits for this sender {_how_long(words)}, and {waits}: write {right}")
    found += complaints(words)
    for node in words:
        if node in machine.names or node in machine.addresses:
            found.append(f"node {shown(node)} is this machine")
    return found


def _how_long(words: list[str]) -> str:
    """How long a sender runs that is called with these words."""
    try:
        parsed = options.sender_from_argv([*words, _ANY_NODE])
    except OptionError:
        return "for ever"
    if not parsed.count:
        return "for ever"
    return f"for {(parsed.count - 1) * parsed.interval} seconds or more"
