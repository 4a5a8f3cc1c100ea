# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced(8) says of the status page what is so."""

from __future__ import annotations

import re

import pytest

from kdumpfence.daemon.page import html, site, view
from kdumpfence.database import overview
from tests.docs import manpage

SCRIPT = (site.FOLDER / "status.js").read_text()


@pytest.mark.parametrize(
    ("real", "said", "sentence"),
    [
        (view.MOST_PAST, 1000, "how long the last thousand dumps took"),
        (view.ROWS, 100, "the 100 dumps that began last"),
        (view.PAST_ROWS, 50, "the 50 that ended last"),
        (overview.DUMPS, 200, "the newest 200 dumps under way that only others hear"),
        (site.KEEP, 1, "A page is made once a second at most"),
        (site.SHARE, 0.1, "all pages together get a tenth of a processor"),
        (html.RELOAD, 10, "Without scripts it loads the page again every ten seconds"),
        (re.findall(r"EVERY = (\d+);", SCRIPT), ["2000"], "renews the page every two seconds"),
    ],
)
def test_the_numbers_are_the_real_ones(real: object, said: object, sentence: str) -> None:
    assert real == said
    assert sentence in manpage.whole("kdumpfenced")
