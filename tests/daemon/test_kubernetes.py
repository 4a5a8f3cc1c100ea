# SPDX-License-Identifier: LGPL-2.1-or-later
"""The example for Kubernetes agrees with the daemon; `make lint` holds it against the schemas."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

from kdumpfence.daemon.settings import DEFAULT_PATH, Settings
from kdumpfence.daemon.settings_file import load
from tests.support.sources import ROOT

FOLDER = ROOT / "packaging/container"
MANIFEST = (FOLDER / "kubernetes.yaml").read_text()
CONTAINERFILE = (FOLDER / "Containerfile").read_text()


def settings(folder: Path) -> Settings:
    """Those of the manifest's ConfigMap, as the daemon reads them."""
    (block,) = re.findall(r"^  kdumpfenced\.toml: \|\n((?:    .*\n|\n)+)", MANIFEST, re.MULTILINE)
    file = folder / "kdumpfenced.toml"
    file.write_text(textwrap.dedent(block))
    return load(str(file))


def said(key: str, text: str = MANIFEST) -> set[str]:
    """All values that a key has in the manifest."""
    return set(re.findall(rf"^[ -]*{key}: (.*)$", text, re.MULTILINE))


def test_the_daemon_takes_the_settings_and_finds_everything_where_it_is_mounted(
    tmp_path: Path,
) -> None:
    found = settings(tmp_path)
    assert found.auth == "sha256"
    assert {str(found.port)} == said("containerPort") == said("hostPort")
    mounted = said("mountPath")
    for path in (DEFAULT_PATH, found.control_path, found.history_path):
        assert str(Path(path).parent) in mounted
    assert said("value") <= mounted  # CREDENTIALS_DIRECTORY


def test_manifest_and_image_agree() -> None:
    user = "7410"
    assert f"\nUSER {user}:{user}\n" in CONTAINERFILE
    assert {user} == said("runAsUser") == said("runAsGroup") == said("fsGroup")
    (asked,) = (json.loads(command) for command in said("command"))
    (checked,) = re.findall(r"^HEALTHCHECK .* CMD (.*)$", CONTAINERFILE, re.MULTILINE)
    assert json.loads(checked) == asked
