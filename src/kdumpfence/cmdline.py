# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the command lines of agent and sender share: a table of options, its usage text, getopt.

`getopt_long` is GNU's, which is what the stock programs use: abbreviated long options,
options behind operands, and ``-v[N]`` whose value must be attached. Python's own
`getopt` cannot do the last before 3.14, and takes as long to import as the whole
interpreter takes to start. The tests compare it with the getopt(1) of util-linux.

What may not be in this file: which options there are (`agent.options`, `sender.options`).
"""

from __future__ import annotations

from kdumpfence.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NO, REQUIRED, OPTIONAL = 0, 1, 2

#: One option: short letter, long name, whether it takes a value, what is said of it.
Option = tuple[str, str, int, str]

#: Seconds: what fits into the kernel's and everybody's arithmetic (68 years).
MOST_SECONDS = 2**31 - 1


class OptionError(Exception):
    """What was given, and what is allowed, in one line."""


class UsageError(OptionError):
    """An option that does not exist, or one without its value: the usage helps.

    `complaints`: what else was wrong.
    """

    def __init__(self, text: str, complaints: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.complaints = complaints


def matching(given: str, names: Iterable[str]) -> tuple[list[str], str]:
    """The long options that may be meant, and, if not exactly one, what is wrong with that."""
    names = list(names)
    found = [given] if given in names else [name for name in names if name.startswith(given)]
    return found, "" if len(found) == 1 else "ambiguous" if found else "unknown"


def getopt_long(
    argv: Sequence[str], options: Iterable[Option], newer: Iterable[str] = ()
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Split `argv` into (long name, value or None) pairs and operands.

    `newer`: long names among the options that take no abbreviation away from the others, so that
    what was unique before they came stays valid. Raises UsageError.
    """
    shorts = {short: (name, value) for short, name, value, _ in options}
    longs = {name: value for _, name, value, _ in options}
    older = [name for name in longs if name not in newer]
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
            matches, fault = matching(given, older)
            if given in longs or not matches:
                matches, fault = matching(given, longs)
            if fault:
                raise UsageError(f"option {shown('--' + given)}: {fault}")
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


def read_level(text: str | None, before: int) -> int | None:
    """-v, -vv, -v3, --verbose=2; on stdin also the booleans that pcs writes. None: none of them."""
    if text is None:
        return before + 1
    word = text.strip().lower()
    if word and word.strip("v") == "":
        return before + 1 + len(word)  # -vvv arrives as -v with the value "vv"
    if word in ("yes", "true", "on", "y", "t"):
        return max(before, 1)
    if word in ("no", "false", "off", "n", "f", ""):
        return 0
    return min(int(word[:9]), 9) if word.isascii() and word.isdigit() else None


def metavar(name: str) -> str:
    """What stands for the value of this long option: FILE for key-file."""
    return name.rpartition("-")[2].upper()


def usage(program: str, operands: str, options: Iterable[Option]) -> str:
    """The help text."""
    lines = [f"Usage: {program} [options]{operands}", "", "Options:", ""]
    for short, name, takes, text in options:
        value = ("", f"={metavar(name)}", "[=LEVEL]")[takes]
        letter = f"-{short}, " if short else "    "
        lines.append(f"  {letter}--{name}{value}".ljust(32) + text)
    return "\n".join(lines) + "\n"
