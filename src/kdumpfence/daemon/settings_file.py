# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced's settings file: TOML -> checked Settings.

A file is taken whole or not at all, and all that is wrong with it is told at once, a line for
each fault: the file, the line if it can be found, the key, what was given and what is allowed.
What may not be in this file: which keys there are.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from types import ModuleType
from typing import Any

from kdumpfence.addresses import FAMILIES, LookUpError, cleaned, literal, split
from kdumpfence.daemon.settings import (
    DEFAULT_PATH,
    KEYS,
    MOST_NODES,
    NODES,
    TABLES,
    Settings,
    key_name,
)
from kdumpfence.daemon.values import shown
from kdumpfence.listener.nodes import NAME_RULE, address_in
from kdumpfence.listener.sockets import parsed_host
from kdumpfence.text import one_line
from kdumpfence.wire import is_packet_name

#: Bytes of a settings file: ten times of what was ever tried.
MOST_FILE = 1 << 27

#: Bytes of a node's name in a settings file. PostgreSQL has indexes for 2,700 at most, and a name
#: that it refused would keep all that comes after it from the database.
MOST_NAME = 1024


class SettingsError(Exception):
    """What is wrong with a settings file: `faults` has one line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def load(path: str) -> Settings:
    """Read and check a settings file. Raises SettingsError with everything that is wrong."""
    try:
        data = _read(path)
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror}"]) from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError([f"{path}:{line}: not UTF-8"]) from None
    return parse(text, path)


def _read(path: str) -> bytes:
    """The content of a regular file; nothing else is waited for."""
    # Looked at first: a device may do something when it is opened.
    _check_file(path, os.stat(path))
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        _check_file(path, os.fstat(fd))
        pieces, left = [], MOST_FILE + 1
        while left and (piece := file.read(min(left, 1 << 20))):
            pieces.append(piece)
            left -= len(piece)
    if not left:
        raise SettingsError([f"{path}: more than {MOST_FILE} bytes"])
    return b"".join(pieces)


def _check_file(path: str, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        kinds = {
            stat.S_IFDIR: "a directory",
            stat.S_IFIFO: "a FIFO",
            stat.S_IFSOCK: "a socket",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
        }
        kind = kinds.get(stat.S_IFMT(about.st_mode), "no file")
        raise SettingsError([f"{path}: {kind}; a regular file is needed"])
    if about.st_size > MOST_FILE:
        raise SettingsError([f"{path}: more than {MOST_FILE} bytes"])


def parse(text: str, path: str = DEFAULT_PATH) -> Settings:
    """Check the text of a settings file. Raises SettingsError with everything that is wrong."""
    toml = _toml()
    try:
        tables = toml.loads(text.replace("\r\n", "\n"))
    except (toml.TOMLDecodeError, ValueError, RecursionError) as error:
        raise SettingsError([_syntax(path, error)]) from None
    faults = _Faults(path, text)
    values = _values(tables, faults)
    signed = values.get("auth", "none") != "none"
    values["nodes"] = _nodes(tables.get(NODES, {}), values.get("family", "auto"), signed, faults)
    if not values["nodes"] and not values.get("networks") and not faults.found:
        faults.add("", "", "no nodes configured: set [nodes] or networks")
    family = values.get("family", "auto")
    for key in ("networks", "address"):
        for one in values.get(key, ()):
            if family not in ("auto", "ipv6" if ":" in one else "ipv4"):
                faults.add("", key, f"{shown(one)}: not of family {family!r}")
    for one in values.get("address", ()):
        try:
            parsed_host(one, FAMILIES["auto"])
        except ValueError as error:
            faults.add("", "address", str(error).partition(": ")[2] or str(error))
    if faults.found:
        raise SettingsError(faults.lines())
    return Settings(path=path, **values)


def _toml() -> ModuleType:
    for name in ("tomllib", "tomli"):
        try:
            return __import__(name)
        except ImportError:
            continue
    raise SettingsError(["cannot read TOML: install tomli, or use Python 3.11 or newer"])


def _syntax(path: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{path}: nested too deeply"
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
    if match is None:
        return one_line(f"{path}: not valid TOML: {error}")
    return one_line(f"{path}:{match[2]}: not valid TOML: {match[1]}, in column {match[3]}")


class _Faults:
    """What was found wrong so far, and where it stands."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text
        self._places: dict[tuple[str, str], int] | None = None
        self.found: list[tuple[int, str]] = []

    def add(self, table: str, key: str, what: str) -> None:
        """A fault of this key; without a table and a key it is the file's."""
        if self._places is None:
            self._places = _places(self._text)
        line = self._places.get((table, key), 0)
        where = f"{self._path}:{line}" if line else self._path
        name = f"{key_name(table, key)} " if table or key else ""
        self.found.append((line, one_line(f"{where}: {name}{what}")))

    def lines(self) -> list[str]:
        """In the order of the file; what has no line comes first."""
        return [text for _, text in sorted(self.found, key=lambda fault: fault[0])]


def _places(text: str) -> dict[tuple[str, str], int]:
    """(table, key) -> its line, where it stands alone at the beginning of one.

    This is no parser: a key that was written otherwise, or seems to stand twice, is left out,
    and the message has no line number then.
    """
    found: dict[tuple[str, str], int] = {}
    twice = set()
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r'\s*\[\s*"?([^\[\]"]*?)"?\s*\]\s*(#.*)?$', line)
        entry = re.match(r"""\s*(?:"([^"\\]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*=""", line)
        if header is not None:
            table = header[1]
            place = (table, "")
        elif entry is not None:
            place = (table, entry[1] or entry[2] or entry[3] or "")
        else:
            continue
        if place in found:
            twice.add(place)
        found[place] = number
    return {place: line for place, line in found.items() if place not in twice}


def _values(tables: dict[str, Any], faults: _Faults) -> dict[str, Any]:
    """Attribute -> value, for every key that is given and right."""
    values = {}
    known = {(key.table, key.name): key for key in KEYS}
    given: list[tuple[str, str, object]] = []
    for name, value in tables.items():
        if name in TABLES:
            if not isinstance(value, dict):
                faults.add("", name, f"must be a table: write [{name}] on a line of its own")
            elif name != NODES:
                given += [(name, key, one) for key, one in value.items()]
        else:
            given.append(("", name, value))
    for table, name, value in given:
        key = known.get((table, name))
        if key is None:
            faults.add(table, name, f"is unknown{_meant(table, name)}")
            continue
        try:
            values[key.attribute] = key.check(value)
        except ValueError as error:
            given_as = "..." if key.secret else shown(value)
            faults.add(table, name, f"= {given_as}: {error}")
    return values


def _meant(table: str, name: str) -> str:
    """What somebody who wrote an unknown key may have had in mind."""
    elsewhere = [key.table for key in KEYS if key.name == name and key.table != table]
    if elsewhere:
        places = [f"in [{place}]" if place else "before the first [table]" for place in elsewhere]
        return f" here; it belongs {' or '.join(places)}"
    candidates = [key.name for key in KEYS if key.table == table]
    if not table:
        candidates += sorted(TABLES)
    close = difflib.get_close_matches(name, candidates, 1, 0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known keys: {', '.join(candidates)}"


# ------------------------------------------------------------------ nodes


def _nodes(given: object, family: str, signed: bool, faults: _Faults) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, dict):
        return {}  # complained of already
    if len(given) > MOST_NODES:
        faults.add(NODES, "", f"has {len(given)} nodes: more than {MOST_NODES}")
        return {}
    nodes: dict[str, tuple[str, ...]] = {}
    owners: dict[str, str] = {}
    top = {key.name for key in KEYS if not key.table}
    for name, value in given.items():
        names = _names(value)
        if name in top and names is None:
            faults.add(
                NODES, name, f"= {shown(value)}: not a node; move it before the first [table]"
            )
            continue
        if names is None:
            faults.add(
                NODES,
                name,
                f'= {shown(value)}: not a list of addresses and names, as in ["192.0.2.1"]',
            )
            continue
        parts = [part for one in names for part in split(one) or [one]]
        for what in _node(name, parts, family, {} if signed else owners):
            faults.add(NODES, name, what)
        if signed and not is_packet_name(name):
            faults.add(NODES, name, f"cannot be signed with: {NAME_RULE}")
        nodes[name] = tuple(parts)
    return nodes


def _names(value: object) -> list[str] | None:
    """A list of strings, or one alone; None if it is anything else."""
    values = value if isinstance(value, list) else [value]
    strings = [one for one in values if isinstance(one, str)]
    return strings if len(strings) == len(values) else None


def _node(name: str, names: list[str], family: str, owners: dict[str, str]) -> list[str]:
    """What is wrong with a node. `owners` has the addresses of those before it."""
    if not name or not name.isprintable() or len(name.encode()) > MOST_NAME:
        return [f"is not a node name: printable characters, 1 to {MOST_NAME} bytes of them"]
    trouble = []
    for one in names or [name]:
        what = _address_of(one, name, family, owners)
        if what:
            trouble.append(f"{shown(one)}: {what}")
    if names and name not in names and not trouble:
        own = address_in(name)
        if own is not None and own not in map(address_in, names):
            trouble.append("has an address for a name, but not as one of its addresses")
    return trouble


def _address_of(text: str, node: str, family: str, owners: dict[str, str]) -> str:
    """What is wrong with an address or host name of a node; "" if nothing is."""
    try:
        addresses = literal(cleaned(text), FAMILIES[family])
    except LookUpError as error:
        return str(error)
    if addresses is None:
        _, percent, interface = text.partition("%")
        return f"this machine has no interface {shown(interface)}" if percent else ""
    for address in addresses:
        owner = owners.setdefault(str(address), node)
        if owner != node:
            return f"already belongs to node {shown(owner)}"
    return ""
