# SPDX-License-Identifier: GPL-2.0-or-later
"""argv and stdin -> one validated options object; nothing further down looks at either.

`getopt_long` is GNU's, which is what the stock programs use: abbreviated long options,
options behind operands, and ``-v[N]`` whose value must be attached. Python's own
`getopt` cannot do the last before 3.14, and takes as long to import as the whole
interpreter takes to start. The tests compare it with the getopt(1) of util-linux.
"""

from __future__ import annotations

from kdumpfence.addresses import is_address, split, why_refused
from kdumpfence.wire import PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NO, REQUIRED, OPTIONAL = 0, 1, 2

#: One option: short letter, long name, whether it takes a value, what is said of it.
Option = tuple[str, str, int, str]

FAMILIES = ("auto", "ipv4", "ipv6")
ACTIONS = ("off", "reboot", "monitor", "status", "metadata", "validate-all")

#: Seconds: what fits into the kernel's and everybody's arithmetic (68 years).
MOST_SECONDS = 2**31 - 1
MOST_MESSAGES = 2**31 - 1

#: What a fence agent reads from stdin at most, in bytes: far above what Pacemaker sends.
MOST_STDIN = 1 << 20


class OptionError(Exception):
    """What was given, and what is allowed, in one line."""


class UsageError(OptionError):
    """An option that does not exist, or one without its value: the usage helps."""


def getopt_long(
    argv: Sequence[str], options: Iterable[Option]
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Split `argv` into (long name, value or None) pairs and operands.

    Raises UsageError.
    """
    shorts = {short: (name, value) for short, name, value, _ in options}
    longs = {name: value for _, name, value, _ in options}
    found: list[tuple[str, str | None]] = []
    operands: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            operands += rest
            break
        if word.startswith("--"):
            given, equals, text = word[2:].partition("=")
            matches = [name for name in longs if name == given] or [
                name for name in longs if name.startswith(given)
            ]
            if len(matches) != 1:
                kind = "ambiguous" if matches else "unknown"
                raise UsageError(f"option {shown('--' + given)}: {kind}")
            name = matches[0]
            if longs[name] == NO and equals:
                raise UsageError(f"option '--{name}': takes no value")
            if longs[name] == REQUIRED and not equals:
                if not rest:
                    raise UsageError(f"option '--{name}': needs a value")
                text = rest.pop(0)
            elif not equals:
                found.append((name, None))
                continue
            found.append((name, text))
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter not in shorts:
                    raise UsageError(f"option {shown('-' + letter)}: unknown")
                name, takes = shorts[letter]
                value: str | None = None
                if takes != NO and letters:
                    value, letters = letters, ""
                elif takes == REQUIRED:
                    if not rest:
                        raise UsageError(f"option '-{letter}': needs a value")
                    value = rest.pop(0)
                found.append((name, value))
        else:
            operands.append(word)
    return found, operands


def usage(program: str, operands: str, options: Iterable[Option]) -> str:
    """The help text."""
    lines = [f"Usage: {program} [options]{operands}", "", "Options:", ""]
    for short, name, takes, text in options:
        metavar = name.upper() if takes == REQUIRED else ""
        value = ("", f"={metavar}", "[=LEVEL]")[takes]
        letter = f"-{short}, " if short else "    "
        lines.append(f"  {letter}--{name}{value}".ljust(32) + text)
    return "\n".join(lines) + "\n"


def shown(text: str) -> str:
    """What was given, to be told in a line: quoted, and never longer than a glance."""
    try:
        given = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        given = text.encode("utf-8", "surrogatepass")
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in given[:80]
    )
    return "'" + "".join(plain) + "'"


def _number(name: str, text: str, least: int, most: int, what: str) -> int:
    digits = text.strip()
    if digits.isascii() and digits.isdigit():
        digits = digits.lstrip("0") or "0"
        # Not int() of anything longer: it refuses more than 4300 digits in a way of its own.
        if len(digits) <= 10 and least <= int(digits) <= most:
            return int(digits)
    raise OptionError(f"{name} {shown(text)}: not {what} ({least} to {most})")


def _seconds(name: str, text: str) -> int:
    # "60s" is how the rest of a cluster's configuration writes a minute.
    number = text.strip()
    try:
        return _number(name, number[:-1] if number[-1:] in ("s", "S") else number,
                       1, MOST_SECONDS, "")  # fmt: skip
    except OptionError:
        raise OptionError(
            f"{name} {shown(text)}: not a whole number of seconds (1 to {MOST_SECONDS})"
        ) from None


def _choice(name: str, text: str, allowed: Sequence[str]) -> str:
    chosen = text.strip().lower()
    if chosen not in allowed:
        raise OptionError(f"{name} {shown(text)}: not one of {', '.join(allowed)}")
    return chosen


def _level(text: str | None, before: int, complaints: list[str]) -> int:
    """-v, -vv, -v3, --verbose=2; on stdin also the booleans that pcs writes.

    What it cannot mean is complained of but prevents nothing: no dump is to be lost over
    how much is said.
    """
    if text is None:
        return before + 1
    word = text.strip().lower()
    if word and word.strip("v") == "":
        return before + 1 + len(word)  # -vvv arrives as -v with the value "vv"
    if word in ("yes", "true", "on", "y", "t"):
        return max(before, 1)
    if word in ("no", "false", "off", "n", "f", ""):
        return 0
    if word.isascii() and word.isdigit():
        return min(int(word[:9]), 9)
    complaints.append(f"verbose {shown(text)}: not a number or a boolean")
    return max(before, 1)


def _names(parameter: str, text: str, complaints: list[str]) -> list[str]:
    """NODE[,NODE...].

    A part that can be neither a name nor an address is complained of: a cluster may put anything
    into `port`, and that must not keep the agent from hearing the others.
    """
    parts = split(text)
    if text.strip() and not parts:
        complaints.append(f"{parameter} {shown(text)}: no name in it")
    found = []
    for part in parts:
        why = why_refused(part)
        if why:
            complaints.append(f"{parameter} {shown(part)}: {why}")
        else:
            found.append(part)
    return found


def _union(nodes: dict[str, list[str]], passed_over: list[str]) -> tuple[str, ...]:
    """The names and addresses of the node, each once.

    Where one parameter gives addresses, the bare names in the others add nothing: Pacemaker puts
    the cluster's name for the node there by itself, and what a name service says of that must
    not decide where an administrator wrote down the addresses.
    """
    given = [name for name in NODE_PARAMETERS if any(map(is_address, nodes.get(name, ())))]
    union: dict[str, None] = {}
    for parameter in given or NODE_PARAMETERS:
        union.update(dict.fromkeys(nodes.get(parameter, ())))
    for parameter in NODE_PARAMETERS:
        for name in nodes.get(parameter, ()):
            if name not in union:
                passed_over.append(
                    f"{parameter} '{name}': not looked up, for {given[0]} gives addresses"
                )
    return tuple(union)


# ------------------------------------------------------------------- fence_kdump

AGENT_OPTIONS: tuple[Option, ...] = (
    ("n", "nodename", REQUIRED, "NODE[,NODE...]: names or addresses of the node to be heard"),
    ("p", "ipport", REQUIRED, f"UDP port to listen to (default: {PORT})"),
    ("f", "family", REQUIRED, "addresses to use: auto, ipv4, ipv6 (default: auto)"),
    ("o", "action", REQUIRED, "off, monitor, status, metadata, validate-all (default: off)"),
    ("t", "timeout", REQUIRED, "seconds to wait for a message (default: 60)"),
    ("v", "verbose", OPTIONAL, "say more; again or with a level: even more"),
    ("V", "version", NO, "print the version"),
    ("h", "help", NO, "print this help"),
    ("", "plug", REQUIRED, "NODE[,NODE...]: the same as nodename, added to it"),
)

#: The parameters that name the node; all of them together are its names.
NODE_PARAMETERS = ("nodename", "plug", "port")


class AgentOptions:
    """What the agent was told to do."""

    def __init__(self) -> None:
        #: All names and addresses of the one node that count, each once, in the order given.
        self.names: tuple[str, ...] = ()
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
        self.verbose = 0
        #: What was wrong with the input but need not stop the agent.
        self.complaints: list[str] = []


def agent_from_argv(argv: Sequence[str]) -> AgentOptions:
    """Options of fence_kdump on the command line. Raises OptionError.

    Operands are ignored, as the stock agent does.
    """
    pairs, _ = getopt_long(argv, AGENT_OPTIONS)
    for name, _ in pairs:
        if name in ("help", "version"):
            options = AgentOptions()
            options.action = name
            return options
    options = _agent(pairs)
    options.by_hand = True
    return options


def agent_from_stdin(data: bytes) -> AgentOptions:
    """Options of fence_kdump as a fence daemon writes them. Raises OptionError.

    ``name=value`` lines; empty lines, lines that begin with '#', lines without '=' and
    unknown names are passed over; case does not matter in names; of repeated names the
    last counts.
    """
    if len(data) > MOST_STDIN:
        raise OptionError(f"more than {MOST_STDIN} bytes of options on stdin")
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        text = line.strip(" \t\r\0")
        if text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        name = name.rstrip().lower()
        if equals:
            values[name] = value.strip()
    known = dict.fromkeys([name for _, name, takes, _ in AGENT_OPTIONS if takes])
    known.update(dict.fromkeys(NODE_PARAMETERS))
    return _agent([(name, values[name]) for name in known if name in values])


def _agent(pairs: Iterable[tuple[str, str | None]]) -> AgentOptions:
    options = AgentOptions()
    nodes: dict[str, list[str]] = {}
    for name, value in pairs:
        text = value or ""
        if name in NODE_PARAMETERS:
            nodes[name] = _names(name, text, options.complaints)
        elif name == "ipport":
            options.ipport = _number(name, text, 1, 65535, "a port number")
        elif name == "family":
            options.family = _choice(name, text, FAMILIES)
        elif name == "action":
            options.action = _choice(name, text, ACTIONS)
        elif name == "timeout":
            options.timeout = _seconds(name, text)
        elif name == "verbose":
            options.verbose = _level(value, options.verbose, options.complaints)
    options.names = _union(nodes, options.passed_over)
    if options.action == "reboot":
        options.action = "off"
    asks_for_a_node = options.action in ("off", "validate-all")
    if asks_for_a_node and nodes and not options.names and options.complaints:
        raise OptionError("; ".join(options.complaints))
    if options.action == "off" and not options.names:
        raise OptionError("action 'off' needs the node to be heard: nodename=NODE[,NODE...]")
    return options


# -------------------------------------------------------------- fence_kdump_send

SENDER_OPTIONS: tuple[Option, ...] = (
    ("p", "ipport", REQUIRED, f"UDP port to send to (default: {PORT})"),
    ("f", "family", REQUIRED, "addresses to use: auto, ipv4, ipv6 (default: auto)"),
    ("c", "count", REQUIRED, "messages for each node, 0 = until killed (default: 0)"),
    ("i", "interval", REQUIRED, "seconds between messages (default: 10)"),
    ("v", "verbose", OPTIONAL, "say more; again or with a level: even more"),
    ("V", "version", NO, "print the version"),
    ("h", "help", NO, "print this help"),
    ("", "check", NO, "send nothing, but say which way the messages would go"),
)


class SenderOptions:
    """What the sender was told to do."""

    def __init__(self) -> None:
        #: Names and addresses, each once: every one a node to be told.
        self.nodes: tuple[str, ...] = ()
        self.ipport = PORT
        #: One of FAMILIES.
        self.family = "auto"
        #: Messages for each node; 0 = without end.
        self.count = 0
        #: Seconds.
        self.interval = 10
        self.verbose = 0
        #: "send", "check", "help" or "version".
        self.action = "send"
        #: What was wrong with the input but need not stop the sender.
        self.complaints: list[str] = []


def sender_from_argv(argv: Sequence[str]) -> SenderOptions:
    """Options of fence_kdump_send. Raises OptionError."""
    pairs, operands = getopt_long(argv, SENDER_OPTIONS)
    options = SenderOptions()
    for name, _ in pairs:
        if name in ("help", "version"):
            options.action = name
            return options
    for name, value in pairs:
        text = value or ""
        if name == "ipport":
            options.ipport = _number(name, text, 1, 65535, "a port number")
        elif name == "family":
            options.family = _choice(name, text, FAMILIES)
        elif name == "count":
            options.count = _number(name, text, 0, MOST_MESSAGES, "a number of messages")
        elif name == "interval":
            options.interval = _seconds(name, text)
        elif name == "verbose":
            options.verbose = _level(value, options.verbose, options.complaints)
        elif name == "check":
            options.action = "check"
    del options.complaints[:-1]  # of several verbosities the last counts, whatever they are
    # Whatever they are: one that can be no name must not keep the others from being told.
    options.nodes = tuple(dict.fromkeys(node for operand in operands for node in split(operand)))
    if not options.nodes:
        raise UsageError("no node given")
    return options
