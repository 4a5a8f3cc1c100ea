# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced's settings as one object; every key of the file stands in `KEYS`, once, with its
default and what it may be. How the file is read is in settings_file.py. What may not be in this
file: what is done with a setting.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kdumpfence import keys
from kdumpfence.addresses import FAMILIES, LookUpError, cleaned, literal
from kdumpfence.daemon.formats import many
from kdumpfence.daemon.values import (
    Check,
    address,
    choice,
    database_url,
    file_mode,
    listening_addresses,
    networks,
    number,
    packet_name,
    path,
    size,
    socket_mode,
    socket_path,
    whole,
    yes_or_no,
)
from kdumpfence.database.connection import has_password, shown
from kdumpfence.listener.cluster_keys import AUTHS
from kdumpfence.listener.kernel import WAYS
from kdumpfence.wire import PORT

if TYPE_CHECKING:
    from typing import Literal

DEFAULT_PATH = "/etc/kdumpfence/kdumpfenced.toml"

#: Nodes in a settings file: ten times of what was ever tried.
MOST_NODES = 1 << 20

LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Settings:
    """What kdumpfenced was told to do; `KEYS` says what each may be."""

    path: str = DEFAULT_PATH
    #: Name -> addresses and host names; empty: the name itself is looked up.
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    port: int = PORT
    #: Of this machine, on which it listens; (): all.
    address: tuple[str, ...] = ()
    family: Literal["auto", "ipv4", "ipv6"] = "auto"
    #: Whether messages have to be signed.
    auth: Literal["none", "sha256"] = "none"
    #: Seconds.
    silence: float = 30.0
    repeat: float = 10.0
    #: Nodes that networks may admit.
    room: int = 131072
    #: Bytes of the kernel's queue for a socket.
    queue: int = 1 << 26
    #: Who counts messages that say nothing new: one of `WAYS`.
    counting: str = "auto"
    #: Whether questions are answered, and with which name; "": that of `uname -n`.
    answer: bool = True
    node: str = ""
    #: The cluster's keys, or, as far as answers need them, this node's.
    key_file: str = keys.DEFAULT_PATH
    history_path: str = "/var/lib/kdumpfenced/history.sqlite"
    history_days: float = 400.0
    #: Dumps.
    history_most: int = 1_000_000
    history_mode: int = 0o600
    #: Where other listeners' dumps are, too; "": nowhere.
    history_database: str = ""
    control_path: str = "/run/kdumpfenced/control"
    control_mode: int = 0o666
    metrics_address: str = "127.0.0.1"
    #: 0: no metrics.
    metrics_port: int = 0
    #: Nodes that have a time series of their own while they are dumping.
    metrics_nodes: int = 1000
    #: Whether the status page is at / of the same port.
    metrics_page: bool = True
    http_address: str = "127.0.0.1"
    #: 0: no questions over HTTP but on the control socket.
    http_port: int = 0
    log_level: str = "info"
    #: Lines in a second.
    log_lines: int = 1000

    @property
    def name(self) -> str:
        """The name with which questions are answered."""
        return self.node or os.uname().nodename

    def meaning(self) -> list[str]:
        """What these settings mean, in lines for people."""
        names = sum(_is_looked_up(name) for name in self._all_names())
        literals = sum(1 for _ in self._all_names()) - names
        families = {"auto": "IPv4 and IPv6", "ipv4": "IPv4", "ipv6": "IPv6"}[self.family]
        if self.address:
            families += f" at {', '.join(self.address)}"
        lines = [
            f"listens on UDP port {self.port} over {families}, queue {self.queue:,} bytes",
            f"nodes: {len(self.nodes):,}, with {many(literals, 'address', 'addresses')} "
            f"and {many(names, 'name', 'names')} to look up"
            if self.auth == "none"
            else f"nodes: {len(self.nodes):,}",
            f"networks: {', '.join(self.networks)}; "
            f"at most {self.room:,} of their nodes are tracked"
            if self.networks
            else "networks: none, only the nodes above",
            "auth: none, any message from an address of a node counts"
            if self.auth == "none"
            else f"auth: {self.auth}, a node is known by its name; keys: {self.key_file}",
            f"a dump is over after {self.silence:g} s without a message; "
            f"one in progress is reported at most every {self.repeat:g} s",
            f"counting: {self.counting}, "
            + (
                "every message is read"
                if self.counting == "user"
                else "but every message is read, for it has to be checked"
                if self.auth != "none"
                else "the kernel counts repeated messages if it can"
            ),
            f"questions: answered as node '{self.name}', signed"
            + (f" if there is {self.key_file}" if self.auth == "none" else "")
            if self.answer
            else "questions: not answered",
            f"history: {self.history_path}, for {self.history_days:g} days and at most "
            f"{self.history_most:,} dumps, mode {self.history_mode:04o}",
            f"database: {shown(self.history_database)}, as listener '{self.name}'"
            if self.history_database
            else "database: none, the history is this listener's own",
            f"control socket: {self.control_path}, mode {self.control_mode:04o}",
            f"metrics: http://{_url_host(self.metrics_address)}:{self.metrics_port}/metrics, with "
            f"at most {self.metrics_nodes:,} nodes by name"
            + ("; status page at /" if self.metrics_page else "; no status page")
            if self.metrics_port
            else "metrics: off",
            f"http: http://{_url_host(self.http_address)}:{self.http_port}/v1/, for everyone who "
            "can connect"
            if self.http_port
            else "http: off, but on the control socket",
            f"log: level {self.log_level}, at most {self.log_lines:,} lines a second",
        ]
        if self.silence < 21:
            lines.append(
                f"note: silence = {self.silence:g}: senders repeat every ten seconds, so one or "
                "two lost messages look like the end of a dump and the start of another"
            )
        if has_password(self.history_database):
            lines.append(
                "note: [history] database has a password in it, for everybody who may read "
                f"{self.path}: leave it to PGPASSFILE or PGSERVICE"
            )
        if self.auth == "none" and {"0.0.0.0/0", "::/0"}.intersection(self.networks):
            lines.append(
                "note: messages are not authenticated: anyone who can reach the port can fake a "
                "dump; name only the nodes' own networks"
            )
        return lines

    def _all_names(self) -> Iterator[str]:
        for name, addresses in self.nodes.items():
            yield from addresses or (cleaned(name),)


def _url_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _is_looked_up(name: str) -> bool:
    try:
        return literal(name, FAMILIES["auto"]) is None
    except LookUpError:
        return False


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
    #: Whether nobody may be shown what was given: there may be a password in it.
    secret: bool = False


KEYS = (
    Key("", "networks", "networks", networks, True),
    Key("", "port", "port", whole(1, 65535), True),
    Key("", "address", "address", listening_addresses, True),
    Key("", "family", "family", choice(tuple(FAMILIES)), True),
    Key("", "auth", "auth", choice(AUTHS), True),
    Key("", "silence", "silence", number(1, 86400, "seconds"), True),
    Key("", "repeat", "repeat", number(1, 86400, "seconds"), True),
    Key("", "room", "room", whole(1, MOST_NODES), True),
    Key("", "queue", "queue", size, True),
    Key("", "answer", "answer", yes_or_no, True),
    Key("", "node", "node", packet_name, False),
    Key("", "key_file", "key_file", path, False),
    Key("listen", "counting", "counting", choice(WAYS), True),
    Key("history", "path", "history_path", path, True),
    Key("history", "days", "history_days", number(1, 36500, "days"), False),
    Key("history", "most", "history_most", whole(1, 100_000_000), False),
    Key("history", "mode", "history_mode", file_mode, True),
    Key("history", "database", "history_database", database_url, True, True),
    Key("control", "path", "control_path", socket_path, True),
    Key("control", "mode", "control_mode", socket_mode, True),
    Key("metrics", "address", "metrics_address", address, True),
    Key("metrics", "port", "metrics_port", whole(1, 65535), True),
    Key("metrics", "nodes", "metrics_nodes", whole(0, 100_000), False),
    Key("metrics", "page", "metrics_page", yes_or_no, True),
    Key("http", "address", "http_address", address, True),
    Key("http", "port", "http_port", whole(1, 65535), True),
    Key("log", "level", "log_level", choice(LEVELS), False),
    Key("log", "lines", "log_lines", whole(1, 1_000_000), False),
)

NODES = "nodes"
TABLES = {key.table for key in KEYS} - {""} | {NODES}


def changes(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """The keys that differ, in words: those that count at once, and those that need a restart."""
    now: list[str] = []
    later: list[str] = []
    for key in KEYS:
        before, after = getattr(old, key.attribute), getattr(new, key.attribute)
        if before != after:
            (later if key.restart else now).append(key_name(key.table, key.name))
    return now, later


def key_name(table: str, key: str) -> str:
    """As it is written for people."""
    return f"[{table}] {key}" if table else key
