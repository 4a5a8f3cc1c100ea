# SPDX-License-Identifier: LGPL-2.1-or-later
"""The part of the page about messages: how many were heard, and why others were not believed.

What may not be in this file: what a reason is (`kdumpfence.wire.REASONS`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from kdumpfence.daemon.formats import many
from kdumpfence.daemon.page.markup import fresh, number, table, text
from kdumpfence.daemon.page.view import Heard

#: Verdicts of which the page says more than that they are rejections.
HEARD, ASKED = "accepted", "question"

#: Reasons in plain words, and what to do where something can be done.
WORDS = {
    "stranger": "from an address that is no node's: list it if it is one",
    "unread": "dropped by the kernel: too much came at once",
    "crowded": "no room for another node of the networks: raise room",
    "short": "fewer than 8 bytes, or from this machine itself",
    "magic": "no fence_kdump message",
    "version": "of another version of the protocol",
    "malformed": "damaged: its lengths contradict each other",
    "checksum": "damaged on the way",
    "unsigned": "without a signature, which auth asks for",
    "key": "signed with a key that is not in the key file",
    "forged": "the signature is wrong",
    "replayed": "heard before, or a sender that was still to be asked",
}

_HEADS = ("Reason", "Messages", "In words")

#: Reasons in a table at most, as a daemon of another version may have others.
_MOST = 32


def total(listeners: Sequence[Heard]) -> Counter[str]:
    """What all of them counted together."""
    counts: Counter[str] = Counter()
    for one in listeners:
        if one.status is not None:
            counts.update(one.status.counts)
    return counts


def rejected(counts: Mapping[str, int]) -> dict[str, int]:
    """The reasons that occurred, the most frequent first."""
    found = {why: count for why, count in counts.items() if why not in (HEARD, ASKED) and count}
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0]))[:_MOST])


def messages(listeners: Sequence[Heard]) -> str:
    """The section."""
    counts = total(listeners)
    refused = rejected(counts)
    heard = f"{many(counts[HEARD], 'message', 'messages')} of nodes counted"
    said = f"<p>{heard}, {many(counts[ASKED], 'question', 'questions')} asked"
    said += f", {number(sum(refused.values()))} rejected." if refused else ", none rejected."
    rows = [
        (f"<code>{text(why, 20)}</code>", number(count), WORDS.get(why, "see kdumpfenced(8)"))
        for why, count in refused.items()
    ]
    return (
        '<section id="messages"><h2>Messages since the start</h2>\n'
        + fresh("counts", said + "</p>")
        + table("reasons", "Rejected messages by reason", _HEADS, rows, (1,))
        + "</section>\n"
    )
