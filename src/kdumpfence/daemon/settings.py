# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfenced's settings: one TOML file -> one checked object.

Every key stands in `KEYS`, once, with its default and what it may be. A file is taken whole or
not at all, and all that is wrong with it is told at once, a line for each fault: the file, the
line if it can be found, the key, what was given and what is allowed. What may not be in this
file: what is done with a setting.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple, Union

from kdumpfence.addresses import FAMILIES, LookUpError, cleaned, is_address, literal, split
from kdumpfence.listener.nodes import address_in, is_nobodys
from kdumpfence.text import one_line
from kdumpfence.wire import PORT

DEFAULT_PATH = "/etc/kdumpfence/kdumpfenced.toml"

#: Bytes of a settings file, and nodes in it: ten times of what was ever tried.
MOST_FILE = 1 << 27
MOST_NODES = 1 << 20

#: Characters of a node's name in a settings file.
MOST_NAME = 1024

LEVELS = ("debug", "info", "warning", "error")

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class SettingsError(Exception):
    """What is wrong with a settings file: `faults` has one line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Settings:
    """What kdumpfenced was told to do; `KEYS` says what each may be."""

    path: str = DEFAULT_PATH
    #: Name -> addresses and host names; empty: the name itself is looked up.
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    port: int = PORT
    family: str = "auto"
    #: Seconds.
    silence: float = 30.0
    repeat: float = 10.0
    #: Nodes that networks may admit.
    room: int = 131072
    #: Bytes of the kernel's queue for a socket.
    queue: int = 1 << 26
    history_path: str = "/var/lib/kdumpfenced/history.sqlite"
    history_days: float = 400.0
    #: Dumps.
    history_most: int = 1_000_000
    history_mode: int = 0o600
    control_path: str = "/run/kdumpfenced/control"
    control_mode: int = 0o666
    metrics_address: str = "127.0.0.1"
    #: 0: no metrics.
    metrics_port: int = 0
    #: Nodes that have a time series of their own while they are dumping.
    metrics_nodes: int = 1000
    log_level: str = "info"
    #: Lines in a second.
    log_lines: int = 1000

    def meaning(self) -> list[str]:
        """What these settings mean, in lines for people."""
        names = sum(_is_looked_up(name) for name in self._all_names())
        literals = sum(1 for _ in self._all_names()) - names
        families = {"auto": "IPv4 and IPv6", "ipv4": "IPv4", "ipv6": "IPv6"}[self.family]
        lines = [
            f"hears UDP port {self.port} over {families}, with a queue of {self.queue:,} bytes",
            f"nodes: {len(self.nodes):,}, with {many(literals, 'address', 'addresses')} "
            f"and {many(names, 'name', 'names')} to be looked up",
            f"networks: {', '.join(self.networks)}; of their nodes {self.room:,} are told apart"
            if self.networks
            else "networks: none, so only the nodes above are heard",
            f"a dump is over after {self.silence:g} s without a message; "
            f"one under way is told of every {self.repeat:g} s at most",
            f"history: {self.history_path}, for {self.history_days:g} days and at most "
            f"{self.history_most:,} dumps, mode {self.history_mode:04o}",
            f"control socket: {self.control_path}, mode {self.control_mode:04o}",
            f"metrics: http://{_url_host(self.metrics_address)}:{self.metrics_port}/metrics, with "
            f"at most {self.metrics_nodes:,} nodes by name"
            if self.metrics_port
            else "metrics: off",
            f"log: from {self.log_level} on, at most {self.log_lines:,} lines a second",
        ]
        if self.silence < 21:
            lines.append(
                f"note: silence = {self.silence:g}: senders repeat every ten seconds, so one or "
                "two lost messages look like the end of a dump and the beginning of another"
            )
        if "0.0.0.0/0" in self.networks or "::/0" in self.networks:
            lines.append(
                "note: whoever can send to the port can make up dumps, for messages carry no "
                "secret; the nodes' own networks are safer than all of them"
            )
        return lines

    def _all_names(self) -> Iterator[str]:
        for name, addresses in self.nodes.items():
            yield from addresses or (cleaned(name),)


def many(count: int, one: str, more: str) -> str:
    """A number with the word that goes with it."""
    return f"{count:,} {one if count == 1 else more}"


def _url_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _is_looked_up(name: str) -> bool:
    try:
        return literal(name, FAMILIES["auto"]) is None
    except LookUpError:
        return False


# ------------------------------------------------------------------ what a value may be

#: What a value is allowed to be is the text of the ValueError.
Check = Callable[[Any], Any]


def _whole(least: int, most: int) -> Check:
    def check(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise ValueError(f"not a whole number from {least} to {most}")

    return check


def _number(least: float, most: float, unit: str) -> Check:
    def check(value: object) -> float:
        # Infinity and NaN, which TOML has, are in no range.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and least <= value <= most:  # type: ignore[operator]
            return float(value)  # type: ignore[arg-type]
        raise ValueError(f"not a number of {unit} from {least:g} to {most:g}")

    return check


def _choice(allowed: tuple[str, ...]) -> Check:
    def check(value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise ValueError(f"not one of {', '.join(allowed)}")

    return check


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _size(value: object) -> int:
    size: object = value
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,12})([KMG]?)", value)
        size = int(match[1]) * _UNITS[match[2]] if match else None
    if isinstance(size, int) and not isinstance(size, bool) and 4096 <= size < 1 << 30:
        return size
    raise ValueError('not a size from 4096 bytes to below 1G, as in 67108864 or "64M"')


def _path(value: object) -> str:
    if isinstance(value, str) and value.startswith("/") and value.isprintable():
        return value
    raise ValueError("not an absolute path")


def _socket_path(value: object) -> str:
    path = _path(value)
    if len(os.fsencode(path)) > 107:
        raise ValueError("too long for a socket, whose path has 107 bytes at most")
    return path


def _mode(value: object) -> int:
    mode: object = value
    if isinstance(value, str):
        mode = int(value, 8) if re.fullmatch(r"(0o?)?[0-7]{3}", value) else None
    if isinstance(mode, int) and not isinstance(mode, bool) and mode & ~0o666 == 0 and mode > 0:
        return mode
    raise ValueError('not a mode for a socket, as in "0660": 0600 and what groups and others may')


def _file_mode(value: object) -> int:
    # What others may read, they may lock.
    modes = {"0600": 0o600, "0640": 0o640}
    mode = modes.get(value.replace("o", "")) if isinstance(value, str) else value
    if mode in modes.values() and not isinstance(mode, bool):
        return int(mode)  # type: ignore[call-overload, no-any-return]
    raise ValueError('not "0600", or "0640" for a group that may read it')


def _address(value: object) -> str:
    if isinstance(value, str) and is_address(cleaned(value)):
        return str(ipaddress.ip_address(cleaned(value)))
    raise ValueError("not an IP address of this machine, as in 127.0.0.1 or ::")


def _networks(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError('not a list of networks, as in ["192.0.2.0/24", "2001:db8::/64"]')
    found: dict[Network, None] = {}
    for one in value:
        if not isinstance(one, str):
            raise ValueError(f"{_shown(one)} in it is no network, as in 192.0.2.0/24")
        if "%" in one:
            raise ValueError(f"{_shown(one)} in it: networks have no interface, as in fe80::/64")
        try:
            network = ipaddress.ip_network(one, strict=False)
        except ValueError:
            raise ValueError(f"{_shown(one)} in it is no network, as in 192.0.2.0/24") from None
        mapped = getattr(network.network_address, "ipv4_mapped", None)
        if mapped is not None and network.prefixlen >= 96:
            raise ValueError(
                f"{_shown(one)} in it is IPv4: write {mapped}/{network.prefixlen - 96}"
            )
        if "/" in one and str(network) != _normal(one):
            raise ValueError(f"{_shown(one)} in it has bits behind its prefix; is {network} meant?")
        if is_nobodys(network):
            raise ValueError(f"{_shown(one)} in it: no node can have an address in it")
        found[network] = None
    return tuple(str(network) for network in found)


def _normal(text: str) -> str:
    """A network as ipaddress writes it, with its bits behind the prefix."""
    interface = ipaddress.ip_interface(text)
    return f"{interface.ip}/{interface.network.prefixlen}"


class Key(NamedTuple):
    """One key of the file."""

    #: "" is the top of the file.
    table: str
    name: str
    #: Of Settings.
    attribute: str
    check: Check
    #: Whether a change of it needs a restart.
    restart: bool


KEYS = (
    Key("", "networks", "networks", _networks, True),
    Key("", "port", "port", _whole(1, 65535), True),
    Key("", "family", "family", _choice(tuple(FAMILIES)), True),
    Key("", "silence", "silence", _number(1, 86400, "seconds"), True),
    Key("", "repeat", "repeat", _number(1, 86400, "seconds"), True),
    Key("", "room", "room", _whole(1, MOST_NODES), True),
    Key("", "queue", "queue", _size, True),
    Key("history", "path", "history_path", _path, True),
    Key("history", "days", "history_days", _number(1, 36500, "days"), False),
    Key("history", "most", "history_most", _whole(1, 100_000_000), False),
    Key("history", "mode", "history_mode", _file_mode, True),
    Key("control", "path", "control_path", _socket_path, True),
    Key("control", "mode", "control_mode", _mode, True),
    Key("metrics", "address", "metrics_address", _address, True),
    Key("metrics", "port", "metrics_port", _whole(1, 65535), True),
    Key("metrics", "nodes", "metrics_nodes", _whole(0, 100_000), False),
    Key("log", "level", "log_level", _choice(LEVELS), False),
    Key("log", "lines", "log_lines", _whole(1, 1_000_000), False),
)

NODES = "nodes"
_TABLES = {key.table for key in KEYS} - {""} | {NODES}


def changes(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """The keys that differ, in words: those that count at once, and those that need a restart."""
    now: list[str] = []
    later: list[str] = []
    for key in KEYS:
        before, after = getattr(old, key.attribute), getattr(new, key.attribute)
        if before != after:
            (later if key.restart else now).append(_name(key.table, key.name))
    return now, later


def _name(table: str, key: str) -> str:
    return f"[{table}] {key}" if table else key


# ------------------------------------------------------------------ reading


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
    values["nodes"] = _nodes(tables.get(NODES, {}), values.get("family", "auto"), faults)
    if not values["nodes"] and not values.get("networks") and not faults.found:
        faults.add("", "", 'names nobody to listen to: give [nodes], or networks = ["..."]')
    family = values.get("family", "auto")
    for network in values.get("networks", ()):
        if family not in ("auto", "ipv6" if ":" in network else "ipv4"):
            faults.add("", "networks", f"{_shown(network)}: not of family {family!r}")
    if faults.found:
        raise SettingsError(faults.lines())
    return Settings(path=path, **values)


def _toml() -> ModuleType:
    for name in ("tomllib", "tomli"):
        try:
            return __import__(name)
        except ImportError:
            continue
    raise SettingsError(["this Python reads no TOML: install tomli, or use Python 3.11 or newer"])


def _syntax(path: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{path}: nested too deeply"
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
    if match is None:
        return one_line(f"{path}: no TOML: {error}")
    return one_line(f"{path}:{match[2]}: no TOML: {match[1]}, in column {match[3]}")


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
        name = f"{_name(table, key)} " if table or key else ""
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
        if name in _TABLES:
            if not isinstance(value, dict):
                faults.add("", name, f"is no table: write [{name}] on a line of its own")
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
            faults.add(table, name, f"= {_shown(value)}: {error}")
    return values


def _meant(table: str, name: str) -> str:
    """What somebody who wrote an unknown key may have had in mind."""
    elsewhere = [key.table for key in KEYS if key.name == name and key.table != table]
    if elsewhere:
        places = [f"in [{place}]" if place else "before the first [table]" for place in elsewhere]
        return f" here: it belongs {' or '.join(places)}"
    candidates = [key.name for key in KEYS if key.table == table]
    if not table:
        candidates += sorted(_TABLES)
    close = difflib.get_close_matches(name, candidates, 1, 0.6)
    if close:
        return f": is {close[0]} meant?"
    return f"; known are {', '.join(candidates)}"


def _shown(value: object) -> str:
    """What was given, short, as one writes it in TOML."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, list):
        text = "[" + ", ".join(_shown(one) for one in value[:4]) + (", ..." * (len(value) > 4))
        text += "]"
    else:
        text = str(value) if not isinstance(value, int) or abs(value) < 1 << 80 else "a huge number"
    text = one_line(text)
    return text if len(text) <= 80 else text[:77] + "..."


# ------------------------------------------------------------------ nodes


def _nodes(given: object, family: str, faults: _Faults) -> dict[str, tuple[str, ...]]:
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
                NODES, name, f"= {_shown(value)}: no node; it belongs before the first [table]"
            )
            continue
        if names is None:
            faults.add(
                NODES,
                name,
                f'= {_shown(value)}: not a list of addresses and names, as in ["192.0.2.1"]',
            )
            continue
        parts = [part for one in names for part in split(one) or [one]]
        for what in _node(name, parts, family, owners):
            faults.add(NODES, name, what)
        nodes[name] = tuple(parts)
    return nodes


def _names(value: object) -> list[str] | None:
    """A list of strings, or one alone; None if it is anything else."""
    values = value if isinstance(value, list) else [value]
    strings = [one for one in values if isinstance(one, str)]
    return strings if len(strings) == len(values) else None


def _node(name: str, names: list[str], family: str, owners: dict[str, str]) -> list[str]:
    """What is wrong with a node. `owners` has the addresses of those before it."""
    if not 0 < len(name) <= MOST_NAME or not name.isprintable():
        return [f"is no name of a node: 1 to {MOST_NAME} printable characters"]
    trouble = []
    for one in names or [name]:
        what = _address_of(one, name, family, owners)
        if what:
            trouble.append(f"{_shown(one)}: {what}")
    if names and name not in names and not trouble:
        own = address_in(name)
        if own is not None and own not in map(address_in, names):
            trouble.append("is named like an address that is not its own")
    return trouble


def _address_of(text: str, node: str, family: str, owners: dict[str, str]) -> str:
    """What is wrong with an address or host name of a node; "" if nothing is."""
    try:
        addresses = literal(cleaned(text), FAMILIES[family])
    except LookUpError as error:
        return str(error)
    if addresses is None:
        _, percent, interface = text.partition("%")
        return f"this machine has no interface {_shown(interface)}" if percent else ""
    for address in addresses:
        owner = owners.setdefault(str(address), node)
        if owner != node:
            return f"is an address of node {_shown(owner)} already"
    return ""
