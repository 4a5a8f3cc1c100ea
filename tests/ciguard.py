# SPDX-License-Identifier: LGPL-2.1-or-later
"""pytest plugin: with CI=true a test that cannot run has failed.

A skip is a kindness to somebody whose machine lacks something. In CI it would be a hole that
nobody sees, so there it becomes a failure, whoever skipped and however: a mark, a fixture, a
missing module, a whole file. The few tests that may skip all the same stand by name in
`ci_may_skip` in pyproject.toml.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Generator
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("ci_may_skip", "node ids (with * and ?) that may skip with CI=true", "linelist")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI", "").lower() == "true":
        config.pluginmanager.register(Guard(config.getini("ci_may_skip")), "ciguard")


class Guard:
    """Turns skips into failures; only there with CI=true."""

    def __init__(self, may_skip: list[str]) -> None:
        self.may_skip = may_skip

    def judge(self, report: Report) -> Report:
        allowed = any(fnmatch.fnmatchcase(report.nodeid, name) for name in self.may_skip)
        if report.skipped and not hasattr(report, "wasxfail") and not allowed:
            report.outcome = "failed"
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.longrepr = f"CI=true: everything has to run, but: {why}"
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        return self.judge((yield))

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self,
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        return self.judge((yield))
