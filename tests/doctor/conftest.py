# SPDX-License-Identifier: LGPL-2.1-or-later
"""Roots in which nothing is wrong, for faults to be planted in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.doctor import planted


@pytest.fixture(scope="session")
def _debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.debian(tmp_path_factory.mktemp("debian") / "root")


@pytest.fixture(scope="session")
def _rhel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.rhel(tmp_path_factory.mktemp("rhel") / "root")


@pytest.fixture
def healthy(_debian: Path, tmp_path: Path) -> Path:
    """Debian with kdump-tools, after install-sender with a key."""
    return Path(shutil.copytree(_debian, tmp_path / "root", symlinks=True))


@pytest.fixture
def healthy_rhel(_rhel: Path, tmp_path: Path) -> Path:
    """RHEL with kdump-utils and an image, as dracut makes it with the module of install-sender."""
    return Path(shutil.copytree(_rhel, tmp_path / "root", symlinks=True))
