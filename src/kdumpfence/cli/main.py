# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfence: what there is to do beside fencing: putting both programs in their places,
showing what kdumpfenced has heard, and trying what listens to the messages.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from kdumpfence._version import __version__
from kdumpfence.install import agent_files, installer, layouts, native_sender, system_python
from kdumpfence.install.dpkg import DpkgError
from kdumpfence.install.layouts import LAYOUTS, Layout
from kdumpfence.install.root_directory import Tree
from kdumpfence.storm import player
from kdumpfence.text import one_line

INSTALLED = "installed"  # instead of the name of a distribution
_NO_RIGHTS = (errno.EACCES, errno.EPERM)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise installer.InstallError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kdumpfence",
        description="The agent, the crash kernel's sender, and their places; "
        "what kdumpfenced has heard.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"kdumpfence {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    where = commands.add_parser("native-sender", help="print the path of the native sender")
    where.add_argument("--static", action="store_true", help="of the one that needs no libc")

    agent = commands.add_parser(
        "install-agent",
        help=f"put the agent at {agent_files.AGENT}, for the system's Python",
    )
    put = commands.add_parser(
        "install-sender",
        help="put the native sender where this distribution's kdump looks for it",
    )
    for one in (agent, put):
        one.add_argument("--remove", action="store_true", help="take it away again")
        one.add_argument("--dry-run", action="store_true", help="say what would be done")
        one.add_argument(
            "--root", default="/", metavar="DIR", help="of an image that is being built"
        )
    put.add_argument(
        "--distribution",
        metavar="NAME",
        help=f"{', '.join(LAYOUTS)}; by default that of /etc/os-release; "
        f"{INSTALLED}: each that this was done for before",
    )
    put.add_argument("--static", action="store_true", help="the one that needs no libc")
    _add_window(commands)

    player.add_options(
        commands.add_parser("storm", help="play any number of nodes that dump, to try a listener")
    )
    return parser


def _add_window(commands: argparse._SubParsersAction[_Parser]) -> None:
    """The commands that show something; window.py has the rest."""
    now = commands.add_parser("status", help="who is dumping now, from kdumpfenced")
    live = commands.add_parser("watch", help="the same, live; q or Ctrl-C ends it")
    past = commands.add_parser(
        "history", help="past dumps, how long each took, and what that means for time-outs"
    )
    for one in (now, live):
        one.add_argument("--socket", metavar="PATH", help="where kdumpfenced listens")
    past.add_argument("--file", metavar="PATH", help="where kdumpfenced keeps its history")
    past.add_argument("--node", metavar="NAME", help="of this node only")
    past.add_argument(
        "--since",
        metavar="TIME",
        help="those that began then or later: 2026-11-20, '2026-11-20 03:00', or 90m, 24h, 7d ago",
    )
    past.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_seconds,
        help="the pause between two messages of the senders (10)",
    )
    for one in (now, past):
        one.add_argument(
            "--most", metavar="NUMBER", type=_number, help="show so many dumps, the newest (100)"
        )
        one.add_argument("--json", action="store_true", help="for programs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if it could be done, else 1 and one line on stderr."""
    try:
        given = _parser().parse_args(arguments)
        if given.command in ("status", "watch", "history"):
            return _window(given)
        if given.command == "native-sender":
            print(native_sender.find(given.static))
        elif given.command == "storm":
            return player.run(given)
        else:
            with contextlib.closing(_tree(given.root)) as tree:
                if given.command == "install-agent":
                    _install_agent(given, tree)
                else:
                    _install_sender(given, tree)
        sys.stdout.flush()
    except (
        installer.InstallError,
        native_sender.NotBuilt,
        player.StormError,
        system_python.NoPython,
        DpkgError,
    ) as error:
        return _complain(str(error))
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        hint = ""
        if error.errno in _NO_RIGHTS and os.geteuid() != 0:
            hint = " (this needs the rights of root)"
        return _complain(f"{where}{error.strerror or error}{hint}")
    return 0


def script() -> None:
    """The program."""
    if sys.stdout is None:  # closed by whoever started it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (to the end)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(AttributeError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    os.umask(0o022)
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    # What could not be written was complained of; Python would say so once more.
    os._exit(status)


def _complain(text: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(f"kdumpfence: {one_line(text)}", file=sys.stderr, flush=True)
    return 1


def _window(given: argparse.Namespace) -> int:
    # Only here: what puts programs in their places has to do without SQLite.
    from kdumpfence.cli import timeout_advice, window
    from kdumpfence.daemon import history as past
    from kdumpfence.daemon import status_client

    status = 0
    try:
        if given.command == "status":
            window.status(
                given.socket or status_client.PATH, given.most or window.SHOWN, given.json
            )
        elif given.command == "watch":
            status = window.watch(given.socket or status_client.PATH)
        else:
            window.history(
                given.file or past.PATH,
                given.node,
                given.since,
                given.most or window.SHOWN,
                given.interval or timeout_advice.PAUSE,
                given.json,
            )
        sys.stdout.flush()
    except (status_client.ControlError, past.HistoryError, window.WindowError) as error:
        return _complain(str(error))
    except BrokenPipeError:
        return 1  # a pager that was left early
    return status


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:10]) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"{text!r}: not a whole number from 1 to 1000000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r}: not a number of seconds above 0, up to a day")
    return seconds


def _tree(root: str) -> Tree:
    if not root:
        raise installer.InstallError("--root: no directory given")
    return Tree("/" if os.path.realpath(root) == "/" else os.path.abspath(root))


def _install_agent(given: argparse.Namespace, tree: Tree) -> None:
    if given.remove:
        installer.remove(tree, agent_files.layout(None), given.dry_run, _say)
        return
    if agent_files.is_packaged(tree):
        raise installer.InstallError(
            f"{tree.outside(agent_files.AGENT)} is that of a package of kdumpfence: update this, "
            "or remove it first"
        )
    layout = agent_files.layout(system_python.of(tree), _say)
    installer.install(tree, layout, b"", given.dry_run, _say)


def _install_sender(given: argparse.Namespace, tree: Tree) -> None:
    if given.distribution != INSTALLED:
        _put_sender(given, tree, _layout(given.distribution, tree), given.static)
        return
    # Those of a run before, for the scripts of packages; static or not, as it was then.
    names = [name for name in installer.Record.load(tree).layouts if name in LAYOUTS]
    for name in names:
        layout = LAYOUTS[name]
        (place,) = (item.path for item in layout.items if item.source == layouts.SENDER)
        dynamic = b"/ld-" in (tree.read(place) or b"/ld-")
        _put_sender(given, tree, layout, given.static or not dynamic)
    if not names:
        _say("nothing to do: nothing was installed by this program")


def _put_sender(given: argparse.Namespace, tree: Tree, layout: Layout, static: bool) -> None:
    if given.remove:
        installer.remove(tree, layout, given.dry_run, _say)
        return
    with open(native_sender.find(static), "rb") as sender:
        content = sender.read()
    installer.install(tree, layout, content, given.dry_run, _say)


def _layout(name: str | None, tree: Tree) -> Layout:
    choices = "; ".join(f"{one.name}: {one.title}" for one in LAYOUTS.values())
    if name is not None:
        if name not in LAYOUTS:
            raise installer.InstallError(f"--distribution {name!r}: not among {choices}")
        return LAYOUTS[name]
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        content = tree.read(path)
        if content is not None:
            break
    else:
        raise installer.InstallError(
            f"no {tree.outside('/etc/os-release')}: give --distribution ({choices})"
        )
    found = layouts.recognise(content)
    if found is None:
        what = ", ".join(layouts.named_in(content)) or "without an ID"
        raise installer.InstallError(
            f"{tree.outside(path)}: {what} is not known here: give --distribution ({choices})"
        )
    return found


def _say(text: str) -> None:
    print(one_line(text), flush=True)


if __name__ == "__main__":
    script()
