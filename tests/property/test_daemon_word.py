# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever a daemon answers is taken or a `WordError`, and a yes only if all of it fits."""

from __future__ import annotations

import contextlib
import math
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpfence import keys
from kdumpfence.agent.asking import questions
from kdumpfence.agent.daemon_word import Heard, Passed, WordError
from kdumpfence.agent.decision import Signatures
from tests.support import packets
from tests.support.answerer import CURRENT, packet

pytestmark = pytest.mark.slow

WAIT, LIFE = "this wait", "a life"

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
said = st.fixed_dictionaries(
    {},
    optional={
        "age": st.floats(-1, 5) | anything,
        "messages": st.integers(-1, 3) | anything,
        "addresses": st.lists(st.text(max_size=8), max_size=3) | anything,
    },
)
answers = st.fixed_dictionaries(
    {},
    optional={
        "wait": st.sampled_from([WAIT, "another"]) | anything,
        "life": st.sampled_from([LIFE, "another"]) | anything,
        "node": st.sampled_from(["node1", "node2", None]) | anything,
        "why": anything,
        "auth": st.sampled_from(["none", "sha256"]) | anything,
        "begin": st.sampled_from([7.5]) | anything,
        "mark": st.sampled_from([12.5, 13.5]) | anything,
        "heard": said | anything,
        "before": anything,
    },
)


@given(st.lists(answers, max_size=8), st.booleans())
def test_nothing_but_what_fits_is_a_yes(given: list[dict[str, Any]], begun: bool) -> None:
    judge = Heard(["node1"], WAIT)
    now = 100.0
    if begun:
        judge.question(now)
        judge.answered({"wait": WAIT, "life": LIFE, "node": "node1", "mark": 12.5}, now)
    for answer in given:
        now += 0.5
        question = judge.question(now)
        before = judge.waits
        with contextlib.suppress(WordError):
            judge.answered(answer, now)
        if judge.proof:
            heard = answer["heard"]
            assert before
            assert answer["wait"] == question["wait"]
            assert answer["life"] == question["life"]
            assert answer["mark"] == question["mark"]
            assert answer["node"] == judge.node
            assert math.isfinite(heard["age"])
            assert heard["age"] >= 0
            assert heard["messages"] >= 1
            return


NONCE = os.urandom(16)
signed = st.sampled_from([packet("status", NONCE), packet("alive", NONCE), packet("status")])
brought = st.fixed_dictionaries(
    {},
    optional={
        "address": st.sampled_from(["192.0.2.1", "127.0.0.1", "fe80::1%lo", ""]) | anything,
        "packet": st.binary(max_size=160).map(bytes.hex) | signed.map(bytes.hex) | anything,
    },
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "node": st.sampled_from(["node1", "node2", None]) | anything,
                "answers": st.lists(brought, max_size=4) | anything,
                "sent": anything,
                "dumping": anything,
            },
        ),
        max_size=4,
    )
)
def test_nothing_but_the_nodes_own_answer_is_a_yes(given: list[dict[str, Any]]) -> None:
    signatures = Signatures(keys.Keys((packets.key_id(CURRENT), CURRENT)), ("node1",))
    judge = Passed(["node1"], signatures, questions(NONCE, (), signatures), NONCE)
    for answer in given:
        judge.question(0.0)
        with contextlib.suppress(WordError):
            judge.answered(answer, 0.0)
    answer_of_the_node = packet("status", NONCE).hex()
    assert not judge.proof or answer_of_the_node in str(given).lower()
