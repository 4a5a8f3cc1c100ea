# SPDX-License-Identifier: LGPL-2.1-or-later
"""KDUMPFENCE_COMPILE and KDUMPFENCE_SIGNING: nobody gets a slow install, or one that cannot sign,
without being told.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.conftest import cannot_run
from tests.support.sources import ROOT, build, copy_sources, run, unpack

NO_COMPILER = {"CC": "/bin/false"}
NO_BEARSSL = {"KDUMPFENCE_BEARSSL": "/nonexistent"}
FLAGS = ROOT / "src" / "native" / "build_flags.py"
SENDER = ROOT / "src" / "native" / "build_sender.py"


@pytest.mark.parametrize("switch", ["COMPILE", "STATIC", "SIGNING"])
def test_a_value_that_is_none_is_refused_in_one_line(switch: str, tmp_path: Path) -> None:
    tree = copy_sources(tmp_path)
    setup = (sys.executable, "setup.py", "--version")
    done = run(*setup, cwd=tree, status=1, env={f"KDUMPFENCE_{switch}": "maybe"})
    assert done.stdout == f"KDUMPFENCE_{switch}='maybe': not one of auto, require, no\n"


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["auto", ""])
def test_without_a_compiler_the_install_is_a_pure_one_that_says_so(
    choice: str, sdist: Path, pure_wheel: Path, tmp_path: Path
) -> None:
    tree, to = unpack(sdist, tmp_path / "tree"), tmp_path / "wheel"
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", to, tree)
    said = run(*command, env={"KDUMPFENCE_COMPILE": choice, **NO_COMPILER}).stdout
    assert "kdumpfence: the compiled core is NOT built" in said
    (wheel,) = to.iterdir()
    assert wheel.name == pure_wheel.name
    with ZipFile(wheel) as made, ZipFile(pure_wheel) as wanted:
        assert sorted(made.namelist()) == sorted(wanted.namelist())


@pytest.mark.slow
def test_where_the_core_is_required_a_failed_compile_is_an_error_that_says_why(
    sdist: Path, tmp_path: Path
) -> None:
    tree = unpack(sdist, tmp_path / "tree")
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", tree)
    done = run(*command, status=1, env={"KDUMPFENCE_COMPILE": "require", **NO_COMPILER})
    assert "kdumpfence: the compiled core could not be built: " in done.stdout
    assert "Traceback" not in done.stdout.partition("kdumpfence: the compiled core could not")[2]
    assert not list(tree.glob("dist/*.whl"))


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_an_older_builds_core_does_not_get_into_a_pure_wheel(sdist: Path, tmp_path: Path) -> None:
    tree = unpack(sdist, tmp_path / "tree")
    build("wheel", tree, tmp_path / "first", "require")
    with (tree / "src" / "_kdumpwire.pyx").open("a") as core:
        core.write("\n# changed\n")
    second = build("wheel", tree, tmp_path / "second", "auto", **NO_COMPILER)
    assert second.name.endswith("-py3-none-any.whl")
    with ZipFile(second) as wheel:
        assert not [name for name in wheel.namelist() if name.endswith(".so") or "_native" in name]


@pytest.fixture(scope="module")
def bearssl() -> Path:
    """Ask for BearSSL; the path of its library."""
    said = run(sys.executable, FLAGS, "signing").stdout
    if not said.startswith("signs with "):
        cannot_run(said)
    return Path(said.removeprefix("signs with ").strip())


@pytest.mark.usefixtures("compiler")
def test_the_flags_say_what_signs(bearssl: Path) -> None:
    compile_, link = (run(sys.executable, FLAGS, what).stdout for what in ("compile", "link"))
    assert "-DKDUMPFENCE_SIGNING" in compile_.split()
    assert str(bearssl) in link.split()
    for env in (NO_BEARSSL, {"KDUMPFENCE_SIGNING": "no"}):
        said = "".join(run(sys.executable, FLAGS, w, env=env).stdout for w in ("compile", "link"))
        assert "SIGNING" not in said
        assert "bearssl" not in said


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("env", "why"),
    [
        (
            NO_BEARSSL,
            "no BearSSL (Debian: libbearssl-dev): the native sender is built without signing",
        ),
        ({"KDUMPFENCE_SIGNING": "no"}, "KDUMPFENCE_SIGNING=no: the native sender cannot sign"),
    ],
)
def test_a_native_sender_without_signing_says_so(
    env: dict[str, str], why: str, tmp_path: Path
) -> None:
    said = run(sys.executable, SENDER, tmp_path, "--static", "no", env=env).stdout
    assert said.splitlines()[0] == why
    program = tmp_path / "fence_kdump_send"
    assert run(program, "-V").stdout.endswith("native)\n")
    argv = ("--check", "-v", "--node=n1", "--key-file=/nonexistent", "127.0.0.1")
    said = run(program, *argv, status=1).stdout
    assert "[warning]: key file '/nonexistent': this build cannot sign; not signing\n" in said
    assert "[debug]: node 'n1': dumping, not signed\n" in said


@pytest.mark.usefixtures("compiler")
def test_where_signing_is_required_its_lack_is_an_error_that_says_why(tmp_path: Path) -> None:
    env = {"KDUMPFENCE_SIGNING": "require", **NO_BEARSSL}
    for script in ((FLAGS, "compile"), (SENDER, tmp_path)):
        said = run(sys.executable, *script, status=1, env=env).stdout
        assert "BearSSL is missing, on Debian it is in libbearssl-dev" in said
        assert "/nonexistent/build/libbearssl.a" in said
        assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_no_wheel_is_made_that_lacks_the_signing_it_was_to_have(
    sdist: Path, tmp_path: Path
) -> None:
    tree = unpack(sdist, tmp_path / "tree")
    env = {"KDUMPFENCE_COMPILE": "auto", "KDUMPFENCE_SIGNING": "require", **NO_BEARSSL}
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", tree)
    done = run(*command, status=1, env=env)
    assert "kdumpfence: KDUMPFENCE_SIGNING=require: BearSSL is missing" in done.stdout
    assert not list(tree.glob("dist/*.whl"))


SIGNS = """
import sys
from kdumpfence import wire
packet = wire.Packet("question", "node1", key_id=1)
signed = wire.encode_packet(packet, bytes(range(32)))
assert wire.IMPLEMENTATION == "compiled"
assert wire.packet_fits(signed, bytes(range(32)))
assert not wire.packet_fits(signed, bytes(32))
print(wire.mac(bytes(32), b"x").hex(), signed.hex(), "hmac" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_a_core_without_bearssl_signs_all_the_same(
    compiled_wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    tree = unpack(sdist, tmp_path / "tree")
    without = build("wheel", tree, tmp_path / "wheel", "require", KDUMPFENCE_SIGNING="no")
    said = []
    for number, wheel in enumerate((compiled_wheel, without)):
        with ZipFile(wheel) as archive:
            archive.extractall(tmp_path / str(number))
        env = {"PYTHONPATH": str(tmp_path / str(number))}
        said.append(run(sys.executable, "-c", SIGNS, env=env).stdout.split())
    assert said[0][:2] == said[1][:2]
    assert said[1][2] == "True"


def test_bearssl_is_built_of_no_other_archive_than_its_release(tmp_path: Path) -> None:
    archive = tmp_path / "bearssl.tar.gz"
    with tarfile.open(archive, "w:gz") as other:
        other.add(ROOT / "LICENSE", "bearssl-0.6/LICENSE.txt")
    script = ROOT / "packaging" / "bearssl.sh"
    said = run("sh", script, tmp_path / "made", archive, status=1).stdout
    assert "bearssl.tar.gz: FAILED" in said
    assert list((tmp_path / "made").iterdir()) == []
