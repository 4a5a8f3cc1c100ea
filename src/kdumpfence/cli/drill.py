# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence doctor --drill: the steps of a crash on purpose, and what is seen of it, as it comes.

With --json a line of JSON for each of them, which can be read while it goes on.
"""

from __future__ import annotations

import argparse
import json
import sys

from kdumpfence import signals
from kdumpfence.cli.install_options import open_root
from kdumpfence.doctor import drill, drill_course
from kdumpfence.doctor.drill_course import Course, Event, Verdict
from kdumpfence.doctor.drill_watch import Watch
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.text import one_line

#: If nothing can be watched at all.
_REFUSED = drill_course.EXIT_STATUS[drill_course.UNKNOWN]

_TEXTS = {
    drill_course.HEARD: "first message from {where}, {text}",
    drill_course.LEFT: "has left the cluster",
    drill_course.REQUESTED: "fencing requested ({text})",
    drill_course.ASKED: "{device} asked on {where}",
    drill_course.YES: "{device}: yes",
    drill_course.NO: "{device}: no ({text})",
    drill_course.FENCED: "fenced ({text}) by {where}",
    drill_course.FAILED: "fencing failed ({text})",
    drill_course.MOVED: "its resources run elsewhere",
    drill_course.SENDING: "still sends messages: its power is on",
    drill_course.DUMPED: "its dump has {text}",
    drill_course.BACK: "is back in the cluster",
}


def run(given: argparse.Namespace, seconds: int) -> int:
    """Print the steps, and watch; 0 fenced by kdump, 1 not, 2 could not be watched."""
    out = _Json() if given.json else _Text()
    with open_root(given) as root:
        machine = Machine(root, given.image)
        try:
            its = drill.target(machine, given.drill)
            out.plan(its, drill.plan(machine, its))
            watch = Watch(machine, its, out.event, _complain)
        except (drill.Refused, Unknown) as error:
            _complain(str(error))
            return _REFUSED
        return _watched(watch, out, seconds)


def _watched(watch: Watch, out: _Json | _Text, seconds: int) -> int:
    signals.install()
    timed_out, signal = False, 0
    try:
        out.begins(seconds)
        timed_out = not watch.run(seconds)
    except signals.Ended as ended:
        signal = ended.number if str(ended) != "SIGINT" else 0  # Ctrl-C is how one leaves it
    finally:
        watch.close()
    verdict = watch.course.verdict(timed_out)
    if watch.strangers and not any(one.kind == drill_course.HEARD for one in watch.course.events):
        _complain(
            f"messages came from {', '.join(watch.strangers[:5])}, which are no addresses of the "
            "node"
        )
    out.verdict(watch.course, verdict)
    return 128 + signal if signal else drill_course.EXIT_STATUS[verdict.how]


def text_of(event: Event) -> str:
    """An event for people."""
    its = event._replace(where=event.where or "an unknown node", device=event.device or "a device")
    return _TEXTS[event.kind].format(**its._asdict()).replace(" ()", "")


def _summary(course: Course) -> str:
    """Each step and when it came, seconds after the crash was noticed."""
    began = course.began or 0.0
    return ", ".join(f"{text_of(one)} {one.when - began:.1f} s" for one in course.in_order)


def _complain(text: str) -> None:
    print(f"kdumpfence: {one_line(text)}", file=sys.stderr, flush=True)


class _Text:
    """For people."""

    def __init__(self) -> None:
        self._node = ""
        self._began: float | None = None

    def plan(self, its: drill.Target, steps: list[drill.Step]) -> None:
        self._node = its.node
        print(f"A drill: crash {one_line(its.node)}. Nothing of this is done for you.\n")
        for line in drill.as_text(steps):
            print(one_line(line))

    def begins(self, seconds: int) -> None:
        print(
            f"\nWatching for {seconds} s at most, until {one_line(self._node)} was fenced and is "
            "back; Ctrl-C ends it.",
            flush=True,
        )

    def event(self, event: Event) -> None:
        if self._began is None:
            self._began = event.when
        print(f"{event.when - self._began:7.1f} s  {one_line(text_of(event))}", flush=True)

    def verdict(self, course: Course, verdict: Verdict) -> None:
        steps = f": {_summary(course)}" if course.events else ""
        print(one_line(f"{self._node}: {verdict.text}{steps}"), flush=True)


def as_object(event: Event) -> dict[str, object]:
    """An event for programs."""
    found = event._asdict()
    return {"event": found.pop("kind"), **found}


class _Json:
    """For programs: a line for each thing."""

    def __init__(self) -> None:
        self._node = ""

    def plan(self, its: drill.Target, steps: list[drill.Step]) -> None:
        self._node = its.node
        _line({"node": its.node, "plan": [one._asdict() for one in steps]})

    def begins(self, seconds: int) -> None:
        _line({"watching": seconds})

    def event(self, event: Event) -> None:
        _line(as_object(event))

    def verdict(self, course: Course, verdict: Verdict) -> None:
        began = course.began
        steps = [
            {**as_object(one), "after": round(one.when - (began or 0.0), 3)}
            for one in course.in_order
        ]
        _line(
            {
                "verdict": verdict.how,
                "text": verdict.text,
                "node": self._node,
                "began": began,
                "steps": steps,
            }
        )


def _line(thing: dict[str, object]) -> None:
    print(json.dumps(thing), flush=True)
