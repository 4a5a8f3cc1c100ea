# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent is put at /usr/sbin/fence_kdump, and taken away again, in made-up roots.

On a whole Debian, with its own Python and dpkg, it is done in tests/packages.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.install import agent_files, layouts, system_python
from kdumpfence.install.sysroot import Sysroot
from tests.conftest import cannot_run
from tests.install import roots
from tests.install.conftest import Command

PLACE, STOCK, THIS = roots.AGENT, roots.STOCK_AGENT, roots.PYTHON
KEPT = "/usr/sbin/.fence_kdump.stock"
SOURCE = Path(agent_files.__file__).parents[1]
CORES = sorted(SOURCE.glob(f"_kdumpwire.{sys.implementation.cache_tag}-*.so"))


@pytest.fixture
def root(root_directory: Path) -> Path:
    """A root with the stock agent, and this Python as the system's."""
    roots.put(root_directory, PLACE, STOCK, 0o755)
    return roots.with_python(root_directory)


def modules(root: Path) -> Path:
    """The directory that the agent's script names, below the root."""
    match = re.search(r'path\.insert\(0, "(/\S+)"\)', (root / PLACE[1:]).read_text())
    assert match is not None
    return root / match[1][1:]


def agent_of(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the agent as its script does, but with the paths of this root."""
    script = (root / PLACE[1:]).read_text()
    options = re.match(r"#!/usr/bin/python3 (-\w+)\n", script)
    assert options is not None
    return subprocess.run(
        [sys.executable, options[1], "-c", script.replace("/usr/lib/", f"{root}/usr/lib/")]
        + [*arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_agent_works_from_there(agent: Command, root: Path) -> None:
    agent.ok(root)
    done = agent_of(root, "-o", "metadata")
    assert (done.returncode, done.stderr) == (0, "")
    assert '<resource-agent name="fence_kdump"' in done.stdout
    for arguments in (["-h"], ["-V"], ["-o", "monitor"]):
        assert "Traceback" not in agent_of(root, *arguments).stderr
    done = agent_of(root, "-n", "127.0.0.1", "-p", "0", "-t", "1")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All of the tree but what is for type checkers alone."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield from at_run_time(child)


def named(dotted: str) -> set[str]:
    """The modules that the import of this one, or of something in one, runs."""
    found, folder = set(), SOURCE
    for part in [".", *dotted.split(".")[1:]]:
        folder /= part
        if folder.is_dir():
            found.add(str((folder / "__init__").relative_to(SOURCE)))
        elif folder.with_suffix(".py").exists() or part == agent_files.CORE:
            found.add(str(folder.relative_to(SOURCE)))
    return found


def test_all_that_the_agent_imports_is_there_and_no_more() -> None:
    wanted: set[str] = set()
    new = named("kdumpfence.agent.main")
    while new:
        wanted |= new
        found: set[str] = set()
        for name in new - {agent_files.CORE}:
            for node in at_run_time(ast.parse((SOURCE / f"{name}.py").read_text())):
                if isinstance(node, ast.Import):
                    dotted = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    dotted = [f"{node.module}.{alias.name}" for alias in node.names]
                else:
                    continue
                found |= {one for name in dotted if name.startswith("kdumpfence.")
                          for one in named(name)}  # fmt: skip
        new = found - wanted
    assert wanted == {*agent_files.MODULES, agent_files.CORE}


def test_an_sbin_that_is_a_link_to_bin(agent: Command, root_directory: Path) -> None:
    roots.with_python(root_directory)
    (root_directory / "usr/sbin").symlink_to("bin")
    stock = roots.put(root_directory, "/usr/bin/fence_kdump", STOCK, 0o755)
    before = roots.snapshot(root_directory)
    agent.ok(root_directory)
    assert b"#!/usr/bin/python3" in stock.read_bytes()
    assert stock.with_name(".fence_kdump.stock").read_bytes() == STOCK
    agent.ok(root_directory, "--remove")
    assert roots.snapshot(root_directory) == before


def test_an_update_of_the_stock_agent_is_kept_by_the_next_run(agent: Command, root: Path) -> None:
    agent.ok(root)
    roots.put(root, PLACE + ";new", STOCK + b"2", 0o755).rename(root / PLACE[1:])
    agent.ok(root)
    assert (root / KEPT[1:]).read_bytes() == STOCK + b"2"
    assert agent_of(root, "-V").returncode == 0
    roots.put(root, PLACE + ";new", STOCK + b"3", 0o755).rename(root / PLACE[1:])
    assert f"left: {PLACE}, which was changed since" in agent.ok(root, "--remove")
    assert (root / PLACE[1:]).read_bytes() == STOCK + b"3"
    assert not (root / KEPT[1:]).exists()


def test_the_agent_of_a_package_of_ours_is_left_alone(agent: Command, root: Path) -> None:
    roots.put(root, PLACE, layouts.data(agent_files.TEMPLATE), 0o755)
    before = roots.snapshot(root)
    said = agent.refused("--root", str(root))
    assert said.startswith(f"{root}{PLACE} belongs to the kdumpfence package")
    assert roots.snapshot(root) == before


def test_what_is_replaced_is_kept_under_a_name_that_is_no_agents(
    agent: Command, root: Path
) -> None:
    agent.ok(root)
    assert (root / KEPT[1:]).read_bytes() == STOCK
    assert [path.name for path in (root / "usr/sbin").glob("fence_*")] == ["fence_kdump"]


def test_it_lives_beside_the_sender(agent: Command, command: Command, root: Path) -> None:
    roots.put(root, "/etc/os-release", "ID=fedora\n")
    before = roots.snapshot(root)
    command.ok(root)
    agent.ok(root)
    command.ok(root, "--remove")
    assert agent_of(root, "-V").returncode == 0
    command.ok(root)
    agent.ok(root, "--remove")
    assert (root / roots.PLACES["rhel"][1:]).exists()
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


# ------------------------------------------------------------------ which Python, which core


def test_the_core_that_fits_comes_along_and_it_is_said(agent: Command, root: Path) -> None:
    if not CORES:
        cannot_run("there is no compiled core for this Python")
    said = agent.ok(root)
    assert "with the compiled core, for Python {}.{}\n".format(*sys.version_info) in said
    assert agent_of(root, "-V").stdout.endswith("(kdumpfence, compiled core)\n")
    tag = sys.implementation.cache_tag
    compiled = {path.name for path in (modules(root) / "kdumpfence").rglob("__pycache__/*")}
    assert compiled == {f"{Path(name).name}.{tag}.pyc" for name in agent_files.MODULES}


@pytest.mark.parametrize(
    ("name", "header"),
    [
        pytest.param("python3.99", None, id="another version"),
        pytest.param(THIS, {18: 0xB7}, id="another processor"),
        pytest.param(THIS, {4: 1}, id="of 32 bits"),
    ],
)
def test_where_the_core_does_not_fit_the_pure_one_does_it(
    agent: Command, root: Path, name: str, header: dict[int, int] | None
) -> None:
    program = bytearray((root / f"usr/bin/{THIS}").read_bytes())
    for at, byte in (header or {}).items():
        program[at] = byte
    roots.with_python(root, name, bytes(program))
    said = agent.ok(root)
    assert "with the pure core" in said
    assert f"the system has Python cpython-{name[6:].replace('.', '')}" in said
    assert not list(modules(root).rglob("*.so"))
    assert agent_of(root, "-V").stdout.endswith("(kdumpfence, pure core)\n")


def test_the_agent_outlives_the_arrival_of_another_python(agent: Command, root: Path) -> None:
    agent.ok(root)
    for path in modules(root).rglob("*"):  # as another one would see them
        tag = str(sys.implementation.cache_tag)
        if tag in path.name:
            path.rename(path.with_name(path.name.replace(tag, "cpython-399")))
    done = agent_of(root, "-V")
    assert (done.returncode, done.stdout.endswith("pure core)\n")) == (0, True)
    assert not list(modules(root).rglob(f"*{tag}*"))  # root's runs leave no files there


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("python3.6", "is Python 3.6; the agent needs 3.9 or newer"),
        ("python3.8", "is Python 3.8; the agent needs 3.9 or newer"),
        (None, "is missing: the agent needs it"),
        ("python3", "Too many levels of symbolic links"),
        ("nowhere", "it does not point to python3.N"),
        ("../../../etc/passwd", "it does not point to python3.N"),
        ("pypy3.10", "it does not point to python3.N"),
    ],
)
def test_a_python_that_cannot_run_the_agent(
    agent: Command, root: Path, target: str | None, said: str
) -> None:
    for name in ("python3.6", "python3.8", "pypy3.10"):
        roots.put(root, f"/usr/bin/{name}", "")
    (root / "usr/bin/python3").unlink()
    if target is not None:
        (root / "usr/bin/python3").symlink_to(target)
    before = roots.snapshot(root)
    told = agent.refused("--root", str(root))
    assert f"{root}/usr/bin/python3" in told
    assert told.endswith(f"{said}\n")
    assert roots.snapshot(root) == before


def test_links_to_python_are_followed_inside_of_the_root(agent: Command, root: Path) -> None:
    (root / "usr/bin/python3").unlink()
    (root / "usr/bin/python3").symlink_to("/etc/alternatives/python3")
    (root / "etc/alternatives").mkdir(parents=True)
    (root / "etc/alternatives/python3").symlink_to(f"/usr/bin/{THIS}")
    agent.ok(root)
    assert agent_of(root, "-V").returncode == 0


@pytest.mark.parametrize(
    ("program", "said"), [("/bin/false", "exit status 1$"), ("/etc/passwd", "Permission")]
)
def test_a_system_python_that_does_not_run(
    monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    """Of this machine it is asked, not guessed."""
    monkeypatch.setattr(system_python, "PROGRAM", program)
    with (
        Sysroot("/") as root,
        pytest.raises(system_python.NoPython, match=f"^{program} does not run: {said}"),
    ):
        system_python.of(root)


def test_the_python_of_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_python, "PROGRAM", sys.executable)
    with Sysroot("/") as root:
        found = system_python.of(root)
    assert (found.version, found.tag) == (sys.version_info[:2], sys.implementation.cache_tag)
    assert [found.fits(path.name, b"") for path in CORES] == [True] * len(CORES)
    assert not found.fits("_kdumpwire.cpython-399-x86_64-linux-gnu.so", b"")


# ------------------------------------------------------------------ upgrades


def test_an_upgrade_leaves_nothing_of_the_older_one(
    agent: Command, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = roots.snapshot(root)
    agent.ok(root)
    older = modules(root)
    newer(monkeypatch)
    said = agent.ok(root)
    assert f"update {PLACE}" in said
    assert f"remove /{older.relative_to(root)}/" in said
    assert not older.exists()
    assert agent_of(root, "-V").stdout.startswith("fence_kdump 99 ")
    agent.ok(root, "--remove")
    assert roots.snapshot(root) == before


def test_bytecode_that_comes_out_otherwise_the_next_time_is_left_alone(
    agent: Command, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real, runs = roots.snapshot(root), system_python.SystemPython.bytecode, []

    def bytecode(self: system_python.SystemPython, sources: dict[str, bytes]) -> dict[str, bytes]:
        runs.append(1)
        return {path: made + bytes(runs) for path, made in real(self, sources).items()}

    monkeypatch.setattr(system_python.SystemPython, "bytecode", bytecode)
    agent.ok(root)
    assert "nothing to do" in agent.ok(root)
    agent.ok(root, "--remove")
    assert roots.snapshot(root) == before


def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the package."""
    real = agent_files.read_module

    def read_module(name: str) -> bytes:
        return b'__version__ = "99"\n' if name == "_version.py" else real(name)

    monkeypatch.setattr(agent_files, "read_module", read_module)


def test_a_diversion_of_an_older_version_is_told_of(agent: Command, root: Path) -> None:
    words = f"warning: dpkg still diverts {PLACE} to {KEPT}"
    remedy = f"run dpkg-divert --local --no-rename --remove {PLACE}"
    roots.put(root, "/var/lib/dpkg/diversions", f"{PLACE}\n{KEPT}\nkdumpfence\n")
    assert words not in agent.ok(root)  # a package's own
    roots.put(root, "/var/lib/dpkg/diversions", f"/a\n/b\n:\n{PLACE}\n{KEPT}\n:\n")
    for arguments in ((), ("--remove",)):
        said = agent.ok(root, *arguments)
        assert words in said
        assert remedy in said
