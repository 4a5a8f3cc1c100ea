# SPDX-License-Identifier: LGPL-2.1-or-later
"""Running the installed programs as a cluster would."""

from __future__ import annotations

import atexit
import functools
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kdumpfence.install import native_sender
from tests.conftest import cannot_run

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
AGENT, SENDER = str(BIN / "fence_kdump"), str(BIN / "fence_kdump_send")

#: The sender's forms: Python on either core, the program without Python, and that one
#: without shared libraries.
FORMS = ("compiled", "pure", "native", "static")

#: What every sender says first where nothing has crashed.
WARNING = (
    "[warning]: no /proc/vmcore: this machine has not crashed, but other nodes will take it "
    "for dead\n"
)


def without_raw_sockets() -> tuple[str, ...]:
    """What starts a program that may not open raw sockets, though it may do all else."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--inh-caps=-net_raw", "--bounding-set=-net_raw")


#: Nobody's number.
NOBODY = 65534


def as_user(number: int = NOBODY, *needed: Path) -> tuple[str, ...]:
    """What starts a program as that user, who has no rights.

    This clone and its Python, or the folders that are named, may lie below one that only its
    owner may enter, as /root is: for the program everybody may.
    """
    user = ("setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups")
    folders = needed or (ROOT, Path(sys.prefix), Path(sys.base_prefix))
    return (*_opened(*(folder.resolve() for folder in folders)), *user)


@functools.cache
def _opened(*folders: Path) -> tuple[str, ...]:
    """What starts a program in a mount namespace in which everybody may enter these."""
    ways = {way for folder in folders for way in (folder, *folder.parents)}
    closed = sorted(way for way in ways if not way.stat().st_mode & 0o001)
    command: tuple[str, ...] = ()
    for top in closed:
        if not any(way in closed for way in top.parents):
            # Over it lies one that is the same, but for the modes of those on the way.
            modes = Path(tempfile.mkdtemp(prefix="kdumpfence-open-"))
            atexit.register(shutil.rmtree, modes)
            for way in closed:
                if way == top or top in way.parents:
                    (modes / way.relative_to(top)).mkdir(exist_ok=True, parents=True)
                    (modes / way.relative_to(top)).chmod(0o755)
            mount = 'mount -t overlay overlay -o "lowerdir=$0:$1" "$1" && shift && exec "$@"'
            command += ("unshare", "--mount", "sh", "-c", mount, str(modes), str(top))
    return command


def sender(form: str) -> str:
    """The path of the sender in that form."""
    if form not in ("native", "static"):
        return SENDER
    try:
        return native_sender.find(static=form == "static")
    except native_sender.NotBuilt as error:
        cannot_run(str(error))


def unwarned(errors: str) -> str:
    """What is on stderr beside the one warning, which must be there."""
    assert errors.count(WARNING) == 1, errors
    return errors.replace(WARNING, "")


def environment(form: str) -> dict[str, str]:
    """The environment that chooses this core."""
    return {**os.environ, "KDUMPFENCE_PURE": "1" if form == "pure" else "0"}


def start(argv: list[str], form: str, **options: object) -> subprocess.Popen[str]:
    """One of our programs with pipes for its output."""
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(form),
        **options,
    )


def wait_for_line(
    process: subprocess.Popen[str], text: str, seconds: float = 60, stream: str = "stdout"
) -> str:
    """The line of that stream that begins with this text; "" at its end.

    Nothing behind the line is taken: neither `select` nor `communicate` knows of what lies in a
    buffer of Python's.
    """
    fd = getattr(process, stream).fileno()
    end = time.monotonic() + seconds
    line = b""
    while time.monotonic() < end:
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        byte = os.read(fd, 1)
        line += byte
        if byte == b"\n" or not byte:
            if not byte or line.startswith(text.encode()):
                return line.decode()
            line = b""
    raise AssertionError(f"no line {text!r} within {seconds} s")


def agent_waits(process: subprocess.Popen[str]) -> None:
    """Return as soon as the agent listens."""
    assert wait_for_line(process, "[debug]: waiting for"), process.communicate()
