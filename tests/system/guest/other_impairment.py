# SPDX-License-Identifier: LGPL-2.1-or-later
"""pytest plugin for control runs: whatever impairment a test asks for, netem gets another."""

from __future__ import annotations

import pytest

from tests.support.netlab import Impairment


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--instead", required=True, metavar="NETEM", help="arguments of tc's netem")


def pytest_configure(config: pytest.Config) -> None:
    arguments: list[str] = config.getoption("--instead").split()
    pytest.MonkeyPatch().setattr(Impairment, "netem", lambda _: arguments)
