# SPDX-License-Identifier: LGPL-2.1-or-later
"""The action off through a kdumpfenced, and a look at that for monitor and validate-all.

Only for `listener`: no port is opened here, and no right needed. It moves things between the way
there (`daemon_link`) and the decision (`daemon_word`), and comes back until the time is up whatever
happens to the daemon meanwhile.
"""

from __future__ import annotations

import posix
import time

from kdumpfence.agent.asking import questions
from kdumpfence.agent.daemon_link import Link, LinkError
from kdumpfence.agent.daemon_word import Heard, Passed, WordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdumpfence.agent.decision import Signatures
    from kdumpfence.agent.options import AgentOptions
    from kdumpfence.log import Report

#: Seconds between two questions to the daemon, and where there is more to be had at once.
INTERVAL = 0.2
HURRY = 0.01
AT_ONCE = 5

#: Seconds for one answer: a daemon that writes a hundred thousand nodes down is still quicker.
PATIENCE = 5.0

#: The last question is asked so many seconds before the time is up, so that its answer counts.
LAST = 0.1

#: Seconds that monitor and validate-all wait.
LOOK = 2.0

#: Different troubles that are told while it waits, beside the last one, which is told at the end.
MOST_TROUBLES = 16


def names_of(options: AgentOptions) -> list[str]:
    """All names and addresses of the node: one of them is what the daemon calls it."""
    return list(dict.fromkeys((*options.called, *options.names)))


class Waiting:
    """One wait for one node, through the daemon at `options.listener`."""

    def __init__(
        self, options: AgentOptions, report: Report, signatures: Signatures | None
    ) -> None:
        self._options = options
        self._report = report
        self._link = Link(options.listener)
        names = names_of(options)
        nonce = posix.urandom(16)
        self._judge: Heard | Passed
        if signatures is None:
            self._judge = Heard(names, nonce.hex())
        else:
            asked = questions(nonce, names, signatures)
            self._judge = Passed(names, signatures, asked, nonce, self._ignore)
        self._told: set[str] = set()
        self._trouble = "it was not asked"
        self._announced = False
        self._asked = 0

    def _ignore(self, text: str) -> None:
        self._report.debug(f"ignoring {text} (auth={self._options.auth})")

    def close(self) -> None:
        """Hang up."""
        self._link.close()

    @property
    def proof(self) -> str:
        """What the yes is for; "" if there is none."""
        return self._judge.proof

    def ask(self, until: float) -> None:
        """Ask the daemon once, and take what it answers, until then (time.monotonic)."""
        judge = self._judge
        try:
            question = judge.question(time.monotonic())
            self._asked += 1
            judge.answered(self._link.ask(question, until), time.monotonic())
            self._trouble = judge.problem
        except (LinkError, WordError) as error:
            self._link.close()
            self._trouble = str(error)

    def until(self, deadline: float) -> bool:
        """Wait for the proof until `deadline`."""
        judge, hurried = self._judge, 0
        while True:
            now = time.monotonic()
            if now >= deadline:
                return False
            self.ask(min(deadline, now + PATIENCE))
            if judge.proof:
                return True
            self._tell()
            hurried = hurried + 1 if judge.hurry and not self._trouble else 0
            pause = HURRY if 0 < hurried <= AT_ONCE else INTERVAL
            now = time.monotonic()
            # One more just before the end, and none so late that its answer could not come.
            last = deadline - LAST
            wake = min(now + pause, last) if now < last else deadline
            time.sleep(max(0.0, min(wake, deadline) - now))

    def _tell(self) -> None:
        """Say what is new: that it cannot hear, or that it does."""
        trouble = self._trouble
        if trouble:
            if trouble not in self._told and len(self._told) < MOST_TROUBLES:
                self._told.add(trouble)
                self._report.error(f"{self._options.listener}: {trouble}; will try again")
        elif self._judge.waits and not self._announced:
            self._announced = True
            self._report.debug(f"waiting for {self._options.listener} to hear '{self._judge.node}'")

    def explain(self) -> None:
        """Why there is no proof."""
        where, judge = self._options.listener, self._judge
        if self._trouble:
            self._report.error(f"{where}: {self._trouble}")
        elif not judge.waits:
            self._report.error(f"{where}: it has not read yet what came before the wait")
        elif isinstance(judge, Heard) and judge.before is not None:
            ago = f"{judge.before:.1f} s before this wait"
            self._report.error(f"{where}: it heard '{judge.node}' last {ago}, which is no proof")
        elif isinstance(judge, Passed):
            how = "has been heard there" if judge.dumping else "has not been heard there"
            self._report.debug(f"{where}: '{judge.node}' {how}, answers: {judge.answers}")
        if isinstance(judge, Passed):
            for text in judge.watch.ignored.values():
                self._report.error(f"not believed: {text}")


def off(
    options: AgentOptions, report: Report, signatures: Signatures | None, started: float
) -> bool:
    """Whether the daemon heard the node while this waited."""
    waiting = Waiting(options, report, signatures)
    try:
        if waiting.until(started + options.timeout):
            how = "heard" if signatures is None else "received signed answer of"
            by = "" if signatures is None else ", passed on"
            report.debug(f"{how} {waiting.proof}{by} by {options.listener}")
            return True
        report.debug(f"timeout after {options.timeout} seconds")
        waiting.explain()
        return False
    finally:
        waiting.close()


def look(options: AgentOptions, report: Report, names: Sequence[str]) -> str:
    """Why the daemon cannot hear the node with these names; "" if it can, as far as is known.

    Without names only whether it answers at all.
    """
    link, judge = Link(options.listener), Heard(names, posix.urandom(16).hex())
    until = time.monotonic() + LOOK
    try:
        question = judge.question(time.monotonic())
        judge.answered(link.ask(question, until), time.monotonic())
    except (LinkError, WordError) as error:
        return f"{options.listener}: {error}"
    finally:
        link.close()
    if judge.problem:
        return f"{options.listener}: {judge.problem}"
    if options.auth != "none" and not judge.checks_signatures:
        return f'{options.listener}: it checks no signatures: give that kdumpfenced auth = "sha256"'
    report.debug(f"{options.listener}: a kdumpfenced answers there")
    return ""
