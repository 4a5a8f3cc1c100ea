# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the agent says of itself; tests/interop checks it against the schema."""

from __future__ import annotations

from xml.etree import ElementTree

from kdumpfence.agent.metadata import METADATA

TREE = ElementTree.fromstring(METADATA)
PARAMETERS = {parameter.get("name"): parameter for parameter in TREE.iter("parameter")}


def test_the_actions_are_the_stock_agents() -> None:
    actions = [action.get("name") for action in TREE.iter("action")]
    assert actions == ["off", "monitor", "metadata", "validate-all"]


def test_everything_is_described_in_ascii() -> None:
    assert METADATA.isascii()
    for parameter in PARAMETERS.values():
        assert len(parameter.findtext("shortdesc", "")) > 10
    assert len(TREE.findtext("longdesc", "")) > 100
