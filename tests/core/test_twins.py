# SPDX-License-Identifier: LGPL-2.1-or-later
"""Both cores and the type stub have the same interface; the chooser chooses."""

from __future__ import annotations

import ast
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


def signatures(path: Path) -> dict[str, dict[str, str]]:
    """The arguments of all methods of a module's classes, and of its functions, as written."""
    written: dict[str, dict[str, str]] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            written[node.name] = {item.name: ast.unparse(item.args) for item in methods}
        elif isinstance(node, ast.FunctionDef):
            written[node.name] = {"": ast.unparse(node.args)}
    return written


def test_the_stub_describes_what_the_pure_core_has() -> None:
    described, written = signatures(STUB), signatures(Path(_purewire.__file__))
    for name, members in described.items():
        for member, arguments in members.items():
            assert written[name][member] == arguments, f"{name}.{member}"
    assert {name for name in written if not name.startswith("_")} == set(described)


def run(code: str, value: str) -> str:
    """What this program prints with that value of KDUMPFENCE_PURE."""
    path = f"import sys; sys.path.insert(0, {str(STUB.parents[1])!r})\n"
    done = subprocess.run(
        # Without site, which would have imported os.
        [sys.executable, "-S", "-c", path + code],
        env={"KDUMPFENCE_PURE": value},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("before", ["", "import os\n"])
@pytest.mark.parametrize(
    ("value", "chosen"), [("1", "pure"), ("yes", "pure"), ("", "compiled"), ("0", "compiled")]
)
def test_the_environment_chooses_the_core(value: str, chosen: str, before: str) -> None:
    load_core(chosen)
    assert run(f"{before}import kdumpfence; print(kdumpfence.IMPLEMENTATION)", value) == chosen


def test_a_program_may_choose_for_itself_before_the_import() -> None:
    code = (
        "import os; os.environ['KDUMPFENCE_PURE'] = '1'\n"
        "import kdumpfence; print(kdumpfence.IMPLEMENTATION)"
    )
    assert run(code, "0") == "pure"


def test_a_compiled_core_that_cannot_be_loaded_falls_back_and_says_why() -> None:
    code = (
        "sys.modules['kdumpfence._kdumpwire'] = None\n"
        "from kdumpfence import wire; print(wire.IMPLEMENTATION, '|', wire.FALLBACK_REASON)"
    )
    chosen, _, why = run(code, "0").partition(" | ")
    assert chosen == "pure"
    assert "_kdumpwire" in why


def test_the_public_names_exist_and_are_all() -> None:
    for name in kdumpfence.__all__:
        assert hasattr(kdumpfence, name)
    assert len(kdumpfence.__all__) == len(set(kdumpfence.__all__))
