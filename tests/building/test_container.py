# SPDX-License-Identifier: LGPL-2.1-or-later
"""The image of kdumpfenced, built by buildah, and run as an engine would with nothing but its file.

Its base is a Debian of this machine's own suite, since images are not fetched here. What that
cannot show: Docker, Podman and Kubernetes themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence import keys
from tests.conftest import cannot_run
from tests.daemon.running import until
from tests.packages.conftest import needs, run
from tests.support.once import once
from tests.support.sources import ROOT
from tools.suite import MIRROR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
USER = 7410
KEY = bytes(range(32))
SETTINGS = 'auth = "sha256"\nnetworks = ["127.0.0.0/8"]\n[metrics]\nport = 9741\n'

#: As an engine does it: $1 is the image, $2 the settings, $3 a Secret's volume; then the program.
_RUN = """
root=$1
ip link set lo up
mount --bind "$root" "$root"
mount --bind "$2" "$root/etc/kdumpfence"
for place in run/kdumpfenced:755 var/lib/kdumpfenced:700; do
    mount -t tmpfs -o "uid=USER,gid=USER,mode=${place#*:}" tmpfs "$root/${place%:*}"
done
mount -t tmpfs tmpfs "$root/dev"
cp -a /dev/null /dev/zero /dev/random /dev/urandom "$root/dev/"
mkdir "$root/dev/secrets"
mount --bind "$3" "$root/dev/secrets"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
shift 3
setpriv=$(command -v setpriv) chroot=$(command -v chroot)
exec env -i "$PATHS" CREDENTIALS_DIRECTORY=/dev/secrets \
    "$setpriv" --no-new-privs --inh-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid \
    "$chroot" --userspec=USER:USER --groups= "$root" "$@"
""".replace("USER", str(USER))


class Builder:
    """buildah, with all that it keeps below one folder."""

    def __init__(self, folder: Path) -> None:
        needs("buildah", "mmdebstrap", "unshare", "setpriv")
        if os.geteuid() != 0:
            cannot_run("only root can build an image here")
        self._policy = folder / "policy.json"
        self._policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (folder / "registries.conf").write_text("")
        self._options: tuple[str | Path, ...] = (
            *("--root", folder / "storage", "--runroot", folder / "run"),
            *("--registries-conf", folder / "registries.conf"),
        )
        # Not every file system can be below an overlay. Without one, each step is a copy.
        trial = ("buildah", *self._options, "--storage-driver", "overlay", "info")
        lays = subprocess.run(trial, capture_output=True, check=False, timeout=60).returncode == 0
        self._options += ("--storage-driver", "overlay" if lays else "vfs")

    def __call__(self, command: str, *arguments: str | Path) -> str:
        """What buildah says."""
        trusting = ("--signature-policy", self._policy)
        more = trusting if command in ("from", "commit", "bud") else ()
        return run("buildah", *self._options, command, *more, *arguments).strip()


def make(folder: Path) -> None:
    """Build the image, and leave its content and its configuration there."""
    builder = Builder(folder)
    suite = run("sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"').strip()
    base = folder / "base.tar"
    run(
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=apt"),
        *("--dpkgopt=force-unsafe-io", "--include=ca-certificates", suite, base),
        f"deb {MIRROR} {suite} main",
    )
    container = builder("from", "scratch")
    builder("add", container, base, "/")
    # Whoever answers here in the place of PyPI is known to this machine.
    builder("add", container, CERTIFICATES, CERTIFICATES)
    # And how fast the core is does not matter here.
    builder("config", "--env", f"PIP_CERT={CERTIFICATES}", "--env", "CFLAGS=-O0", container)
    builder("commit", "--rm", container, "localhost/base")
    base.unlink()
    file = ROOT / "packaging/container/Containerfile"
    image = ("--format", "docker", "--build-arg", "BASE=localhost/base", "-t", "kdumpfenced")
    builder("bud", "--isolation", "chroot", *image, "-f", file, ROOT)
    (folder / "image.json").write_text(builder("inspect", "--type", "image", "kdumpfenced"))
    # Without the layers, which are half a gigabyte.
    container = builder("from", "kdumpfenced")
    run("cp", "-a", builder("mount", container), folder / "root")
    builder("umount", container)
    overlays = folder / "storage/overlay"
    if overlays.is_mount():
        run("umount", "--recursive", overlays)
    shutil.rmtree(folder / "storage")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the image's root directory and its configuration."""
    return once(tmp_path_factory, "image", make)


def configuration(image: Path) -> dict[str, Any]:
    """What the image says of itself."""
    found: dict[str, Any] = json.loads((image / "image.json").read_text())["Docker"]["config"]
    return found


class Container:
    """One that runs the image's program, and in which others can be run."""

    def __init__(self, image: Path, folder: Path) -> None:
        said = configuration(image)
        self._root = image / "root"
        self.check: list[str] = said["Healthcheck"]["Test"]
        assert self.check.pop(0) == "CMD"
        (self._path,) = (word for word in said["Env"] if word.startswith("PATH="))
        for name in ("etc", "secret/..data"):
            (folder / name).mkdir(parents=True)
        (folder / "etc/kdumpfenced.toml").write_text(SETTINGS)
        cluster = keys.Keys((keys.key_id(KEY), KEY))
        # A Secret's volume with defaultMode: 0440 and fsGroup.
        key = folder / "secret/..data/key"
        key.write_text(cluster.text())
        key.chmod(0o440)
        os.chown(key, 0, USER)
        (folder / "secret/key").symlink_to("..data/key")
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._outer = subprocess.Popen(
                ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-euc",
                 _RUN, "sh", self._root, folder / "etc", folder / "secret", *said["Entrypoint"]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PATHS": self._path},
            )  # fmt: skip

    def first(self) -> int:
        """Process 1 of the container, as it is known outside."""

        def children() -> list[str]:
            assert self._outer.poll() is None, self.log.read_text()
            return (
                Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
            )

        return int(until(children)[0])

    def try_(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the image, as its user."""
        enter = ("nsenter", f"--target={self.first()}", "--net", "--mount", "--pid")
        user = ("chroot", f"--userspec={USER}:{USER}", str(self._root), "env", "-i", self._path)
        return subprocess.run(
            [*enter, *user, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )

    def healthy(self) -> bool:
        """What the engine's health check finds."""
        return self.try_(*self.check).returncode == 0

    def end(self, number: int) -> int:
        """Send process 1 a signal; the exit status."""
        os.kill(self.first(), number)
        return self._outer.wait(60)

    def close(self) -> None:
        """Be done with it, whatever runs there."""
        self._outer.kill()
        self._outer.wait(60)


@pytest.fixture
def container(image: Path, tmp_path: Path) -> Iterator[Container]:
    """A container that answers."""
    made = Container(image, tmp_path)
    with contextlib.closing(made):
        until(made.healthy)
        yield made


def test_what_the_image_asks_of_an_engine(image: Path) -> None:
    said = configuration(image)
    assert said["User"] == f"{USER}:{USER}"
    assert said["Entrypoint"] == ["kdumpfenced"]
    assert said["ExposedPorts"] == {"7410/udp": {}}
    assert set(said["Volumes"]) == {"/run/kdumpfenced", "/var/lib/kdumpfenced"}
    root = image / "root"
    assert not list((root / "opt/kdumpfence/bin").glob("pip*"))
    assert not (root / "usr/bin/gcc").exists()


def test_it_needs_no_rights_and_nothing_that_can_be_written_but_its_volumes(
    container: Container,
) -> None:
    status = Path(f"/proc/{container.first()}/status").read_text().split("\n")
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert fields["Uid"].split() == [str(USER)] * 4
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
    assert container.try_("touch", "/opt/kdumpfence/x").returncode != 0

    node_key = container.log.with_name("node-key")
    of_node = keys.Keys((keys.key_id(KEY), KEY)).of("node7")
    assert of_node is not None
    node_key.write_text(of_node.text())
    node_key.chmod(0o600)
    signing = ("--key-file", node_key, "--node", "node7", "-p", "7410", "-c", "30", "127.0.0.1")
    program = (sys.executable, "-m", "kdumpfence.sender")
    with subprocess.Popen(
        ["nsenter", f"--target={container.first()}", "--net", *program, *signing],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as sending:
        until(lambda: "node7" in container.try_("kdumpfence", "status", "--json").stdout)
        sending.kill()
    version = container.try_("kdumpfenced", "-V").stdout
    assert "compiled core" in version
    metrics = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9741/metrics').read())"
    assert "kdumpfence_" in container.try_("python3", "-c", metrics).stdout


def test_process_1_heeds_signals(container: Container) -> None:
    os.kill(container.first(), signal.SIGHUP)
    until(lambda: "settings" in container.log.read_text())
    assert container.healthy()
    assert container.end(signal.SIGTERM) == 0


def test_the_health_check_notices_that_nobody_answers(container: Container) -> None:
    os.kill(container.first(), signal.SIGSTOP)
    assert not container.healthy()
    os.kill(container.first(), signal.SIGCONT)
    until(container.healthy)
