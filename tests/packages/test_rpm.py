# SPDX-License-Identifier: LGPL-2.1-or-later
"""The package for rpm systems, as far as Debian's rpm can tell.

It is built and installed by the real rpm and the real dnf, in a bare Debian with a made-up
fence-agents-kdump. What that cannot show: zypper, and the macros of Fedora and SUSE.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packages import bare
from tests.packages.conftest import library_of, needs, rpmbuild, run
from tests.support.units import UNITS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

RPM = ("rpm", "--root=ROOT", "--nosignature")
AGENT = "usr/sbin/fence_kdump"
SENDER = "usr/libexec/fence_kdump_send"


def rpm_try(machine: bare.Machine, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run rpm on the machine."""
    # Up to 4.18 Debian's asks to be forced.
    known = "--force-debian" in run("rpm", "--help")
    return machine.outside(*RPM, *(["--force-debian"] if known else []), *arguments)


def rpm_in(machine: bare.Machine, *arguments: str | Path) -> str:
    """Run rpm on the machine, expecting success."""
    done = rpm_try(machine, *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def made_up(
    folder: Path, name: str, version: str, *lines: str, files: tuple[str, ...] = ()
) -> Path:
    """A package with these lines in its spec, and files that hold its name and version."""
    folder = folder / f"{name}-{version}"
    folder.mkdir()
    write = [
        f"install -D /dev/null %{{buildroot}}{file} && "
        f"printf '#!/bin/sh\\necho {name} {version}\\n' >%{{buildroot}}{file}"
        for file in files
    ]
    spec = folder / "made-up.spec"
    spec.write_text("\n".join([
        f"Name: {name}", f"Version: {version}", "Release: 1", "Summary: made up",
        "License: none", "BuildArch: noarch", "AutoReqProv: no", *lines, "%description",
        "made up", "%install", "mkdir -p %{buildroot}", *write, "%files", *files,
    ]))  # fmt: skip
    return rpmbuild(spec, folder)


@pytest.fixture
def fedora(machine: bare.Machine, rpm: Path, tmp_path: Path) -> bare.Machine:
    """A machine on which rpm knows all that ours requires, and fence-agents with its agent."""
    required = run("rpm", "-qp", "--requires", rpm, library_of(rpm)).splitlines()
    there = {
        line.replace(">=", "=").strip()
        for line in required
        if not line.startswith(("rpmlib(", "python3-kdumpfence"))
    }
    base = made_up(tmp_path, "base", "1", *(f"Provides: {line}" for line in sorted(there)))
    everything = made_up(tmp_path, "fence-agents-all", "4.12.1", "Requires: fence-agents-kdump")
    rpm_in(machine, "-i", base, everything, stock(tmp_path, "4.12.1"))
    return machine


def stock(folder: Path, version: str) -> Path:
    """fence-agents-kdump."""
    return made_up(folder, "fence-agents-kdump", version, files=(f"/{AGENT}", f"/{SENDER}"))


def content(package: Path) -> dict[str, str]:
    """The package's files, with their rights."""
    wanted = "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\n]"
    listed = run("rpm", "-qp", "--qf", wanted, package)
    return {path: rights for rights, user, path in map(str.split, listed.splitlines())}


def both(rpm: Path) -> tuple[Path, Path]:
    """The package and its library."""
    return rpm, library_of(rpm)


def test_what_is_in_the_package(rpm: Path) -> None:
    paths = content(rpm)
    for program in (AGENT, SENDER, "usr/sbin/kdumpfence", "usr/sbin/kdumpfenced"):
        assert paths[f"/{program}"] == "-rwxr-xr-x"
    assert "/usr/lib/firewalld/services/kdumpfence.xml" in paths
    for unit in UNITS.iterdir():
        assert f"/usr/lib/systemd/system/{unit.name}" in paths
    # None is enabled; all that can be is disabled when the package goes.
    scripts = run("rpm", "-qp", "--scripts", rpm)
    named = set(re.findall(r"kdumpfence[\w-]*\.(?:service|socket|timer)\b", scripts))
    assert named == {unit.name for unit in UNITS.iterdir() if "[Install]" in unit.read_text()}
    assert not re.search(r"systemctl\b.* (enable|preset|start)\b", scripts)
    assert run("rpm", "-qpc", rpm) == "/etc/kdumpfence/kdumpfenced.toml\n"
    for page in ("fence_kdump", "fence_kdump_send", "kdumpfence", "kdumpfenced"):
        assert [path for path in paths if path.startswith(f"/usr/share/man/man8/{page}.8")]
    assert any(path.endswith("/_native/fence_kdump_send") for path in paths)
    shared = "^/usr/lib/.build-id|^/usr/lib/firewalld(/services)?$"
    strangers = [path for path in paths if not re.search(f"kdump|{shared}", path)]
    assert strangers == []
    assert "python3 >= 3.9" in run("rpm", "-qp", "--requires", rpm)


def test_what_is_in_the_librarys_package(rpm: Path) -> None:
    paths = content(library_of(rpm))
    for file in ("/_kdumpwire.cpython-", "/agent/__pycache__/main.cpython-", "/py.typed"):
        assert any(f"/kdumpfence{file}" in path for path in paths), file
    assert any(path.endswith(".dist-info/METADATA") for path in paths)
    assert not paths.keys() & content(rpm).keys()
    # Else the agent would have to go when another Python comes.
    requires = run("rpm", "-qp", "--requires", *both(rpm))
    assert "python(abi)" not in requires
    assert re.search(r"^python3-kdumpfence\(.*\) = ", requires, re.MULTILINE)


def test_a_program_can_import_the_library_alone(fedora: bare.Machine, rpm: Path) -> None:
    rpm_in(fedora, "-i", library_of(rpm))
    script = "import kdumpfence; print(kdumpfence.IMPLEMENTATION, kdumpfence.Listener.__name__)"
    assert fedora.run("python3", "-c", script) == "compiled Listener\n"
    assert fedora.run("fence_kdump") == "fence-agents-kdump 4.12.1\n"


def test_the_stock_package_has_to_go_and_is_not_missed(
    fedora: bare.Machine, rpm: Path, tmp_path: Path
) -> None:
    refused = rpm_try(fedora, "-U", *both(rpm))
    assert refused.returncode != 0
    assert "fence-agents-kdump conflicts with kdumpfence" in refused.stdout
    assert fedora.run("fence_kdump") == "fence-agents-kdump 4.12.1\n"

    # As dnf swap does it, which rpm alone cannot do in one go.
    rpm_in(fedora, "-e", "--nodeps", "fence-agents-kdump")
    rpm_in(fedora, "-U", *both(rpm))
    assert "compiled core" in fedora.as_hacluster("fence_kdump", "-V")
    assert "</resource-agent>" in fedora.as_hacluster("fence_kdump", "-o", "metadata")
    assert "--check" in fedora.run(f"/{SENDER}", "--help")
    assert rpm_in(fedora, "-V", "kdumpfence", "fence-agents-all") == ""

    # No update of the stock package comes over it unseen.
    newer = rpm_try(fedora, "-U", stock(tmp_path, "4.16.0"))
    assert newer.returncode != 0
    assert "conflicts with" in newer.stdout
    assert "compiled core" in fedora.run("fence_kdump", "-V")


def test_nothing_is_left_of_it(fedora: bare.Machine, rpm: Path) -> None:
    rpm_in(fedora, "-e", "--nodeps", "fence-agents-kdump")
    before = on_disk(fedora)
    rpm_in(fedora, "-i", *both(rpm))
    fedora.run("fence_kdump", "-V")
    fedora.run("kdumpfence", "install-sender", "--distribution", "dracut")
    sender = fedora.root / "usr/lib/kdumpfence/fence_kdump_send"
    sender.write_bytes(b"older, needs /lib64/ld-linux-x86-64.so.2")
    record = fedora.root / "usr/lib/kdumpfence/installed"
    record.write_text(record.read_text().replace(digest(fedora, SENDER), digest(fedora, sender)))
    rpm_in(fedora, "-U", "--force", *both(rpm))
    assert sender.read_bytes() == (fedora.root / SENDER).read_bytes()
    rpm_in(fedora, "-e", "--nodeps", "kdumpfence", "python3-kdumpfence")
    assert on_disk(fedora) == before


def digest(machine: bare.Machine, path: str | Path) -> str:
    """As install-sender writes it down."""
    return run("sha256sum", machine.root / path).split()[0]


def on_disk(machine: bare.Machine) -> set[str]:
    """All but rpm's own database, and what belongs to every Fedora."""
    ignored = r"/var/lib/rpm|/root/\.rpmdb|/usr/share/licenses d |/usr/libexec d "
    ignored += r"|/usr/local/lib/python3[.\d]*(/dist-packages)? d |/usr/local(/lib)? d "
    return {line for line in machine.files() if not re.match(ignored, line)}


def test_install_sender_and_the_package_agree_on_the_place(fedora: bare.Machine, rpm: Path) -> None:
    rpm_in(fedora, "-e", "--nodeps", "fence-agents-kdump")
    rpm_in(fedora, "-i", *both(rpm))
    fedora.run("kdumpfence", "install-sender", "--distribution", "rhel")
    assert rpm_in(fedora, "-V", "kdumpfence") == ""
    said = fedora.try_("kdumpfence", "install-agent")
    assert (said.returncode, "belongs to the kdumpfence package" in said.stdout) == (1, True)


# ------------------------------------------------------------------ dnf


def repository(folder: Path, *packages: Path) -> Path:
    """A repository of these packages, in place of an older one."""
    needs("createrepo_c")
    repo = folder / "repository"
    repo.mkdir(exist_ok=True)
    # dnf may take one that was made in the same second for the older one.
    shutil.rmtree(folder / "cache", ignore_errors=True)
    for package in packages:
        shutil.copy(package, repo)
    run("createrepo_c", "--quiet", repo)
    return repo


def dnf(machine: bare.Machine, repo: Path, *arguments: str | Path) -> tuple[int, str]:
    """Run dnf on the machine with that repository alone; its exit status, and what it said."""
    program = "dnf5" if shutil.which("dnf5") else "dnf"
    needs(program)
    settings = {
        "cachedir": repo.with_name("cache"),
        "logdir": "/tmp",
        "metadata_expire": 0,
        "install_weak_deps": 0,
        "gpgcheck": 0,
        "local.gpgcheck": 0,
        "localpkg_gpgcheck": 0,
        "plugins": 0,
    }
    done = machine.outside(
        *(program, "-y", "--installroot=ROOT", "--releasever=1"),
        *(f"--setopt={name}={value}" for name, value in settings.items()),
        *(f"--repofrompath=local,file://{repo}", "--repo=local"),
        *arguments,
    )
    return done.returncode, done.stdout


def test_dnf_swaps_the_stock_package_for_it_and_back(
    fedora: bare.Machine, rpm: Path, tmp_path: Path
) -> None:
    """As README.md says it; updates of either leave the other alone."""
    repo = repository(tmp_path, *tmp_path.glob("fence-agents-*/rpmbuild/RPMS/*/*.rpm"))
    status, said = dnf(fedora, repo, "install", library_of(rpm))
    assert status == 0, said
    status, said = dnf(fedora, repo, "install", rpm)
    assert (status != 0, "conflicts with" in said) == (True, True), said
    assert fedora.run("fence_kdump") == "fence-agents-kdump 4.12.1\n"

    status, said = dnf(fedora, repo, "swap", "fence-agents-kdump", rpm)
    assert status == 0, said
    assert "compiled core" in fedora.as_hacluster("fence_kdump", "-V")
    assert rpm_in(fedora, "-V", "kdumpfence", "fence-agents-all") == ""

    everything = made_up(tmp_path, "fence-agents-all", "4.16.0", "Requires: fence-agents-kdump")
    repository(tmp_path, everything, stock(tmp_path, "4.16.0"))
    status, said = dnf(fedora, repo, "upgrade")
    assert status == 0, said
    assert rpm_in(fedora, "-q", "fence-agents-all") == "fence-agents-all-4.16.0-1.noarch\n"
    assert "compiled core" in fedora.run("fence_kdump", "-V")

    status, said = dnf(fedora, repo, "swap", "kdumpfence", "fence-agents-kdump")
    assert status == 0, said
    assert fedora.run("fence_kdump") == "fence-agents-kdump 4.16.0\n"
    assert fedora.run(f"/{SENDER}") == "fence-agents-kdump 4.16.0\n"


def test_kdump_is_to_take_the_new_sender(fedora: bare.Machine, rpm: Path) -> None:
    """By newer settings kdumpctl knows that it has to, and by no newer sender."""
    rpm_in(fedora, "-e", "--nodeps", "fence-agents-kdump")
    settings = fedora.root / "etc/kdump.conf"
    settings.write_text("path /var/crash\n")
    rpm_in(fedora, "-i", library_of(rpm))
    for arguments in (("-i", rpm), ("-U", "--force", rpm), ("-e", "--nodeps", "kdumpfence")):
        os.utime(settings, (1, 1))
        said = rpm_in(fedora, *arguments)
        assert settings.stat().st_mtime > 1
        assert ("kdumpctl rebuild && kdumpctl reload" in said) == (arguments[0] != "-e")
    settings.unlink()
    sysconfig = fedora.root / "etc/sysconfig/kdump"
    sysconfig.parent.mkdir(exist_ok=True)
    sysconfig.write_text('KDUMP_PRESCRIPT="/usr/lib/fence_kdump_send node2"\n')
    assert "mkdumprd -f && systemctl restart kdump" in rpm_in(fedora, "-i", rpm)
