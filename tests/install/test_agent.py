# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent is put at /usr/sbin/fence_kdump, and taken away again, in made-up roots.

On a whole Debian, with its own Python and dpkg, it is done in tests/packages.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.install import agent_files, installer, layouts, root_directory, system_python
from tests.conftest import cannot_run
from tests.install import roots
from tests.install.conftest import Command
from tests.install.test_killed import KILLED, die_at

PLACE = "/usr/sbin/fence_kdump"
KEPT = "/usr/sbin/.fence_kdump.stock"
STOCK = b"\x7fELF the stock agent\n"
THIS = "python{}.{}".format(*sys.version_info)
SOURCE = Path(agent_files.__file__).parents[1]
CORES = sorted(SOURCE.glob(f"_kdumpwire.{sys.implementation.cache_tag}-*.so"))


class AgentCommand(Command):
    """The same for install-agent."""

    name = "install-agent"


@pytest.fixture
def agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AgentCommand:
    """The command."""
    return AgentCommand(tmp_path / "unused", capsys)


def with_python(root: Path, name: str = THIS, program: bytes | None = None) -> Path:
    """Give a root a Python of that name, by default the program that runs this."""
    if program is None:
        with open(sys.executable, "rb") as file:
            program = file.read(64) + b"/lib64/ld-linux-x86-64.so.2\0"
    roots.put(root, f"/usr/bin/{name}", program, 0o755)
    (root / "usr/bin/python3").unlink(missing_ok=True)
    (root / "usr/bin/python3").symlink_to(name)
    return root


@pytest.fixture
def root(root_directory: Path) -> Path:
    """A root with the stock agent, and this Python as the system's."""
    roots.put(root_directory, PLACE, STOCK, 0o755)
    return with_python(root_directory)


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


def test_the_agent_works_from_there(agent: AgentCommand, root: Path) -> None:
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


def is_module(name: str) -> bool:
    return name == agent_files.CORE or (SOURCE / f"{name}.py").exists()


def test_all_that_the_agent_imports_is_there_and_no_more() -> None:
    wanted = {"agent/main", "agent/__init__", "__init__"}
    while True:
        imported = set(wanted)
        for name in wanted - {agent_files.CORE}:
            for node in at_run_time(ast.parse((SOURCE / f"{name}.py").read_text())):
                module = getattr(node, "module", None) or ""
                if isinstance(node, ast.ImportFrom) and module.partition(".")[0] == "kdumpfence":
                    path = "/".join(module.split(".")[1:])
                    names = {path, *(f"{path}/{one.name}".lstrip("/") for one in node.names)}
                    imported |= {one for one in names if is_module(one)}
        if imported == wanted:
            break
        wanted = imported
    assert wanted == {*agent_files.MODULES, agent_files.CORE}


def test_everybody_may_read_and_run_it_whatever_the_umask(root: Path) -> None:
    shutil.rmtree(root / "usr/sbin")
    run = (sys.executable, "-m", "kdumpfence.cli", "install-agent", "--root", str(root))
    subprocess.run(["sh", "-c", 'umask 077; exec "$@"', "sh", *run], check=True, timeout=60)
    assert (root / PLACE[1:]).stat().st_mode & 0o7777 == 0o755
    for folder in (root / "usr/sbin", root / "usr/lib/kdumpfence", modules(root)):
        assert folder.stat().st_mode & 0o7777 == 0o755
    for path in modules(root).rglob("*"):
        readable = 0o755 if path.is_dir() or path.suffix == ".so" else 0o644
        assert path.stat().st_mode & 0o7777 == readable, path


def test_what_is_replaced_is_kept_under_a_name_that_is_no_agents(
    agent: AgentCommand, root: Path
) -> None:
    before = roots.snapshot(root)
    agent.ok(root)
    assert (root / KEPT[1:]).read_bytes() == STOCK
    assert [path.name for path in (root / "usr/sbin").glob("fence_*")] == ["fence_kdump"]
    agent.ok(root, "--remove")
    assert roots.snapshot(root) == before


def test_removing_leaves_nothing_where_nothing_was(
    agent: AgentCommand, root_directory: Path
) -> None:
    with_python(root_directory)
    before = set(roots.snapshot(root_directory))
    agent.ok(root_directory)
    agent.ok(root_directory, "--remove")
    assert set(roots.snapshot(root_directory)) == before
    assert "nothing to do" in agent.ok(root_directory, "--remove")


def test_a_second_run_changes_nothing_and_says_so(agent: AgentCommand, root: Path) -> None:
    agent.ok(root)
    before = roots.snapshot(root)
    assert agent.ok(root).endswith("nothing to do: all is in its place\n")
    assert roots.snapshot(root) == before


@pytest.mark.parametrize("arguments", [(), ("--remove",)], ids=["install", "remove"])
def test_a_dry_run_says_what_a_real_one_does_and_does_nothing(
    agent: AgentCommand, root: Path, arguments: tuple[str, ...]
) -> None:
    if arguments:
        agent.ok(root)
    before = roots.snapshot(root)
    lines = agent.ok(root, "--dry-run", *arguments).splitlines(keepends=True)
    assert roots.snapshot(root) == before
    lines.remove("dry run, nothing is changed; this would be done:\n")
    assert agent.ok(root, *arguments) == "".join(lines)
    assert roots.snapshot(root) != before


def test_an_sbin_that_is_a_link_to_bin(agent: AgentCommand, root_directory: Path) -> None:
    with_python(root_directory)
    (root_directory / "usr/sbin").symlink_to("bin")
    stock = roots.put(root_directory, "/usr/bin/fence_kdump", STOCK, 0o755)
    before = roots.snapshot(root_directory)
    agent.ok(root_directory)
    assert b"#!/usr/bin/python3" in stock.read_bytes()
    assert stock.with_name(".fence_kdump.stock").read_bytes() == STOCK
    agent.ok(root_directory, "--remove")
    assert roots.snapshot(root_directory) == before


@pytest.mark.slow
def test_a_file_of_a_package_is_diverted(agent: AgentCommand, root: Path) -> None:
    if shutil.which("dpkg-divert") is None:
        cannot_run("dpkg-divert is missing")
    roots.with_dpkg(root, "fence-agents", PLACE)
    said = agent.ok(root)
    assert f"divert {PLACE} of the package fence-agents to {KEPT}" in said
    agent.ok(root, "--remove")
    assert (root / PLACE[1:]).read_bytes() == STOCK


def test_an_update_by_rpm_is_kept_by_the_next_run(agent: AgentCommand, root: Path) -> None:
    agent.ok(root)
    roots.put(root, PLACE + ";new", STOCK + b"2", 0o755).rename(root / PLACE[1:])
    agent.ok(root)
    assert (root / KEPT[1:]).read_bytes() == STOCK + b"2"
    assert agent_of(root, "-V").returncode == 0
    roots.put(root, PLACE + ";new", STOCK + b"3", 0o755).rename(root / PLACE[1:])
    assert f"left: {PLACE}, which is not as this program put it" in agent.ok(root, "--remove")
    assert (root / PLACE[1:]).read_bytes() == STOCK + b"3"
    assert not (root / KEPT[1:]).exists()


def test_the_agent_of_a_package_of_ours_is_left_alone(agent: AgentCommand, root: Path) -> None:
    roots.put(root, PLACE, layouts.data(agent_files.TEMPLATE), 0o755)
    before = roots.snapshot(root)
    said = agent.refused("--root", str(root))
    assert said.startswith(f"{root}{PLACE} is that of a package of kdumpfence")
    assert roots.snapshot(root) == before


def test_it_lives_beside_the_sender(agent: AgentCommand, command: Command, root: Path) -> None:
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


def test_the_core_that_fits_comes_along_and_it_is_said(agent: AgentCommand, root: Path) -> None:
    if not CORES:
        cannot_run("there is no compiled core for this Python")
    said = agent.ok(root)
    assert "with the compiled core, for Python {}.{}\n".format(*sys.version_info) in said
    assert agent_of(root, "-V").stdout.endswith("(kdumpfence, compiled core)\n")
    tag = sys.implementation.cache_tag
    folder = modules(root) / "kdumpfence"
    compiled = {path.relative_to(folder) for path in folder.rglob("*.pyc")}
    names = [Path(name) for name in agent_files.MODULES]
    assert compiled == {name.parent / "__pycache__" / f"{name.name}.{tag}.pyc" for name in names}


@pytest.mark.parametrize(
    ("name", "header"),
    [
        pytest.param("python3.99", None, id="another version"),
        pytest.param(THIS, {18: 0xB7}, id="another processor"),
        pytest.param(THIS, {4: 1}, id="of 32 bits"),
    ],
)
def test_where_the_core_does_not_fit_the_pure_one_does_it(
    agent: AgentCommand, root: Path, name: str, header: dict[int, int] | None
) -> None:
    program = bytearray((root / f"usr/bin/{THIS}").read_bytes())
    for at, byte in (header or {}).items():
        program[at] = byte
    with_python(root, name, bytes(program))
    said = agent.ok(root)
    assert "with the pure core, which does the same, but slower" in said
    assert f"the system's Python is cpython-{name[6:].replace('.', '')}" in said
    assert not list(modules(root).rglob("*.so"))
    assert agent_of(root, "-V").stdout.endswith("(kdumpfence, pure core)\n")


def test_the_agent_outlives_the_arrival_of_another_python(agent: AgentCommand, root: Path) -> None:
    agent.ok(root)
    for path in modules(root).rglob("*"):  # as another one would see them
        tag = str(sys.implementation.cache_tag)
        if tag in path.name:
            path.rename(path.with_name(path.name.replace(tag, "cpython-399")))
    done = agent_of(root, "-V")
    assert (done.returncode, done.stdout.endswith("pure core)\n")) == (0, True)
    assert not list(modules(root).rglob(f"*{tag}*"))  # root's runs leave no files there


@pytest.mark.parametrize("name", ["python3.6", "python3.8"])
def test_a_python_that_is_too_old(agent: AgentCommand, root: Path, name: str) -> None:
    with_python(root, name)
    before = roots.snapshot(root)
    said = agent.refused("--root", str(root))
    assert said == (
        f"{root}/usr/bin/python3 is Python {name[6:]}, and the agent needs 3.9 or newer\n"
    )
    assert roots.snapshot(root) == before


def test_no_python(agent: AgentCommand, root: Path) -> None:
    (root / "usr/bin/python3").unlink()
    said = agent.refused("--root", str(root))
    assert said == f"no {root}/usr/bin/python3, under which the agent would run\n"


@pytest.mark.parametrize("target", ["python3", "nowhere", "../../../etc/passwd", "pypy3.10"])
def test_a_python_whose_version_is_not_known(agent: AgentCommand, root: Path, target: str) -> None:
    roots.put(root, "/usr/bin/pypy3.10", "")
    (root / "usr/bin/python3").unlink()
    (root / "usr/bin/python3").symlink_to(target)
    assert "does not lead to a python3.N" in agent.refused("--root", str(root))


def test_links_to_python_are_followed_inside_of_the_root(agent: AgentCommand, root: Path) -> None:
    (root / "usr/bin/python3").unlink()
    (root / "usr/bin/python3").symlink_to("/etc/alternatives/python3")
    (root / "etc/alternatives").mkdir(parents=True)
    (root / "etc/alternatives/python3").symlink_to(f"/usr/bin/{THIS}")
    agent.ok(root)
    assert agent_of(root, "-V").returncode == 0


def test_a_system_python_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this machine it is asked, not guessed."""
    monkeypatch.setattr(system_python, "PROGRAM", "/bin/false")
    root = root_directory.Tree("/")
    with pytest.raises(system_python.NoPython, match=r"^/bin/false does not run: exit status 1$"):
        system_python.of(root)
    monkeypatch.setattr(system_python, "PROGRAM", "/etc/passwd")
    with pytest.raises(system_python.NoPython, match=r"^/etc/passwd does not run: Permission"):
        system_python.of(root)
    root.close()


def test_the_python_of_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_python, "PROGRAM", sys.executable)
    root = root_directory.Tree("/")
    found = system_python.of(root)
    root.close()
    assert (found.version, found.tag) == (sys.version_info[:2], sys.implementation.cache_tag)
    assert [found.fits(path.name, b"") for path in CORES] == [True] * len(CORES)
    assert not found.fits("_kdumpwire.cpython-399-x86_64-linux-gnu.so", b"")


# ------------------------------------------------------------------ upgrades, and being killed


def test_an_upgrade_leaves_nothing_of_the_older_one(
    agent: AgentCommand, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = roots.snapshot(root)
    agent.ok(root)
    older = modules(root)
    newer(monkeypatch)
    said = agent.ok(root)
    assert f"replace {PLACE}, which is ours" in said
    assert f"remove /{older.relative_to(root)}/" in said
    assert not older.exists()
    assert agent_of(root, "-V").stdout.startswith("fence_kdump 99 ")
    agent.ok(root, "--remove")
    assert roots.snapshot(root) == before


def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the package."""
    real = agent_files._content

    def content(name: str) -> bytes:
        return b'__version__ = "99"\n' if name == "_version.py" else real(name)

    monkeypatch.setattr(agent_files, "_content", content)


def run(root: Path, remove: bool, dies_at: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Install or remove the agent in a child; whether it came to its end."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED)
        return status == 0
    try:
        die_at(dies_at, monkeypatch)
        opened = root_directory.Tree(str(root))
        if remove:
            installer.remove(opened, agent_files.layout(None), False, lambda _: None)
        else:
            python = system_python.SystemPython((3, 9), "cpython-39", ".cpython-39-", b"", None)
            installer.install(opened, agent_files.layout(python), b"", False, lambda _: None)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def works(root: Path) -> bool:
    """Whether at the agent's place is the stock one, or one of ours with all that it needs."""
    if (root / PLACE[1:]).read_bytes() == STOCK:
        return True
    folder = modules(root) / "kdumpfence"
    content = {
        str(path.relative_to(folder).with_suffix("")): path.read_bytes()
        for path in folder.rglob("*.py")
    }
    if set(content) != set(agent_files.MODULES):
        return False
    version = content.pop("_version")
    rest = all(text == (SOURCE / f"{name}.py").read_bytes() for name, text in content.items())
    known = (b'__version__ = "99"\n', (SOURCE / "_version.py").read_bytes())
    return rest and version in known


@pytest.mark.parametrize("stage", ["fresh", "upgrade", "removal"])
@pytest.mark.slow
def test_whenever_it_is_killed(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_files, "MODULES", ("__init__", "_version", "agent/main"))
    ended, number = False, 0
    while not ended:
        number += 1
        root = tmp_path / "root"
        roots.put(root, PLACE, STOCK, 0o755)
        (root / "usr/lib").mkdir()
        before = roots.whats(root)
        with monkeypatch.context() as patched:
            if stage != "fresh":
                assert run(root, False, 0, monkeypatch)
            if stage == "upgrade":
                newer(patched)
            ended = run(root, stage == "removal", number, monkeypatch)
            assert works(root)
            if stage == "fresh" and number % 3 == 0:
                newer(patched)  # instead of what was not finished
            if number % 3 != 1 and stage != "removal":
                assert run(root, False, 0, monkeypatch)
                assert works(root)
                assert (root / PLACE[1:]).read_bytes() != STOCK
                assert list((root / "usr/lib/kdumpfence").glob("agent-*")) == [modules(root)]
                assert not list(root.rglob("*kdumpfence-new"))
        assert run(root, True, 0, monkeypatch)
        assert roots.whats(root) == before
        shutil.rmtree(root)
    assert number > 10, "nothing was counted: are other calls used now?"
