# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is wrong is logged once, when it begins, and told as long as it lasts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kdumpfence.daemon import health
from kdumpfence.listener.listener import Snapshot


def seen(**changes: Any) -> Snapshot:
    """What a Listener may know."""
    return Snapshot(1.0, [], 0, [], {}, [], [])._replace(**changes)


def test_each_trouble_is_logged_once_and_told_as_long_as_it_lasts() -> None:
    said: list[str] = []
    journal: Any = SimpleNamespace(say=lambda _, text: said.append(text))
    recorder: Any = SimpleNamespace(trouble="")
    well = health.Health(journal, recorder)
    for _ in range(3):
        well.look(seen(shared=["192.0.2.1"], own=["192.0.2.2", "::2"]))
    assert said == [
        "192.0.2.1 belongs to several nodes; ignoring it",
        "192.0.2.2, ::2 are addresses of this machine; ignoring them",
    ]
    said.clear()
    # A process that was stopped looks deaf until it has read again: only the second look counts.
    for deaf in ("late", "", "late", "late", "late"):
        well.look(seen(deaf=deaf))
    assert (said, well.trouble()) == (["messages may be missed: late"], "late")
    recorder.trouble = "full"
    well.settings_refused = True
    assert well.troubles()[:2] == ["late", "history: full"]
    assert len(well.troubles()) == 3
    for _ in range(2):
        well.look(seen())
    assert (said[1:], well.trouble()) == (["messages are heard again"], "history: full")


def test_that_another_node_is_asked_for_is_logged_once_whoever_that_is() -> None:
    said: list[str] = []
    journal: Any = SimpleNamespace(say=lambda _, text: said.append(text))
    well = health.Health(journal, SimpleNamespace(trouble=""))  # type: ignore[arg-type]
    for name in ("", "node2", "node3", "node2"):
        well.look(seen(asked_for=name, answers_as="node1"))
    assert said == [
        "asked for node 'node2', but this one answers as 'node1': set node if it is the same"
    ]
    well.look(seen())  # the settings were read again
    well.look(seen(asked_for="node3"))
    assert len(said) == 2
    assert well.troubles() == []


def test_a_main_loop_that_stands_still_is_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder: Any = SimpleNamespace(trouble="full")
    well = health.Health(SimpleNamespace(), recorder)  # type: ignore[arg-type]
    monkeypatch.setattr(health, "STUCK_AFTER", -1.0)
    assert "stuck" in well.trouble()
