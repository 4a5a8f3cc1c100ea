# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads our man pages, as far as their roff goes: sections, headings and plain text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(page.stem for page in DOCS.glob("*.8"))

_ESCAPES = {r"\-": "-", r"\(lq": '"', r"\(rq": '"', r"\(aq": "'", r"\(bu": "*", r"\e": "\\"}
_ALTERNATING = {"BR", "RB", "BI", "IB", "IR", "RI"}


def unescape(text: str) -> str:
    """Return the text without font changes and with its special characters."""
    text = re.sub(r"\\f.", "", text)
    return re.sub(r"\\(\(..|.)", lambda match: _ESCAPES[match[0]], text)


def arguments(line: str) -> list[str]:
    """Return the arguments of a macro line; quotes hold together what has blanks in it."""
    words = re.findall(r'"([^"]*)"|(\S+)', line.partition(" ")[2])
    return [quoted or bare for quoted, bare in words]


@dataclass
class Entry:
    """One paragraph with a heading (.TP): its heading in pieces, and the text below it."""

    bold: list[str]  # what is written there literally
    heading: str
    text: str = ""


@dataclass
class Section:
    """One section: its entries, its subsections' names, all its text and its examples."""

    text: str = ""
    entries: list[Entry] = field(default_factory=list)
    subsections: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)


def read(program: str) -> dict[str, Section]:
    """Return the sections of a page by their names."""
    sections: dict[str, Section] = {}
    section = Section()
    awaits_heading = False
    in_example = False
    for line in (DOCS / f"{program}.8").read_text().splitlines():
        if line.startswith(('.\\"', "'\\\"")):
            continue
        macro = line[1:].partition(" ")[0] if line.startswith(".") else ""
        if macro == "SH":
            section = sections.setdefault(line.partition(" ")[2], Section())
            continue
        if macro == "SS":
            section.subsections.append(line.partition(" ")[2])
        if macro == "TP":
            awaits_heading = True
            continue
        if macro == "nf":
            section.examples.append("")
        in_example = macro == "nf" or (in_example and macro != "fi")
        if macro in _ALTERNATING:
            pieces = [unescape(piece) for piece in arguments(line)]
            bold = [piece for piece, font in zip(pieces, macro * len(pieces)) if font == "B"]
            text = "".join(pieces)
        else:
            text = unescape(line.partition(" ")[2] if macro else line)
            bold = [text] if macro == "B" else []
        if in_example and not macro:
            section.examples[-1] += text + "\n"
        if awaits_heading:
            awaits_heading = False
            section.entries.append(Entry(bold, text))
        elif section.entries:
            section.entries[-1].text += text + "\n"
        section.text += text + "\n"
    return sections


def entries(program: str, section: str) -> dict[str, str]:
    """Return the texts of a section's entries, each in one line, by their headings."""
    return {entry.heading: " ".join(entry.text.split()) for entry in read(program)[section].entries}


def whole(program: str) -> str:
    """Return all text of a page in one line."""
    return " ".join(" ".join(section.text.split()) for section in read(program).values())
