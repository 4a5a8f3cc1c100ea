"""What every test of this folder starts from: a lab with two hosts, and our two programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from kdumpfence.install import native_sender
from tests.support.netlab import Host, Lab, why_not
from tests.system.network.programs import SCRIPTS, Programs, installed_cores


def cannot_run(reason: str) -> NoReturn:
    """Skip a test on somebody's machine; where it is meant to run, its absence is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def obstacle() -> str | None:
    return why_not()


@pytest.fixture
def lab(obstacle: str | None) -> Iterator[Lab]:
    if obstacle is not None:
        cannot_run(obstacle)
    with Lab() as lab:
        yield lab


@pytest.fixture
def node(lab: Lab) -> Host:
    """Boot the host whose kernel has crashed."""
    return lab.host("node1")


@pytest.fixture
def survivor(lab: Lab) -> Host:
    """Boot the host that wants to know whether the node is dumping."""
    return lab.host("survivor")


@pytest.fixture(scope="session")
def cores() -> set[str]:
    return installed_cores()


# And, where it matters, the same with "-no_raw".
@pytest.fixture(params=["compiled", "pure", "native"])
def programs(
    request: pytest.FixtureRequest, cores: set[str], monkeypatch: pytest.MonkeyPatch
) -> Programs:
    for name in ("fence_kdump", "fence_kdump_send"):
        if not (SCRIPTS / name).exists():
            cannot_run(f"{SCRIPTS / name} is not installed")
    form, _, no_raw = request.param.partition("-")
    if form == "native":
        try:
            native_sender.find()
        except native_sender.NotBuilt as error:
            cannot_run(str(error))
    elif form not in cores:
        pytest.skip(f"the {form} core is not installed")
    monkeypatch.delenv("KDUMPFENCE_PURE", raising=False)
    return Programs(form, raw=not no_raw)
