# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the doctor found, in Prometheus' text format: behind `kdumpfence doctor --watch`.

A state is one series for each of STATES, of which one is 1, as client libraries write an
enumeration: rules can name a state, and sums count nodes, which numbers for states would not allow.
Labels are names that stand in the source (checks.PARTS, and the checks of Findings), never what was
found, so their number is bounded; what was found is for the journal.

What may not be in this file: where it is written (textfile.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kdumpfence.doctor.finding import STATES, Finding, worst
from kdumpfence.text import one_line

_Series = Iterable[tuple[dict[str, str], float]]


def page(found: dict[str, list[Finding]], when: float, took: float) -> bytes:
    """All metrics of a run that began at `when` (Unix time) and took so many seconds."""
    findings = [one for some in found.values() for one in some]
    by_check: dict[tuple[str, str], list[Finding]] = {}
    for part, some in found.items():
        for one in some:
            by_check.setdefault((part, one.check), []).append(one)
    families: tuple[tuple[str, str, _Series], ...] = (
        (
            "check_state",
            "1 for the state of a check, the worst of its findings",
            (
                ({"part": part, "check": check, **label}, value)
                for (part, check), some in by_check.items()
                for label, value in _one_of(worst(some))
            ),
        ),
        ("state", "1 for the worst state of all findings", _one_of(worst(findings))),
        (
            "findings",
            "Findings by state",
            (({"state": one}, [each.state for each in findings].count(one)) for one in STATES),
        ),
        ("last_run_timestamp_seconds", "Start of the run that found this", [({}, round(when, 3))]),
        ("last_run_duration_seconds", "How long that run took", [({}, round(took, 3))]),
    )
    lines = [line for family in families for line in _family(*family)]
    return "".join(f"{line}\n" for line in lines).encode()


def _one_of(state: str) -> Iterator[tuple[dict[str, str], float]]:
    return (({"state": one}, int(one == state)) for one in STATES)


def _family(name: str, text: str, series: _Series) -> Iterator[str]:
    name = f"kdumpfence_doctor_{name}"
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"
    for labels, value in series:
        pairs = ",".join(f'{label}="{_escaped(what)}"' for label, what in labels.items())
        yield f"{name}{{{pairs}}} {value!r}" if pairs else f"{name} {value!r}"


def _escaped(text: str) -> str:
    """The value of a label, as it stands between quotes."""
    return one_line(text).replace("\\", r"\\").replace('"', r"\"")
