# SPDX-License-Identifier: GPL-2.0-or-later
"""argv and stdin -> one validated options object; nothing further down looks at either.

`getopt_long` is GNU's, which is what the stock programs use: abbreviated long options,
options behind operands, and ``-v[N]`` whose value must be attached. Python's own
`getopt` cannot do the last before 3.14, and takes as long to import as the whole
interpreter takes to start. The tests compare it with the getopt(1) of util-linux.
"""

from __future__ import annotations

from kdumpfence.addresses import is_meant_as_address, split, why_refused
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
    """An option that does not exist, or one without its value: the usage helps.

    `complaints`: what else was wrong.
    """

    def __init__(self, text: str, complaints: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.complaints = complaints


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


def _names(parameter: str, text: str, complaints: list[str]) -> tuple[list[str], bool]:
    """NODE[,NODE...], and whether it is meant to give addresses.

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
    nodes: dict[str, tuple[list[str], bool]] = {}
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
        #: What was wrong with the input and what is used instead, a line each.
        self.complaints: list[str] = []


#: Further names of options: what the agents of other devices call it.
_ALIASES = {"port": "ipport"}

#: Blanks between the words of an argument.
_BLANKS = " \t\n\v\f\r"

#: What may be left around a word; kdump-utils did so before November 2025.
_QUOTES = "\"'`"

#: Quotes within, and what a shell would have read; all of it separates nodes, as a comma does.
_NO_NODE_HAS = str.maketrans(dict.fromkeys(_QUOTES + ";&|<>(){}", ","))

#: Milliseconds of the units in which Pacemaker takes an interval.
_UNITS = {
    "": 1000,
    "ms": 1,
    "msec": 1,
    "s": 1000,
    "sec": 1000,
    "secs": 1000,
    "second": 1000,
    "seconds": 1000,
    "m": 60_000,
    "min": 60_000,
    "mins": 60_000,
    "minute": 60_000,
    "minutes": 60_000,
    "h": 3_600_000,
    "hr": 3_600_000,
    "hour": 3_600_000,
    "hours": 3_600_000,
}

#: What people call the families, beside their names here.
_FAMILIES = {
    "auto": ("auto", "any", "all", "both", "unspec"),
    "ipv4": ("ipv4", "ip4", "inet", "inet4", "v4", "4"),
    "ipv6": ("ipv6", "ip6", "inet6", "v6", "6"),
}


def _is_digit(letter: str) -> bool:
    return letter.isascii() and letter.isdigit()


def _is_letter(letter: str) -> bool:
    return letter.isascii() and letter.isalpha()


def _is_plain(letter: str) -> bool:
    return _is_digit(letter) or _is_letter(letter)


def _split(text: str) -> list[str]:
    for blank in _BLANKS[1:]:
        text = text.replace(blank, " ")
    return [word for word in text.split(" ") if word]


def _first(text: str) -> str:
    return "".join(_split(text)[:1])


def _core(text: str) -> str:
    """Without the quotes, commas and other signs around it; a minus and a point say something."""
    start, end = 0, len(text)
    while start < end and not _is_plain(text[start]) and text[start] not in "-.":
        start += 1
    while start < end and not _is_plain(text[end - 1]):
        end -= 1
    return text[start:end]


def _amount(text: str) -> tuple[int, int, str] | None:
    """(whole number, thousandths, what follows) of a text that begins with one number."""
    at = 0
    while at < len(text) and _is_digit(text[at]):
        at += 1
    whole, rest = text[:at].lstrip("0"), text[at:]
    fraction = ""
    if rest[:1] == ".":
        end = 1
        while end < len(rest) and _is_digit(rest[end]):
            end += 1
        fraction, rest = rest[1:end], rest[end:]
    if at == 0 or len(whole) > 10 or any(map(_is_digit, rest)):
        return None
    number = int(whole or "0")
    return None if number > MOST_SECONDS else (number, int((fraction + "000")[:3]), rest)


class _SenderWords:
    """The command line of a program that has to send, whatever it was given.

    In a crash kernel nobody reads an error. So what can be understood is used, and what cannot
    is complained of and left out. A line without a fault means what getopt_long makes of it.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.options = SenderOptions()
        self.operands: list[str] = []
        self._arguments = list(argv)
        #: What is left of an argument that turned out to be several words.
        self._words: list[str] = []
        self._shorts = {short: (name, takes) for short, name, takes, _ in SENDER_OPTIONS if short}
        self._longs = {name: takes for _, name, takes, _ in SENDER_OPTIONS}

    def read(self) -> None:
        only_operands = False
        while self._words or self._arguments:
            word = (self._words or self._arguments).pop(0)
            bare = word.strip(_BLANKS + _QUOTES)
            if bare != word.strip(_BLANKS):
                given = shown(word.strip(_BLANKS))
                self._complain(f"argument {given}: quotes do not belong to it; ignored")
            if only_operands or not bare.startswith("-") or bare == "-":
                self._operand(bare)
            elif bare == "--":
                only_operands = True
            elif bare.startswith("--") or self._has_one_dash(bare):
                self._long(bare)
            else:
                self._short(bare)

    def _complain(self, text: str) -> None:
        self.options.complaints.append(text)

    def _operand(self, word: str) -> None:
        parts = _split(word)
        if len(parts) > 1:
            self._words = parts
            return
        nodes = word.translate(_NO_NODE_HAS)
        if nodes != word:
            self._complain(f"operand {shown(word)}: has signs that no node has; left out")
        if any(letter != "," for letter in nodes):
            if all(_is_digit(letter) or letter == "," for letter in nodes):
                self._complain(f"operand {shown(nodes)}: a number is not a node; ignored")
            else:
                self.operands.append(nodes)

    def _has_one_dash(self, word: str) -> bool:
        """Whether this is a long option that lacks its second dash."""
        name = _first(word[1:].partition("=")[0]).lower()
        return self._longs.get(_ALIASES.get(name, name), NO) != NO

    def _long(self, word: str) -> None:
        given, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        if any(blank in given for blank in _BLANKS):
            self._words = _split(word)
            return
        wanted = given.lower()
        names = [*self._longs, *_ALIASES]
        matches = [name for name in names if name == wanted] or [
            name for name in names if name.startswith(wanted)
        ]
        if len(matches) != 1:
            kind = "ambiguous" if matches else "unknown"
            self._complain(f"option {shown('--' + given)}: {kind}; ignored")
            return
        name = _ALIASES.get(matches[0], matches[0])
        takes = self._longs[name]
        if takes == NO:
            if equals:
                self._complain(f"option '--{name}': takes no value")
            if name == "check" or not equals:
                self._act(name)
        elif takes == REQUIRED:
            self._take(name, "--" + matches[0], value if equals else None)
        else:
            self._verbosity(value if equals else None)

    def _short(self, word: str) -> None:
        asked = []
        at = 1
        while at < len(word):
            letter, rest = word[at], word[at + 1 :]
            at += 1
            if letter in _BLANKS:
                self._words = _split(rest)
                break
            name, takes = self._shorts.get(letter, ("", NO))
            if not name:
                # Where no letter follows, it is the value of an option that does not exist.
                end = at
                if not _is_letter(rest[:1]) or not letter.isascii():
                    while end < len(word) and word[end] not in _BLANKS:
                        end += 1
                self._complain(f"option {shown('-' + word[at - 1 : end])}: unknown; ignored")
                asked.append("")
                at = end
            elif takes == NO:
                asked.append(name)
            elif takes == REQUIRED:
                self._take(name, "-" + letter, rest or None)
                break
            elif not rest or (rest[0] in _BLANKS + "pfci" and _read_level(rest, 0) < 0):
                self._verbosity(None)
            else:
                self._verbosity(rest)
                break
        if "" not in asked:
            for name in asked:
                self._act(name)

    def _act(self, name: str) -> None:
        """Of help and version the one that comes first counts, and more than a check."""
        if self.options.action not in ("help", "version"):
            self.options.action = name

    def _verbosity(self, value: str | None) -> None:
        options = self.options
        if value is None:
            options.verbose += 1
            return
        level = _read_level(value, options.verbose)
        parts = _split(value)
        if level < 0 and len(parts) > 1:
            self._words = parts[1:]
            value = parts[0]
            level = _read_level(value, options.verbose)
        options.verbose = level if level >= 0 else max(options.verbose, 1)
        if level < 0:
            why = "not a number or a boolean"
            self._complain(f"verbose {shown(value)}: {why}; using {options.verbose}")

    def _take(self, name: str, option: str, value: str | None) -> None:
        """Read the value of an option that needs one: this, or else the word that follows."""
        while True:
            if value is None:
                words = self._words or self._arguments
                if not words or not _may_be_value(name, words[0]):
                    using = getattr(self.options, name)
                    self._complain(f"option '{option}': needs a value; using {using}")
                    return
                value = words.pop(0)
            read = _read_value(name, value)
            parts = _split(value)
            if read is None and len(parts) > 1:
                self._words = parts[1:]
                value = parts[0]
                read = _read_value(name, value)
            words = self._words or self._arguments
            if _core(value) or not words or not _core(_first(words[0])):
                break
            if not _may_be_value(name, words[0]):
                break
            value = None  # only a sign, as in "-i = 10"
        guess = read if read is not None else _guess_value(name, value)
        if guess is not None:
            setattr(self.options, name, guess)
        if read is None:
            what = _VALUES[name]
            using = getattr(self.options, name)
            self._complain(f"{name} {shown(value)}: not {what}; using {using}")


#: What the values are to be.
_VALUES = {
    "ipport": "a port number (1 to 65535)",
    "family": "one of auto, ipv4, ipv6",
    "count": f"a number of messages (0 to {MOST_MESSAGES})",
    "interval": f"a whole number of seconds (1 to {MOST_SECONDS})",
}
_RANGES = {"ipport": (1, 65535), "count": (0, MOST_MESSAGES), "interval": (1, MOST_SECONDS)}


def _may_be_value(name: str, word: str) -> bool:
    """Whether the word behind an option is its value, if a wrong one: no node, no option."""
    first = _first(word).strip(_QUOTES)
    core = _core(first)
    if first.startswith("-"):
        return _is_digit(first[1:2])
    if not core:
        return True
    if name == "family":
        plain = core.lower()
        for prefix in ("ipv", "ip", "inet"):
            if plain.startswith(prefix):
                plain = plain[len(prefix) :]
                break
        return _guess_value(name, core) is not None or all(map(_is_digit, plain))
    # Not an address or a host name that begins with a digit.
    return (
        _is_digit(core.lstrip(".")[:1])
        and core.count(".") < 3
        and core.count(":") < 2
        and "-" not in core
        and not any(a == "." and _is_letter(b) for a, b in zip(core, core[1:]))
    )


def _read_value(name: str, text: str) -> int | str | None:
    """A value as it should be written; None if it is not."""
    text = text.strip(_BLANKS)
    if name == "family":
        return text.lower() if text.lower() in FAMILIES else None
    amount = _amount(text)
    if amount is None or "." in text:
        return None
    unit = amount[2].strip(_BLANKS).lower()
    factor = _UNITS.get(unit, 0) if name == "interval" else 1000 * (amount[2] == "")
    value, left = divmod(amount[0] * factor, 1000)
    least, most = _RANGES[name]
    return value if factor and not left and least <= value <= most else None


def _guess_value(name: str, text: str) -> int | str | None:
    """What was meant by a value with something around it; None if nobody can say."""
    core = _core(text)
    if name == "family":
        core = core.lower()
        core = core[3:] if core.startswith("af_") else core
        return next((name for name, words in _FAMILIES.items() if core in words), None)
    amount = _amount(core)
    if amount is None or (amount[1] and name != "interval"):
        return None
    factor = _UNITS.get(_core(amount[2]).lower(), 1000) if name == "interval" else 1000
    thousandths = 1000 * amount[0] + amount[1]
    value = thousandths * factor // 1_000_000
    least, most = _RANGES[name]
    if thousandths and name == "interval":
        value = max(value, least)
    return value if least <= value <= most else None


def _read_level(text: str, before: int) -> int:
    """The verbosity that this value means, or -1."""
    text = text.strip(_BLANKS)
    if not all(" " <= letter <= "~" for letter in text):
        return -1
    complaints: list[str] = []
    level = _level(text, before, complaints)
    return -1 if complaints else level


def sender_from_argv(argv: Sequence[str]) -> SenderOptions:
    """Options of fence_kdump_send. Raises UsageError, with `complaints`, if there is no node.

    Nothing else about the options is an error: see `SenderOptions.complaints`.
    """
    words = _SenderWords(argv)
    words.read()
    options = words.options
    if options.action in ("help", "version"):
        options.complaints.clear()
        return options
    options.nodes = tuple(dict.fromkeys(split(",".join(words.operands))))
    if not options.nodes:
        raise UsageError("no node given", options.complaints)
    return options
