# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program kdumpfenced: options, signals, exit status. What it does is in loop.py."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from kdumpfence import signals, wire
from kdumpfence._version import __version__
from kdumpfence.daemon import counting, key, metrics, privileges, systemd
from kdumpfence.daemon.errors import DaemonError
from kdumpfence.daemon.formats import many
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.loop import Daemon
from kdumpfence.daemon.settings import DEFAULT_PATH
from kdumpfence.daemon.settings_file import SettingsError, load
from kdumpfence.daemon.status import ControlError
from kdumpfence.database.connection import DatabaseError, driver
from kdumpfence.keys import KeyFileError
from kdumpfence.text import one_line
from kdumpfence.wire import is_packet_name

if TYPE_CHECKING:
    from types import FrameType

PROGRAM = "kdumpfenced"

#: Seconds for which one thread keeps the interpreter from another: those that answer wait so long
#: while the main loop computes. Python's own 0.005 would be most of what an answer may take.
SWITCH = 0.0005


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise DaemonError(f"{message}; see {self.prog} --help")


class _Version(argparse.Action):
    """Says what is at work here, which takes a moment to find out."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"{PROGRAM} {__version__} ({wire.IMPLEMENTATION} core; {counting.possible()})")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = _Parser(prog=PROGRAM, description="Listens for dumping nodes and records their dumps.")
    made.add_argument(
        "--config", default=DEFAULT_PATH, metavar="PATH", help=f"settings file ({DEFAULT_PATH})"
    )
    made.add_argument(
        "--check", action="store_true", help="check the settings, print what they mean, and exit"
    )
    made.add_argument(
        "-V", "--version", action=_Version, nargs=0, help="print the version and exit"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; the exit status."""
    try:
        given = parser().parse_args(argv)
        if given.check:
            return _check(given.config)
        return _serve(given.config)
    except SettingsError as error:
        return _complain(error.faults)
    except (
        DaemonError,
        systemd.NotifyError,
        metrics.MetricsError,
        privileges.PrivilegesError,
        ControlError,
    ) as error:
        return _complain([str(error)])
    except signals.Ended as error:
        return _complain([f"ended by {error} before it was ready"])
    except MemoryError:
        return _complain(["out of memory"])
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return _complain([f"{where}{error.strerror or error}"])


def _check(path: str) -> int:
    """Say what the settings mean."""
    settings = load(path)
    for line in settings.meaning():
        print(one_line(line))
    if settings.metrics_port:
        metrics.Metrics(lambda: "")
    if settings.history_database:
        try:
            driver()
        except DatabaseError as error:
            print(one_line(f"note: database: {error}"))
    if settings.auth != "none":
        try:
            key.of_cluster(settings.key_file)
        except KeyFileError as error:
            raise DaemonError(str(error)) from None
    elif settings.answer and is_packet_name(settings.name):
        keys, level, how = key.of_node(settings.key_file, settings.name)
        if keys is None and level == "warning":
            print(one_line(f"note: as things are, answers are {how}"))
    return 0


def _serve(path: str) -> int:
    sys.setswitchinterval(SWITCH)
    signals.install()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    service = systemd.Notify()
    settings = load(path)
    journal = Journal(settings.log_level, settings.log_lines)
    daemon = Daemon(settings, service, journal)
    try:
        _handle_signals(daemon)
        # Everything that stays until the end has been made by now. From here on `_trim` says
        # when: with 100,000 dumps under way a collection stops every thread for 0.1 to 0.2 s.
        gc.collect()
        gc.freeze()
        gc.disable()
        journal.say(
            "info",
            f"{PROGRAM} {__version__} ({wire.IMPLEMENTATION} core) listens on port "
            f"{settings.port} for "
            f"{many(len(settings.nodes), 'node', 'nodes')} and "
            f"{many(len(settings.networks), 'network', 'networks')}",
        )
        journal.flush()
        daemon.run()
    finally:
        daemon.close()
    return 1 if daemon.recorder.held else 0


def _handle_signals(daemon: Daemon) -> None:
    def end(number: int, frame: FrameType | None) -> None:
        daemon.ending = daemon.ending or signal.Signals(number).name
        daemon.wakeup.wake()

    def reload(number: int, frame: FrameType | None) -> None:
        daemon.reload.wanted = True
        daemon.wakeup.wake()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, reload)


def _complain(lines: list[str]) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in lines:
            print(f"{PROGRAM}: {one_line(line)}", file=sys.stderr, flush=True)
    return 1


def script() -> None:
    """The program. Leaves at once: a look-up that hangs must not hold it."""
    # The log goes to descriptor 2: if whoever started this closed it, nothing else may get it. Nor
    # keep it: libffi 3.8, which ctypes loads, keeps its own file open, and that as number 0.
    null = os.open(os.devnull, os.O_RDWR)
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            os.dup2(null, number)
    if null > 2:
        os.close(null)
    status = main()
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    script()
