# SPDX-License-Identifier: LGPL-2.1-or-later
"""fence_kdump_send: any command line -> options to send with.

In a crash kernel nobody reads an error. So what can be understood is used, and what cannot is
complained of and left out. A line without a fault means what `getopt_long` makes of it. The
native sender reads it in the same way, to the letter.
"""

from __future__ import annotations

import re

from kdumpfence.addresses import FAMILIES, split
from kdumpfence.cmdline import (
    MOST_SECONDS,
    NO,
    OPTIONAL,
    REQUIRED,
    Option,
    UsageError,
    matching,
    read_level,
)
from kdumpfence.text import shown
from kdumpfence.wire import PORT, STATES, is_packet_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Value = TypeVar("Value")

MOST_MESSAGES = 2**31 - 1

SENDER_OPTIONS: tuple[Option, ...] = (
    ("p", "ipport", REQUIRED, f"UDP port to send to (default: {PORT})"),
    ("f", "family", REQUIRED, "addresses to use: auto, ipv4, ipv6 (default: auto)"),
    ("c", "count", REQUIRED, "messages for each node, 0 = until killed (default: 0)"),
    ("i", "interval", REQUIRED, "seconds between messages (default: 10)"),
    ("v", "verbose", OPTIONAL, "log more; repeat it or give a level for even more"),
    ("V", "version", NO, "print the version"),
    ("h", "help", NO, "print this help"),
    ("", "check", NO, "send nothing; show which way the messages would go"),
    ("", "key-file", REQUIRED, "key to sign messages with (default: none)"),
    ("", "node", REQUIRED, "name of this node (default: the key's, or the host name)"),
    ("", "state", REQUIRED, "started, dumping, finished or failed (default: dumping)"),
)

#: Of these, each makes the sender send packets instead of messages without a trailer.
_OF_PACKETS = ("key-file", "node", "state")


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
        #: Whether packets are to be sent: messages that have a trailer.
        self.packets = False
        #: Of packets: the key file, "" if there is none; the name of this node, "" if others
        #: know it; one of STATES.
        self.key_file = ""
        self.node = ""
        self.state = "dumping"
        #: "send", "check", "help" or "version".
        self.action = "send"
        #: What was wrong with the input and what is used instead, a line each.
        self.complaints: list[str] = []


def sender_from_argv(argv: Sequence[str]) -> SenderOptions:
    """Options of fence_kdump_send. Raises UsageError, with `complaints`, if there is no node.

    Nothing else about the options is an error: see `SenderOptions.complaints`.
    """
    line = _CommandLine(argv)
    line.read()
    options = line.options
    if options.action in ("help", "version"):
        options.complaints.clear()
        return options
    options.nodes = tuple(dict.fromkeys(split(",".join(line.operands))))
    if not options.nodes:
        raise UsageError("no node given", options.complaints)
    return options


# -------------------------------------------------------------------------- words

#: Blanks between the words of an argument; Python's own idea of them has more.
_BLANKS = " \t\n\v\f\r"

#: What may be left around a word; kdump-utils did so before November 2025.
_QUOTES = "\"'`"

#: Quotes within, and what a shell would have read; all of it separates nodes, as a comma does.
_NO_NODE_HAS = str.maketrans(dict.fromkeys(_QUOTES + ";&|<>(){}", ","))


def _split(text: str) -> list[str]:
    return re.findall(f"[^{_BLANKS}]+", text)


def _core(text: str) -> str:
    """Without the quotes, commas and other signs around it; a minus and a point say something."""
    return re.sub(r"\A[^0-9A-Za-z.-]+|[^0-9A-Za-z]+\Z", "", text)


# ------------------------------------------------------------------------- values


class _Number:
    """The values of an option that takes a number, with a unit if there are `units`."""

    def __init__(self, what: str, least: int, most: int, units: dict[str, int]) -> None:
        #: What is said of others.
        self.fault = f"{what} ({least} to {most})"
        self._least, self._most = least, most
        self._units = {"": 1000, **units}  # in thousandths

    def may_be(self, core: str) -> bool:
        """Whether it is meant as one, if a wrong one: no address, no name that begins with it."""
        return (
            re.match(r"\.*[0-9]", core) is not None
            and core.count(".") < 3
            and core.count(":") < 2
            and re.search(r"-|\.[A-Za-z]", core) is None
        )

    def read(self, text: str) -> int | None:
        """A value as it should be written; None if it is not."""
        amount = _amount(text.strip(_BLANKS))
        if amount is None or "." in text:
            return None
        factor = self._units.get(amount[1].strip(_BLANKS).lower(), 0)
        value, left = divmod(amount[0] * factor, 1_000_000)
        return value if factor and not left and self._least <= value <= self._most else None

    def guess(self, text: str) -> int | None:
        """What was meant by a value with something around it; None if nobody can say."""
        amount = _amount(_core(text))
        if amount is None or (amount[0] % 1000 and len(self._units) == 1):
            return None
        value = amount[0] * self._units.get(_core(amount[1]).lower(), 1000) // 1_000_000
        if amount[0]:
            value = max(value, self._least)
        return value if self._least <= value <= self._most else None


def _amount(text: str) -> tuple[int, str] | None:
    """(thousandths, what follows) of a text that begins with one number, and has no other."""
    match = re.fullmatch(r"(?=[0-9])0*([0-9]{0,10})(?:\.([0-9]*))?([^0-9]*)", text)
    if match is None or int(match[1] or 0) > MOST_SECONDS:
        return None
    return 1000 * int(match[1] or 0) + int(f"{match[2] or ''}000"[:3]), match[3]


class _Text:
    """The values of an option that takes a word, whatever it is; only blanks and quotes end it."""

    def __init__(self, what: str, is_right: Callable[[str], bool]) -> None:
        self.fault = f"not {what}"
        self._is_right = is_right

    def may_be(self, core: str) -> bool:
        return True

    def read(self, text: str) -> str | None:
        word = text.strip(_BLANKS)
        return word if self.guess(word) == word else None

    def guess(self, text: str) -> str | None:
        word = text.strip(_BLANKS + _QUOTES)
        return word if word and len(_split(word)) == 1 and self._is_right(word) else None


class _State:
    """The values of --state."""

    fault = f"not one of {', '.join(STATES[1:])}"

    def may_be(self, core: str) -> bool:
        return self.guess(core) is not None

    def read(self, text: str) -> str | None:
        state = text.strip(_BLANKS).lower()
        return state if state and state in STATES else None

    def guess(self, text: str) -> str | None:
        return self.read(_core(text))


#: What people call the families.
_FAMILIES = {
    "auto": ("auto", "any", "all", "both", "unspec"),
    "ipv4": ("ipv4", "ip4", "inet", "inet4", "v4", "4"),
    "ipv6": ("ipv6", "ip6", "inet6", "v6", "6"),
}


class _Family:
    """The values of --family."""

    fault = f"not one of {', '.join(FAMILIES)}"

    def may_be(self, core: str) -> bool:
        known = self.guess(core) is not None
        return known or re.fullmatch("(ipv|ip|inet)?[0-9]*", core.lower()) is not None

    def read(self, text: str) -> str | None:
        family = text.strip(_BLANKS).lower()
        return family if family in FAMILIES else None

    def guess(self, text: str) -> str | None:
        core = _core(text).lower()
        core = core[3:] if core.startswith("af_") else core
        return next((name for name, words in _FAMILIES.items() if core in words), None)


#: Milliseconds of the units in which Pacemaker takes an interval.
_UNITS = {
    unit: milliseconds
    for milliseconds, units in (
        (1, "ms msec"),
        (1000, "s sec secs second seconds"),
        (60_000, "m min mins minute minutes"),
        (3_600_000, "h hr hour hours"),
    )
    for unit in units.split()
}

#: The values of the options that need one.
_VALUES: dict[str, _Number | _Family | _Text | _State] = {
    "ipport": _Number("not a port number", 1, 65535, {}),
    "family": _Family(),
    "count": _Number("not a number of messages", 0, MOST_MESSAGES, {}),
    "interval": _Number("not a whole number of seconds", 1, MOST_SECONDS, _UNITS),
    "key-file": _Text("the path of a file", bool),
    "node": _Text("1 to 64 ASCII characters without blanks", is_packet_name),
    "state": _State(),
}


# --------------------------------------------------------------------------- line

_SHORTS = {short: (name, takes) for short, name, takes, _ in SENDER_OPTIONS if short}
_LONGS = {name: takes for _, name, takes, _ in SENDER_OPTIONS}

#: Further names of options: what the agents of other devices call it.
_ALIASES = {"port": "ipport"}


class _CommandLine:
    def __init__(self, argv: Sequence[str]) -> None:
        self.options = SenderOptions()
        self.operands: list[str] = []
        #: Arguments, behind what is left of one that turned out to be several words.
        self._left = list(argv)

    def read(self) -> None:
        only_operands = False
        while self._left:
            word = self._left.pop(0).strip(_BLANKS)
            bare = word.strip(_BLANKS + _QUOTES)
            if bare != word:
                self._complain(f"argument {shown(word)}: stray quotes ignored")
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
            self._left[:0] = parts
            return
        nodes = word.translate(_NO_NODE_HAS)
        if nodes != word:
            self._complain(
                f"operand {shown(word)}: contains characters that no node name has; ignoring them"
            )
        if nodes.strip("0123456789,"):
            self.operands.append(nodes)
        elif nodes.strip(","):
            self._complain(f"operand {shown(nodes)}: a number is not a node; ignored")

    def _has_one_dash(self, word: str) -> bool:
        """Whether this is a long option that lacks its second dash."""
        name = "".join(_split(word[1:].partition("=")[0])[:1]).lower()
        return _LONGS.get(_ALIASES.get(name, name), NO) != NO

    def _long(self, word: str) -> None:
        given, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        if any(blank in given for blank in _BLANKS):
            self._left[:0] = _split(word)
            return
        # Those with a letter come first: all that the stock sender has are such.
        matches, fault = matching(given.lower(), [name for name, _ in _SHORTS.values()])
        if not matches:
            matches, fault = matching(given.lower(), [*_LONGS, *_ALIASES])
        if fault:
            self._complain(f"option {shown('--' + given)}: {fault}; ignored")
            return
        name = _ALIASES.get(matches[0], matches[0])
        if _LONGS[name] == REQUIRED:
            self._take(name, "--" + matches[0], value if equals else None)
        elif _LONGS[name] == OPTIONAL:
            self._verbosity(value if equals else None)
        else:
            if equals:
                self._complain(f"option '--{name}': takes no value")
            if name == "check" or not equals:
                self._act(name)

    def _short(self, word: str) -> None:
        actions = []
        all_known = True
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _BLANKS:
                self._left[:0] = _split(letters)
                break
            name, takes = _SHORTS.get(letter, ("", NO))
            if not name:
                all_known = False
                # Where no letter follows, it is the value of an option that does not exist.
                value = re.split(f"[{_BLANKS}]", letters, maxsplit=1)[0]
                if letter.isascii() and re.match("[A-Za-z]", value):
                    value = ""
                self._complain(f"option {shown('-' + letter + value)}: unknown; ignored")
                letters = letters[len(value) :]
            elif takes == NO:
                actions.append(name)
            elif takes == REQUIRED:
                self._take(name, "-" + letter, letters or None)
                break
            elif letters and (
                letters[0] not in _BLANKS + "pfci" or _read_level(letters, 0) is not None
            ):
                self._verbosity(letters)
                break
            else:
                self._verbosity(None)
        if all_known:
            for name in actions:
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
        value, level = self._first_word(value, lambda text: _read_level(text, options.verbose))
        options.verbose = max(options.verbose, 1) if level is None else level
        if level is None:
            why = "not a number or a boolean"
            self._complain(f"verbose {shown(value)}: {why}; using {options.verbose}")

    def _first_word(
        self, text: str, read: Callable[[str], Value | None]
    ) -> tuple[str, Value | None]:
        """Read a value; if it is none, its first word, and leave the others to be read next."""
        value = read(text)
        parts = _split(text)
        if value is None and len(parts) > 1:
            self._left[:0] = parts[1:]
            text = parts[0]
            value = read(text)
        return text, value

    def _take(self, name: str, option: str, text: str | None) -> None:
        """Read the value of an option that needs one: this, or else the word that follows."""
        values = _VALUES[name]
        fault = ""
        if name in _OF_PACKETS:
            self.options.packets = True
        while True:
            if text is None:
                if not self._may_follow(values):
                    self._complain(f"option '{option}': needs a value; {self._used(name)}")
                    return
                text = self._left.pop(0)
            whole = text
            text, value = self._first_word(text, values.read)
            if isinstance(values, _Text):
                fault = "the first of several words" if text != whole else ""
                break
            if _core(text) or not self._may_follow(values, empty=False):
                break
            text = None  # only a sign, as in "-i = 10"
        if value is None:
            fault = values.fault
            value = values.guess(text)
        if value is not None:
            setattr(self.options, _attribute(name), value)
        if fault:
            self._complain(f"{name} {shown(text)}: {fault}; {self._used(name)}")

    def _used(self, name: str) -> str:
        """What is used for an option whose value is wrong or missing."""
        value = getattr(self.options, _attribute(name))
        if isinstance(_VALUES[name], _Text):
            return f"using {shown(value)}" if value else "ignored"
        return f"using {value}"

    def _may_follow(self, values: _Number | _Family | _Text | _State, empty: bool = True) -> bool:
        """Whether the next word is such a value, if a wrong one: no node, no option.

        `empty`: or a word without a letter or digit.
        """
        if not self._left:
            return False
        word = "".join(_split(self._left[0])[:1]).strip(_QUOTES)
        if word.startswith("-"):
            return re.match("-[0-9]", word) is not None
        core = _core(word)
        return values.may_be(core) if core else empty


def _attribute(name: str) -> str:
    """Of SenderOptions: where an option's value is kept."""
    return name.replace("-", "_")


def _read_level(text: str, before: int) -> int | None:
    """The verbosity that this value means."""
    text = text.strip(_BLANKS)
    return read_level(text, before) if re.fullmatch("[ -~]*", text) else None
