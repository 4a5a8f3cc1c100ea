# SPDX-License-Identifier: LGPL-2.1-or-later
"""fence_kdump: argv or stdin -> one validated object; nothing further down looks at either."""

from __future__ import annotations

from kdumpfence.addresses import (
    FAMILIES,
    is_address,
    is_meant_as_address,
    split,
    why_refused,
)
from kdumpfence.cmdline import (
    MOST_SECONDS,
    NO,
    OPTIONAL,
    REQUIRED,
    Option,
    OptionError,
    getopt_long,
    read_level,
)
from kdumpfence.text import shown, whole_number
from kdumpfence.wire import PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ACTIONS = ("off", "reboot", "monitor", "status", "metadata", "validate-all")

#: What is believed: any message from an address of the node, or signed answers alone.
AUTHS = ("none", "sha256")

#: As `keys.DEFAULT_PATH`, which is imported only where there is a key.
KEY_FILE = "/etc/kdumpfence/key"

#: Seconds for which a node has to answer that it is alive until the answer is no.
ALIVE_GRACE = 5

#: Bytes that are read from stdin at most: far above what Pacemaker sends.
MOST_STDIN = 1 << 20

AGENT_OPTIONS: tuple[Option, ...] = (
    ("n", "nodename", REQUIRED, "NODE[,NODE...]: names or addresses of the node to be heard"),
    ("p", "ipport", REQUIRED, f"UDP port to listen to (default: {PORT})"),
    ("f", "family", REQUIRED, "addresses to use: auto, ipv4, ipv6 (default: auto)"),
    ("o", "action", REQUIRED, "off, monitor, status, metadata, validate-all (default: off)"),
    ("t", "timeout", REQUIRED, "seconds to wait for a message (default: 60)"),
    ("v", "verbose", OPTIONAL, "log more; repeat it or give a level for even more"),
    ("V", "version", NO, "print the version"),
    ("h", "help", NO, "print this help"),
    ("", "plug", REQUIRED, "NODE[,NODE...]: more names or addresses of the same node"),
    ("", "auth", REQUIRED, "what is believed: none, sha256 (signed answers alone; default: none)"),
    ("", "key-file", REQUIRED, f"the cluster's key, for auth=sha256 (default: {KEY_FILE})"),
    ("", "alive-grace", REQUIRED,
     f"seconds until a node that answers is alive; -1: never (default: {ALIVE_GRACE})"),
    ("", "listener", REQUIRED, "kdumpfenced that listens instead: unix:/PATH, http://HOST:PORT"),
)  # fmt: skip

#: Options that came later; `--a` goes on to mean action.
NEWER = ("auth", "key-file", "alive-grace", "listener")

#: The parameters that name the node; all of them together are its names.
NODE_PARAMETERS = ("nodename", "plug", "port")


class AgentOptions:
    """What the agent was told to do."""

    def __init__(self) -> None:
        #: All names and addresses of the one node that count, each once, in the order given.
        self.names: tuple[str, ...] = ()
        #: What the node is called: all names that were given, without the addresses, those
        #: that are not looked up included.
        self.called: tuple[str, ...] = ()
        #: Which names do not count, and why.
        self.passed_over: list[str] = []
        #: Whether they came from the command line, not from a fence daemon.
        self.by_hand = False
        self.ipport = PORT
        #: One of FAMILIES.
        self.family = "auto"
        #: One of ACTIONS, or "help" or "version".
        self.action = "off"
        #: Seconds.
        self.timeout = 60
        #: One of AUTHS.
        self.auth = "none"
        self.key_file = KEY_FILE
        #: Seconds; -1: never.
        self.alive_grace = ALIVE_GRACE
        #: Where a kdumpfenced listens for this agent; "": it listens itself.
        self.listener = ""
        self.verbose = 0
        #: What was wrong with the input but need not stop the agent.
        self.complaints: list[str] = []


def agent_from_argv(argv: Sequence[str]) -> AgentOptions:
    """Options of fence_kdump on the command line. Raises OptionError.

    Operands are ignored, as the stock agent does.
    """
    pairs, _ = getopt_long(argv, AGENT_OPTIONS, NEWER)
    for name, _ in pairs:
        if name in ("help", "version"):
            options = AgentOptions()
            options.action = name
            return options
    options = _read([(name.replace("-", "_"), value) for name, value in pairs])
    options.by_hand = True
    return options


def agent_from_stdin(data: bytes) -> AgentOptions:
    """Options of fence_kdump as a fence daemon writes them. Raises OptionError.

    ``name=value`` lines; empty lines, lines that begin with '#', lines without '=' and
    unknown names are passed over; in names case does not matter and "-" is "_", as in other fence
    agents; of repeated names the last counts.
    """
    if len(data) > MOST_STDIN:
        raise OptionError(f"more than {MOST_STDIN} bytes of options on stdin")
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        text = line.strip(" \t\r\0")
        name, equals, value = text.partition("=")
        if equals and not text.startswith("#"):
            values[name.rstrip().lower().replace("-", "_")] = value.strip()
    known = dict.fromkeys([name.replace("-", "_") for _, name, takes, _ in AGENT_OPTIONS if takes])
    known.update(dict.fromkeys(NODE_PARAMETERS))
    return _read([(name, values[name]) for name in known if name in values])


def _read(pairs: Iterable[tuple[str, str | None]]) -> AgentOptions:
    options = AgentOptions()
    nodes: dict[str, tuple[list[str], bool]] = {}
    given = set()
    for name, value in pairs:
        given.add(name)
        text = value or ""
        if name in NODE_PARAMETERS:
            nodes[name] = _names(name, text, options.complaints)
        elif name == "ipport":
            options.ipport = _number(name, text, text, 65535, "not a port number (1 to 65535)")
        elif name == "family":
            options.family = _choice(name, text, FAMILIES)
        elif name == "action":
            options.action = _choice(name, text, ACTIONS)
        elif name == "timeout":
            fault = f"not a whole number of seconds (1 to {MOST_SECONDS})"
            options.timeout = _number(name, text, _seconds(text), MOST_SECONDS, fault)
        elif name == "auth":
            options.auth = _choice(name, text, AUTHS)
        elif name == "key_file":
            if not text.strip() or "\0" in text:
                raise OptionError(f"{name} {shown(text)}: not the name of a file")
            options.key_file = text.strip()
        elif name == "alive_grace":
            if text.strip() == "-1":
                options.alive_grace = -1
            else:
                fault = f"not a whole number of seconds (0 to {MOST_SECONDS}, or -1 for never)"
                options.alive_grace = _number(
                    name, text, _seconds(text), MOST_SECONDS, fault, least=0
                )
        elif name == "listener":
            options.listener = _listener(name, text)
        elif name == "verbose":
            level = read_level(value, options.verbose)
            if level is None:
                # No dump is to be lost over how much is said.
                options.complaints.append(f"verbose {shown(text)}: not a number or a boolean")
                level = max(options.verbose, 1)
            options.verbose = level
    options.names = _union(nodes, options.passed_over)
    options.called = _bare_names(nodes)
    if options.action == "reboot":
        options.action = "off"
    asks_for_a_node = options.action in ("off", "validate-all")
    if asks_for_a_node and nodes and not options.names and options.complaints:
        raise OptionError("; ".join(options.complaints))
    if asks_for_a_node and "key_file" in given and "auth" not in given:
        options.complaints.append(
            f"key_file {shown(options.key_file)}: not used without auth=sha256, so any message "
            "is believed"
        )
    without_port = ("ipport", "family", "alive_grace") if options.listener else ()
    unused = [name for name in without_port if name in given]
    if asks_for_a_node and unused:
        options.complaints.append(f"{', '.join(unused)}: not used with listener")
    if options.action == "off" and not options.names:
        raise OptionError("action 'off' needs the node to be heard: nodename=NODE[,NODE...]")
    return options


def _seconds(text: str) -> str:
    """Without a unit: "60s" is how the rest of a cluster's configuration writes a minute."""
    digits = text.strip()
    return digits[:-1] if digits[-1:] in ("s", "S") else digits


def _number(name: str, text: str, digits: str, most: int, fault: str, least: int = 1) -> int:
    number = whole_number(digits.strip(), least, most)
    if number is None:
        raise OptionError(f"{name} {shown(text)}: {fault}")
    return number


def _listener(name: str, text: str) -> str:
    place = text.strip()
    if not place:
        return ""
    from kdumpfence.agent.daemon_link import parsed  # only those pay for it who have one

    try:
        parsed(place)
    except ValueError as error:
        raise OptionError(f"{name} {shown(text)}: {error}") from None
    return place


def _choice(name: str, text: str, allowed: Iterable[str]) -> str:
    chosen = text.strip().lower()
    if chosen not in allowed:
        raise OptionError(f"{name} {shown(text)}: not one of {', '.join(allowed)}")
    return chosen


def _names(parameter: str, text: str, complaints: list[str]) -> tuple[list[str], bool]:
    """NODE[,NODE...], and whether it is meant to give addresses.

    A part that can be neither a name nor an address is complained of: a cluster may put anything
    into `port`, and that must not keep the agent from hearing the others.
    """
    parts = split(text)
    if text.strip() and not parts:
        complaints.append(f"{parameter} {shown(text)}: empty")
    found = []
    for part in parts:
        why = why_refused(part)
        if why:
            complaints.append(f"{parameter} {shown(part)}: {why}")
        else:
            found.append(part)
    return found, any(map(is_meant_as_address, parts))


def _union(nodes: dict[str, tuple[list[str], bool]], passed_over: list[str]) -> tuple[str, ...]:
    """The names and addresses of the node, each once.

    Where one parameter gives addresses, the bare names in the others add nothing: Pacemaker puts
    the cluster's name for the node there by itself, and what a name service says of that must
    not decide where an administrator wrote down the addresses, be they mistyped.
    """
    given = [name for name in nodes if nodes[name][1]]
    union: dict[str, None] = {}
    for parameter in given or nodes:
        union.update(dict.fromkeys(nodes[parameter][0]))
    for parameter, (names, _) in nodes.items():
        for name in names:
            if name not in union:
                passed_over.append(
                    f"{parameter} '{name}': not looked up, because {given[0]} gives addresses"
                )
    return tuple(union)


def _bare_names(nodes: dict[str, tuple[list[str], bool]]) -> tuple[str, ...]:
    """What the node is called, `nodename` first, which is what its cluster calls it."""
    given = [name for parameter in NODE_PARAMETERS for name in nodes.get(parameter, ([],))[0]]
    return tuple(dict.fromkeys(name for name in given if not is_address(name)))
