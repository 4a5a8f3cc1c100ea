# SPDX-License-Identifier: LGPL-2.1-or-later
"""The decision where a kdumpfenced hears for this agent: what its word is worth.

Plain objects without sockets and name service: they are told what the daemon answered and what time
it is, and say what to ask next, and yes. Everything that decides over a fencing through a daemon
must live here, in this file; the agent's own hearing is in `decision`.

Without signatures (`Heard`) the daemon is believed that it heard the node, if it says so of this
wait: behind a mark that it gave this agent earlier in the same life, for the same node, with an age
that does not reach back before the wait. It has to repeat what this wait is called, so neither a
store of answers in between nor an answer to somebody else is one.

With signatures (`Passed`) nothing of what it says is believed. It passes on a question with the
nonce of this wait, and what it brings back counts only if the node's key signed it, as if the
node had answered here (`decision.Watch`).
"""

from __future__ import annotations

import math

from kdumpfence.addresses import Address, LookUpError, literal
from kdumpfence.agent.decision import Signatures, Watch
from kdumpfence.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: Answers that are looked at a time.
MOST_ANSWERS = 16

#: Characters of what a daemon says that are repeated.
_MOST_SAID = 200


class WordError(Exception):
    """What the daemon said is worth nothing; the text says why in one line."""


class Heard:
    """Waits until the daemon has heard the node with these names and addresses.

    `wait`: what this wait is called, which nobody else can know.
    """

    def __init__(self, names: Sequence[str], wait: str) -> None:
        #: What the yes is for; "" as long as there is none.
        self.proof = ""
        #: Why the daemon cannot hear the node; "" if nothing says so.
        self.problem = ""
        #: What the daemon calls the node; "" if that is not known.
        self.node = ""
        #: How many seconds before the wait the daemon heard the node last; None: it does not say.
        self.before: float | None = None
        #: Whether the daemon says that it believes signed messages alone.
        self.checks_signatures = False
        #: Whether there is more to be had at once.
        self.hurry = True
        self._names = list(names)
        self._wait = wait
        self._life = ""
        self._begin: float | None = None
        self._mark: float | None = None
        #: When this agent began to ask for the mark, by its own clock.
        self._since = 0.0

    @property
    def waits(self) -> bool:
        """Whether the daemon has given a mark, and is asked what came behind it."""
        return self._mark is not None

    def question(self, now: float) -> dict[str, object]:
        """What to ask; `now` in seconds."""
        question: dict[str, object] = {"ask": "heard", "nodes": self._names, "wait": self._wait}
        if self._mark is not None:
            question.update(life=self._life, mark=self._mark)
        elif self._begin is not None:
            question.update(life=self._life, begin=self._begin)
        else:
            self._since = now
        return question

    def answered(self, answer: Mapping[str, object], now: float) -> None:
        """The answer to the last question. WordError if it is worth nothing."""
        self.hurry = False
        if answer.get("wait") != self._wait:
            raise WordError("its answer is not to this question")
        life = answer.get("life")
        if not isinstance(life, str) or not 1 <= len(life) <= 64:
            raise WordError("its answer does not say of which life of the daemon it is")
        node = _node(answer)
        self.problem = "" if node or not self._names else _why(answer)
        self.checks_signatures = answer.get("auth") == "sha256"
        if life != self._life or node != self.node:
            # It was restarted, or has other settings: what was so before says nothing any more.
            restarted = bool(self._life)
            self._life, self.node = life, node
            self._begin = self._mark = None
            if restarted:
                self.hurry = bool(node)
                return
        if not node:
            return
        mark = _number(answer, "mark")
        if self._mark is None:
            self._begin = _number(answer, "begin")
            self._mark = mark
            if self._begin is None and mark is None:
                raise WordError("its answer has no mark")
            self.hurry = mark is None
        elif mark != self._mark:
            self._begin = self._mark = None
            raise WordError("its answer is about another mark")
        elif answer.get("heard") is not None:
            self._believe(answer["heard"], now)
        else:
            age = _number(answer, "before")
            self.before = None if age is None else max(0.0, self._since - (now - age))

    def _believe(self, heard: object, now: float) -> None:
        age = _number(heard, "age") if isinstance(heard, dict) else None
        messages = heard.get("messages") if isinstance(heard, dict) else None
        if age is None or not isinstance(messages, int) or messages < 1:
            raise WordError("its answer does not say when it heard the node")
        if not 0 <= age <= now - self._since:
            raise WordError(f"it heard the node {age:.1f} s ago, which was before this wait")
        addresses = heard.get("addresses") if isinstance(heard, dict) else ()
        at = ", ".join(map(str, addresses[:8])) if isinstance(addresses, list) else ""
        self.proof = f"{shown(self.node)} from {at[:_MOST_SAID]}"


class Passed:
    """Waits until the daemon has brought back an answer that the node signed for this wait.

    `questions`: signed, one for each of the names that `signatures` has, in their order. `names`:
    all names and addresses of the node. `ignores` is told, once for each reason, what is not
    believed.
    """

    def __init__(
        self,
        names: Sequence[str],
        signatures: Signatures,
        questions: Sequence[bytes],
        nonce: bytes,
        ignores: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.proof = ""
        self.problem = ""
        self.node = ""
        self.hurry = False
        #: How many answers it brought back, whether they are believed or not.
        self.answers = 0
        #: Whether the daemon has heard the node, as it says.
        self.dumping = False
        #: What the answers are worth.
        self.watch = Watch(
            names, nonce=nonce, called=signatures.names, signatures=signatures, ignores=ignores
        )
        for name in names:
            self.watch.names[name] = tuple(_literal(name))
        self._names = list(names)
        self._questions = dict(zip(signatures.names, questions))
        self._next = 0

    @property
    def waits(self) -> bool:
        """Whether the daemon passes questions on to the node."""
        return bool(self.node)

    def question(self, _: float) -> dict[str, object]:
        """What to ask."""
        # By each name in turns, until it says what it calls the node.
        name = self.node or list(self._questions)[self._next % len(self._questions)]
        self._next += not self.node
        return {"ask": "question", "nodes": self._names, "packet": self._questions[name].hex()}

    def answered(self, answer: Mapping[str, object], now: float) -> None:
        """The answer to the last question. WordError if it is worth nothing."""
        self.hurry = False
        node, self.node = _node(answer), ""
        if not node:
            self.problem = _why(answer)
        elif node not in self._questions:
            self.problem = f"it calls the node {shown(node)}, which is none of its names here"
        else:
            self.problem, self.node = "", node
        self.dumping = answer.get("dumping") is True
        brought = answer.get("answers", [])
        if not isinstance(brought, list):
            raise WordError("its answers are no list")
        for one in brought[:MOST_ANSWERS]:
            address, data = _packet(one)
            self.answers += 1
            self.watch.answered(address, data, now)
        self.hurry = bool(self.node) and answer.get("sent") not in (0, None)
        signed = self.watch.signed
        if self.watch.proof is not None and signed is not None:
            self.proof = f"'{signed.name}' from {self.watch.proof}, key {signed.key_id:08x}"


def _node(answer: Mapping[str, object]) -> str:
    """What the daemon calls the node; "" if it has none."""
    node = answer.get("node")
    if node is not None and (not isinstance(node, str) or not 1 <= len(node) <= 255):
        raise WordError("its answer names no node")
    return node or ""


def _why(answer: Mapping[str, object]) -> str:
    why = answer.get("why")
    return why[:_MOST_SAID] if isinstance(why, str) and why else "it does not know the node"


def _number(answer: Mapping[str, object], name: str) -> float | None:
    value = answer.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _literal(name: str) -> Iterable[Address]:
    try:
        return literal(name, 0) or ()
    except LookUpError:
        return ()


def _packet(one: object) -> tuple[Address, bytes]:
    """An answer that was brought back. WordError if it is none."""
    if isinstance(one, dict):
        address, packet = one.get("address"), one.get("packet")
        if isinstance(address, str) and isinstance(packet, str) and len(packet) <= 1024:
            found = list(_literal(address[:64]))
            try:
                return found[0] if found else Address(bytes(4)), bytes.fromhex(packet)
            except ValueError:
                pass
    raise WordError("its answers are no packets")
