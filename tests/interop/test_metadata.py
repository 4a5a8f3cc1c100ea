# SPDX-License-Identifier: LGPL-2.1-or-later
"""What our agent tells Pacemaker, pcs and crmsh about itself, beside what the stock one tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from tests.interop.lab import Lab, needs_root
from tests.interop.programs import Programs
from tests.support.programs import as_user


def metadata(lab: Lab, programs: Programs, given: str = "-o metadata") -> etree._Element:
    """Return the metadata that an agent prints."""
    agent = lab.start_given(programs, given)
    assert agent.status() == 0, str(agent)
    assert agent.errors == ""
    return etree.fromstring(agent.output.encode())


def parameters(document: etree._Element) -> dict[str | None, tuple[str | None, ...]]:
    """Return of each parameter what configuration tools go by: getopt, type, default, flags."""
    found: dict[str | None, tuple[str | None, ...]] = {}
    for parameter in document.findall("parameters/parameter"):
        getopt, content = parameter.find("getopt"), parameter.find("content")
        assert getopt is not None
        assert content is not None
        found[parameter.get("name")] = (
            getopt.get("mixed"),
            content.get("type"),
            content.get("default"),
            parameter.get("unique"),
            parameter.get("required"),
        )
    return found


def actions(document: etree._Element) -> list[list[tuple[object, object]]]:
    """Return the attributes of each advertised action."""
    return [list(action.attrib.items()) for action in document.findall("actions/action")]


@pytest.mark.parametrize("given", ["-o metadata", "action=metadata\n"])
@pytest.mark.slow
def test_metadata_follows_the_schema(
    lab: Lab, programs: Programs, schema: Path, given: str
) -> None:
    rules = etree.RelaxNG(etree.parse(schema))
    rules.assertValid(metadata(lab, programs, given))


@needs_root
@pytest.mark.slow
def test_metadata_is_the_same_for_an_unprivileged_user(lab: Lab, programs: Programs) -> None:
    of_nobody = metadata(lab, programs.through(*as_user()))
    assert etree.tostring(of_nobody) == etree.tostring(metadata(lab, programs))


@pytest.mark.slow
def test_name_and_actions_are_those_of_the_stock_agent(
    lab: Lab, stock: Programs, ours: Programs
) -> None:
    theirs, mine = metadata(lab, stock), metadata(lab, ours)
    assert mine.get("name") == theirs.get("name") == "fence_kdump"
    assert actions(mine) == actions(theirs)


def test_every_parameter_of_the_stock_agent_is_there_as_it_was(
    lab: Lab, stock: Programs, ours: Programs
) -> None:
    theirs, mine = parameters(metadata(lab, stock)), parameters(metadata(lab, ours))
    assert {name: mine.get(name) for name in theirs} == theirs


def test_no_parameter_is_required(lab: Lab, ours: Programs) -> None:
    # A required one that is not configured makes pcs refuse what it took for the stock agent.
    required = {
        name for name, traits in parameters(metadata(lab, ours)).items() if traits[-1] != "0"
    }
    assert required == set()
