# SPDX-License-Identifier: GPL-2.0-or-later
"""Both cores and the type stub have the same interface; the chooser chooses."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import kdumpfence
from kdumpfence import _purewire
from tests.conftest import load_core

STUB = Path(_purewire.__file__).with_name("_kdumpwire.pyi")


def interface(module: ModuleType) -> dict[str, set[str]]:
    names = {}
    for name in dir(module):
        thing = getattr(module, name)
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        members = dir(thing) if isinstance(thing, type) else []
        names[name] = {member for member in members if not member.startswith("_")}
    return names


def test_both_cores_have_the_same_names() -> None:
    compiled, pure = load_core("compiled"), load_core("pure")
    assert interface(compiled) == interface(pure)
    assert compiled.REASONS == pure.REASONS


def test_the_stub_describes_what_the_pure_core_has() -> None:
    tree = ast.parse(STUB.read_text())
    described: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            described[node.name] = {
                item.name: ast.unparse(item.args)
                for item in node.body
                if isinstance(item, ast.FunctionDef)
            }
        elif isinstance(node, ast.FunctionDef):
            described[node.name] = {"": ast.unparse(node.args)}
    source = ast.parse(Path(_purewire.__file__).read_text())
    written: dict[str, dict[str, str]] = {}
    for node in source.body:
        if isinstance(node, ast.ClassDef):
            written[node.name] = {
                item.name: ast.unparse(item.args)
                for item in node.body
                if isinstance(item, ast.FunctionDef)
            }
        elif isinstance(node, ast.FunctionDef):
            written[node.name] = {"": ast.unparse(node.args)}
    for name, members in described.items():
        for member, arguments in members.items():
            assert written[name][member] == arguments, f"{name}.{member}"
    public = {name for name in written if not name.startswith("_")}
    assert public == set(described)


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("value", "chosen"), [("1", "pure"), ("yes", "pure")])
def test_the_environment_chooses_the_pure_core(value: str, chosen: str) -> None:
    code = "import kdumpfence; print(kdumpfence.IMPLEMENTATION)"
    assert run(code, KDUMPFENCE_PURE=value) == chosen


@pytest.mark.parametrize("first", ["import os", "pass"])
@pytest.mark.parametrize(("value", "chosen"), [("1", "pure"), ("0", "compiled")])
def test_it_does_so_whether_or_not_os_is_there_yet(value: str, chosen: str, first: str) -> None:
    load_core(chosen)
    source = str(STUB.parents[1])
    code = (
        f"import sys; sys.path.insert(0, {source!r}); {first}\n"
        "import kdumpfence; print(kdumpfence.IMPLEMENTATION)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"KDUMPFENCE_PURE": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == chosen


def test_a_program_may_choose_for_itself_before_the_import() -> None:
    code = (
        "import os; os.environ['KDUMPFENCE_PURE'] = '1'\n"
        "import kdumpfence; print(kdumpfence.IMPLEMENTATION)"
    )
    assert run(code, KDUMPFENCE_PURE="0") == "pure"


@pytest.mark.parametrize("value", ["", "0"])
def test_otherwise_the_compiled_core_is_chosen(value: str) -> None:
    load_core("compiled")
    code = "import kdumpfence; print(kdumpfence.IMPLEMENTATION)"
    assert run(code, KDUMPFENCE_PURE=value) == "compiled"


def test_a_compiled_core_that_cannot_be_loaded_falls_back_and_says_why() -> None:
    code = (
        "import sys; sys.modules['kdumpfence._kdumpwire'] = None\n"
        "from kdumpfence import wire; print(wire.IMPLEMENTATION, '|', wire.FALLBACK_REASON)"
    )
    chosen, _, why = run(code, KDUMPFENCE_PURE="0").partition(" | ")
    assert chosen == "pure"
    assert "_kdumpwire" in why


def test_the_public_names_exist_and_are_all() -> None:
    for name in kdumpfence.__all__:
        assert hasattr(kdumpfence, name)
    assert sorted(kdumpfence.__all__) == sorted(set(kdumpfence.__all__))
