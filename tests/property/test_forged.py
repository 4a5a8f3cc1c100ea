# SPDX-License-Identifier: LGPL-2.1-or-later
"""A few thousand of the forgeries of which `make forged` sends a million."""

from __future__ import annotations

import pytest

from tests.conftest import CORES, load_core
from tests.support.programs import sender
from tools.forged import FORMS_OF, run

#: All bits and lengths in both byte orders.
NUMBER = 12_000

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("target", "form"), [(target, form) for target, forms in FORMS_OF.items() for form in forms]
)
def test_no_forgery_is_believed_and_the_node_is_all_the_same(target: str, form: str) -> None:
    if form in CORES:
        load_core(form)
    else:
        sender(form)
    outcome = run(target, form, NUMBER)
    assert outcome.complaint == ""
    assert sum(outcome.sent.values()) == NUMBER
    assert outcome.sent["one bit flipped"] > 2 * 8 * 152
