# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose configuration asks dracut for the module `kdumpfence`.

dracut makes no image at all, not even that of a normal boot, where it is asked for a module that it
does not find. So the module stays as long as somebody asks for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from kdumpfence.install.sysroot import Sysroot

MODULE = "kdumpfence"
KDUMP_CONF = "/etc/kdump.conf"

_FILES = ("/etc/dracut.conf",)
_FOLDERS = ("/etc/dracut.conf.d", "/usr/lib/dracut/dracut.conf.d", "/usr/lib/kdump/dracut.conf.d")
_SETTING = re.compile(r"""\s*(?:force_)?(?:add_)?dracutmodules\+?=(["']?)([^"'#]*)""")


def adds(dracut_args: str) -> bool:
    """Whether these arguments of dracut add the module, as in `--add kdumpfence`."""
    return MODULE in _named(dracut_args, "-a", "--add", "--force-add")


def omits(dracut_args: str) -> bool:
    """Whether they leave it out, as in `--omit kdumpfence`."""
    return MODULE in _named(dracut_args, "-o", "--omit")


def _named(dracut_args: str, *options: str) -> list[str]:
    """The modules that are named with any of these options."""
    try:
        words = shlex.split(dracut_args)
    except ValueError:  # a quotation without an end
        words = re.sub("[\"']", "", dracut_args).split()
    given = ""
    for before, word in zip(["", *words], words):
        option, _, value = word.partition("=")
        if option in options:
            given += f" {value}"
        elif before in options:
            given += f" {word}"
    return given.split()


def asking(root: Sysroot) -> Iterator[str]:
    """Where somebody asks for it: file, line and name."""
    for number, line in enumerate(_lines(root, KDUMP_CONF), 1):
        option, value = (*line.strip().split(None, 1), "", "")[:2]
        if option == "dracut_args" and adds(value.partition("#")[0]):
            yield f"{root.outside(KDUMP_CONF)}: line {number}: dracut_args"
    files = [f"{folder}/{name}" for folder in _FOLDERS for name in root.names(folder)]
    for path in (*_FILES, *(path for path in files if path.endswith(".conf"))):
        for number, line in enumerate(_lines(root, path), 1):
            found = _SETTING.match(line)
            if found and MODULE in found[2].split():
                yield f"{root.outside(path)}: line {number}"


def _lines(root: Sysroot, path: str) -> list[str]:
    return (root.read(path) or b"").decode(errors="replace").split("\n")
