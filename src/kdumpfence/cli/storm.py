# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence storm: options, signals and summary of the player in kdumpfence.storm."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
import time
from collections import Counter

from kdumpfence import wire
from kdumpfence.cli import CommandError
from kdumpfence.cli.numbers import decimal, whole
from kdumpfence.log import write
from kdumpfence.storm import Plan, Storm
from kdumpfence.storm.pacing import MOST_SHARES, NO_END, SECOND, VALID, Mix
from kdumpfence.storm.payloads import BYTEORDERS, KINDS
from kdumpfence.storm.plan import FOREIGNERS, LOOPBACK, LOOPBACK_FOREIGN, NODES, StormError

HELP = "simulate any number of dumping nodes, to test a listener"

MOST_RATE = 10**9
MOST_SECONDS = 10**6

#: Nanoseconds until a signal is noticed while nothing is due.
_SLICE = SECOND // 10

#: Arguments that are not of the plan.
_OUR_OWN = ("command", "live", "as_json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; kdumpfence(8) has more about each."""
    add = parser.add_argument
    add("destination", nargs="?", default="127.0.0.1", metavar="ADDRESS",
        help="destination (127.0.0.1)")  # fmt: skip
    add("--port", type=whole("a port", 1, 65535), default=wire.PORT, metavar="N",
        help=f"UDP port ({wire.PORT})")  # fmt: skip
    add("--not-loopback", action="store_true",
        help="send to other machines too. DANGER: a cluster there can take this machine for a node "
             "that is dumping, and start its services elsewhere while they run here")  # fmt: skip
    add("--from", dest="network", metavar="NETWORK",
        help=f"the nodes' addresses, all this machine's own ({LOOPBACK})")  # fmt: skip
    add("--nodes", type=whole("a number of nodes", 1, 1 << 24), metavar="N",
        help=f"how many nodes, from the network's first address on ({NODES})")  # fmt: skip
    add("--foreign-from", dest="foreign_network", metavar="NETWORK",
        help=f"the addresses of strangers ({LOOPBACK_FOREIGN})")  # fmt: skip
    add("--foreigners", type=whole("a number of strangers", 1, 1 << 24), metavar="N",
        help=f"how many strangers ({FOREIGNERS})")  # fmt: skip
    add("--mix", type=read_mix, default=Mix({VALID: 1}), metavar="KIND=SHARE,...",
        help=f"kinds of datagrams: {', '.join(KINDS)} ({VALID} alone)")  # fmt: skip
    add("--byteorder", choices=BYTEORDERS, default="own",
        help="byte order of the messages; both: nodes alternate (this machine's own)")  # fmt: skip
    add("--rate", type=decimal("datagrams a second", MOST_RATE), metavar="N",
        help="datagrams a second (as many as can be sent)")  # fmt: skip
    add("--interval", type=decimal("seconds", MOST_SECONDS), metavar="SECONDS",
        help="pause between two messages of a node")  # fmt: skip
    add("--panic-within", dest="within", type=decimal("seconds", MOST_SECONDS, least=0),
        metavar="SECONDS", help="nodes start at random moments within this time")  # fmt: skip
    add("--duration", type=decimal("seconds", MOST_SECONDS), metavar="SECONDS",
        help="stop after this time")  # fmt: skip
    add("--count", type=whole("a number of datagrams", 1, NO_END), metavar="N",
        help="stop after this many datagrams")  # fmt: skip
    add("--rounds", type=whole("a number of rounds", 1, NO_END), metavar="N",
        help="stop when each node has sent this many messages")  # fmt: skip
    add("--seed", type=whole("a seed", 0, NO_END), metavar="N",
        help="the same seed gives the same datagrams in the same order")  # fmt: skip
    add("--live", action="store_true", help="figures on stderr every second, terminal or not")
    add("--json", dest="as_json", action="store_true", help="JSON output")


def read_mix(text: str) -> Mix:
    """The mix that --mix names; raises argparse.ArgumentTypeError."""
    shares: dict[str, int] = {}
    for part in text.split(","):
        kind, equals, share = part.strip().partition("=")
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r}: not among {', '.join(KINDS)}")
        if kind in shares:
            raise argparse.ArgumentTypeError(f"{kind!r} is given twice")
        shares[kind] = whole("a share", 0, MOST_SHARES)(share) if equals else 1
    try:
        return Mix(shares)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: the shares must add up to 1 to {MOST_SHARES}"
        ) from None


def plan(given: argparse.Namespace) -> Plan:
    """What these arguments ask for. Raises StormError."""
    return Plan(**{name: value for name, value in vars(given).items() if name not in _OUR_OWN})


def run(given: argparse.Namespace) -> int:
    """Play the storm and print its summary."""
    try:
        wanted = plan(given)
        storm = Storm(wanted)
    except StormError as error:
        raise CommandError(str(error)) from None
    except MemoryError:
        raise CommandError(f"out of memory with {wanted.players.number} nodes") from None
    live = given.live or (sys.stderr is not None and sys.stderr.isatty())
    signals = _Signals()
    try:
        storm.run(signals.wait, _Live(storm).show if live else None)
        print(json.dumps(storm.figures()) if given.as_json else summary(storm), flush=True)
        return _status(storm)
    finally:
        signals.release()
        storm.close()


def _status(storm: Storm) -> int:
    """The exit status; a signal is the expected end of a storm without one."""
    came, endless = storm.came, storm.plan.most == NO_END and storm.plan.until is None
    if came is not None and not endless:
        return 128 + int(came)
    return 1 if storm.errors or (storm.missing and came is None) else 0


class _Signals:
    """Holds back the signals that end a program, and hands them over when asked.

    So none comes in the middle of a batch, and every datagram is in the summary. One that
    the parent process had ignored (nohup) stays ignored.
    """

    def __init__(self) -> None:
        ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._held = {one for one in ending if signal.getsignal(one) != signal.SIG_IGN}
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._held)

    def release(self) -> None:
        """As it was before."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self, nanoseconds: int) -> signal.Signals | None:
        """Sleep for so long, but no longer than a slice; the signal that came, if one did."""
        if nanoseconds > 0:
            time.sleep(min(nanoseconds, _SLICE) / SECOND)
        # Not with a time-out of its own: behind a SIGCONT, Python takes what it finds in an
        # unset variable for the signal's number.
        info = signal.sigtimedwait(self._held, 0)
        return None if info is None else signal.Signals(info.si_signo)


class _Live:
    """A line on stderr every second; it is lost if nobody reads there."""

    def __init__(self, storm: Storm) -> None:
        self._storm = storm
        self._before = (0, 0)

    def show(self, now: int) -> None:
        """Write it, so many nanoseconds after the beginning."""
        sent, (since, sent_before) = self._storm.sent, self._before
        rate = (sent - sent_before) * SECOND / (now - since)
        failed = _errors(self._storm.errors)
        write(2, f"{now // SECOND} s: {sent} sent, {rate:.0f} a second{failed}\n".encode())
        self._before = (now // SECOND * SECOND, sent)


def summary(storm: Storm) -> str:
    """The storm's figures in words."""
    told = storm.figures()
    lines = [f"datagrams sent: {told['sent']}, in {told['seconds']:.3f} s"]
    if told["rate"] is not None:
        lines[0] += f", {told['rate']:.0f} a second"
    lines.append(", ".join(f"{number} {kind}" for kind, number in told["kinds"].items()))
    lines.append(f"from {' and '.join(map(str, storm.plan.hosts))}, seed {told['seed']}")
    if told["late"] is not None:
        lines.append(f"at most {told['late'] * 1000:.3f} ms late, and {told['together']} at a time")
    if storm.errors:
        lines.append("not sent" + _errors(storm.errors))
    if storm.missing:
        lines.append(f"not sent: {storm.missing} (no time left)")
    if storm.came is not None:
        lines.append(f"ended by {told['ended']}")
    return "\n".join(lines)


def _errors(errors: Counter[int]) -> str:
    """What failed, as in "; failed: 12 EINVAL (Invalid argument), ...", or nothing."""
    told = [
        f"{number} {errno.errorcode.get(code, str(code))} ({os.strerror(code)})"
        for code, number in errors.items()
    ]
    return f"; failed: {', '.join(told)}" if told else ""
