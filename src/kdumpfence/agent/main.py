# SPDX-License-Identifier: LGPL-2.1-or-later
"""fence_kdump: the fence agent. Exit status 0 = the node is in its crash kernel.

The actions, and the loop that waits. What is believed is decided in `decision`, how the
port is heard in `sockets`; this file only moves things between them.
"""

from __future__ import annotations

import posix
import sys
import time

from kdumpfence import signals, wire
from kdumpfence.addresses import (
    FAMILIES,
    Address,
    LookUpError,
    NameFiles,
    Resolver,
    joined,
    socket_families,
)
from kdumpfence.agent.asking import READS, Asking, questions
from kdumpfence.agent.decision import Signatures, Watch
from kdumpfence.agent.options import (
    AGENT_OPTIONS,
    MOST_STDIN,
    AgentOptions,
    agent_from_argv,
    agent_from_stdin,
)
from kdumpfence.agent.sockets import Listening, PortError
from kdumpfence.cmdline import OptionError, UsageError, usage
from kdumpfence.log import Report, write
from kdumpfence.own_addresses import is_own, look_up_node, node_literal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROGRAM = "fence_kdump"

#: After a look at the census sockets they rest for so long, so that a flood costs about one
#: per cent of one processor, whatever its rate. Seconds; the proof sockets never rest.
CENSUS_REST = 0.05

#: A look is at most so many reads of each socket: few where it only counts what was rejected,
#: more where the proof may be among what is found there.
CENSUS_READS = 4
CENSUS_READS_FOR_PROOF = 32

#: Bytes of a nonce.
NONCE_BYTES = 16

#: Answers that are read at the end, of each socket; a flood must not keep the wait alive.
ANSWERS_AT_THE_END = 4096

#: After a look at what has changed with the interfaces, seconds: many may come and go together.
LINKS_REST = 0.05

#: Seconds between looks at the files that names stand in, while a name has no address.
NAMES_SLICE = 0.5

YES, NO = 0, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent; the exit status. Without arguments, options come from stdin."""
    arguments = sys.argv[1:] if argv is None else argv
    started = time.monotonic()
    report = Report(PROGRAM)
    signals.install()
    try:
        try:
            if arguments:
                options = agent_from_argv(arguments)
            else:
                options = agent_from_stdin(_read_stdin())
        except OptionError as error:
            report.error(str(error))
            if isinstance(error, UsageError):
                write(2, usage(PROGRAM, "", AGENT_OPTIONS).encode())
            return NO
        report.verbose = options.verbose
        for complaint in options.complaints:
            report.error(complaint)
        return _run(options, report, started)
    except signals.Ended as signal:
        report.error(f"ended by {signal} before the node was heard")
        return NO
    except MemoryError:
        report.error("out of memory")
        return NO
    except OSError as error:
        report.error(f"cannot continue: {error.strerror}")
        return NO


def script() -> None:
    """The program. Leaves at once: look-ups that hang must not delay the answer."""
    posix._exit(main())


def _read_stdin() -> bytes:
    data = b""
    while len(data) <= MOST_STDIN:
        try:
            part = posix.read(0, 65536)
        except OSError as error:
            raise OptionError(f"stdin: {error.strerror}") from None
        if not part:
            break
        data += part
    return data


def _run(options: AgentOptions, report: Report, started: float) -> int:
    if options.action == "version" or report.verbose >= 2:
        from kdumpfence._version import __version__  # rarely wanted

        why = f" ({wire.FALLBACK_REASON})" if wire.FALLBACK_REASON else ""
        report.debug(f"kdumpfence {__version__}, {wire.IMPLEMENTATION} core{why}", level=2)
    report.debug(
        f"action={options.action} nodename={','.join(options.names)} ipport={options.ipport} "
        f"family={options.family} timeout={options.timeout} verbose={options.verbose} "
        f"auth={options.auth} alive_grace={options.alive_grace} listener={options.listener}",
        level=1,
    )
    for line in options.passed_over:
        report.debug(line, level=1)
    if options.action == "help":
        write(1, usage(PROGRAM, "", AGENT_OPTIONS).encode())
        return YES
    if options.action == "version":
        write(1, f"{PROGRAM} {__version__} (kdumpfence, {wire.IMPLEMENTATION} core)\n".encode())
        return YES
    if options.action == "metadata":
        from kdumpfence.agent.metadata import METADATA

        _write_all(1, METADATA.encode())
        return YES
    if options.action == "validate-all":
        from kdumpfence.agent.validate import validate

        return YES if validate(options, socket_families(options.family), report) else NO
    if options.action in ("monitor", "status"):
        return _monitor(options, report)
    if options.listener:
        return _off_by_daemon(options, report, started)
    return _off(options, report, started)


def _write_all(fd: int, data: bytes) -> None:
    """Nobody waits for a fencing here, so this may block, unlike `report.write`."""
    try:
        while data:
            data = data[posix.write(fd, data) :]
    except OSError:
        pass


def _monitor(options: AgentOptions, report: Report) -> int:
    from kdumpfence.crashkernel import CrashKernel

    state = CrashKernel()
    for line in state.lines:
        if state.ready:
            report.debug(line)
        else:
            report.error(line)
    heard = True
    if options.listener:
        from kdumpfence.agent.daemon_wait import look, names_of

        why = look(options, report, names_of(options))
        heard = not why
        if why:
            report.error(why)
    return YES if state.ready and heard else NO


# ------------------------------------------------------------------ the action off


class _Wait:
    """One wait for one node: sockets, name service and decision, wired together."""

    def __init__(
        self, options: AgentOptions, report: Report, signatures: Signatures | None
    ) -> None:
        self.report = report
        self.family = FAMILIES[options.family]
        nonce = posix.urandom(NONCE_BYTES)
        self.watch = Watch(
            options.names,
            self._is_own,
            nonce=nonce,
            called=options.called,
            signatures=signatures,
            grace=options.alive_grace,
            ignores=lambda text: report.debug(f"ignoring {text} (auth={options.auth})"),
        )
        self.complained: set[object] = set()
        self.announced = False
        signed_names = None if signatures is None else signatures.names
        families = socket_families(options.family)
        self.listening = Listening(options.ipport, families, names=signed_names)
        asked = questions(nonce, (*options.called, *options.names), signatures)
        listening = self.listening
        self.asking = Asking(options.ipport, nonce, asked, listening.say, listening.vrfs)
        #: What is waited with: where signed answers alone count, they come to `asking`.
        self.waiting = listening.proof
        if signatures is not None:
            self.waiting = wire.Receiver(wire.Sources(), batch=1, size=64)
        names = []
        try:
            for name in options.names:
                try:
                    addresses = node_literal(name, self.family)
                except LookUpError as error:
                    self._failed(name, error)
                    continue
                if addresses is None:
                    names.append(name)
                else:
                    self._resolved(name, addresses)
            self.name_files = NameFiles()
            self.resolver = Resolver(names, self.family, ask=look_up_node)
        except BaseException:
            self.listening.close()
            raise

    def close(self) -> None:
        self.asking.close()
        self.listening.close()
        self.resolver.close()

    def _failed(self, name: str, error: LookUpError) -> None:
        if name not in self.complained:
            self.complained.add(name)
            again = "" if error.permanent else "; will try again"
            self.report.error(f"node '{name}': {error}{again}")
        if error.permanent:
            self.watch.unresolvable(name)

    def _resolved(self, name: str, addresses: list[Address]) -> None:
        self.report.debug(f"'{name}' is {joined(addresses)}", level=1)
        new = self.watch.resolved(name, addresses, self.listening.heard)
        self.listening.add(new)
        self.asking.add(new)
        if self.announced:
            self._waits_for(new)

    def announce(self) -> None:
        """Say who is waited for, from now on."""
        self.announced = True
        known = [address for addresses in self.watch.names.values() for address in addresses]
        self._waits_for(dict.fromkeys(known))
        for name in self.resolver.unresolved:
            self.report.debug(f"waiting for message from '{name}', which has no address yet")

    def _waits_for(self, addresses: Iterable[Address]) -> None:
        how = "" if self.listening.raw else " (without raw sockets)"
        for address in addresses:
            self.report.debug(f"waiting for message from '{address}'{how}")

    def _is_own(self, address: Address) -> bool:
        """Whether this machine took it over during the wait, as it may a cluster's address."""
        if address.loopback or not is_own(address):
            return False
        if address not in self.complained:
            self.complained.add(address)
            self.report.error(
                f"ignoring a message from {address}: it is now an address of this machine"
            )
        return True

    def _names(self) -> None:
        """Take what the name service said."""
        for name, answer in self.resolver.step():
            if isinstance(answer, LookUpError):
                self._failed(name, answer)
            else:
                self._resolved(name, answer)

    def _follow(self) -> bool:
        """Follow the interfaces; whether there was something to follow."""
        listening = self.listening
        if not listening.changed():
            return False
        # What came before is judged by what was so before.
        self._heard(listening.look(256, 256))
        self._answered(ANSWERS_AT_THE_END)
        moved = listening.moved()
        for address in moved.values():
            self.report.debug(f"the interface of {address} was recreated", level=1)
        self.watch.moved(moved, listening.heard)
        return True

    def _heard(self, arrivals: list[wire.Arrival]) -> None:
        for arrival in arrivals:
            # After the proof nothing is looked at any more, which may be thousands.
            if self.watch.proof is None and self.listening.believes(arrival.interface):
                address = Address(arrival.packed, arrival.scope)
                if self.watch.heard(address, arrival.message):
                    self.asking.add_sender(address, arrival.port)

    def _answered(self, most: int = READS) -> None:
        now = time.monotonic()
        for address, data in self.asking.take(most):
            if self.watch.proof is None:
                self.watch.answered(address, data, now)

    def until(self, deadline: float) -> bool:
        """Wait for the proof until `deadline` (time.monotonic), or until the node is alive."""
        listening, asking, watch = self.listening, self.asking, self.watch
        signed = self.waiting is not listening.proof
        census_due = links_due = 0.0
        listening.end(deadline)
        asking.end(deadline)
        while watch.can_succeed and not watch.decided:
            # In a flood this is run from cold caches 40 times a second: what is over is skipped.
            wake = []
            moments: list[float | None] = [deadline]
            if self._follow():
                links_due = time.monotonic() + LINKS_REST
                if watch.proof is not None:
                    break
            if self.resolver.busy:
                if self.name_files.changed():
                    self.resolver.hurry()
                self._names()
                if watch.proof is not None:  # heard before its name resolved
                    break
                wake.append(self.resolver.fd)
                moments += [self.resolver.next_due, time.monotonic() + NAMES_SLICE]
            if listening.next_try is not None:
                listening.retry()
                moments.append(listening.next_try)
            now = time.monotonic()
            if now >= deadline:
                break
            asking.ask(listening.addresses, now)
            wake += asking.fds
            moments.append(asking.next_due)
            if now < links_due:
                moments.append(links_due)
            else:
                wake += listening.fds
            rests = now < census_due
            if rests:
                moments.append(census_due)
            else:
                wake += listening.census_fds
            until = min(moment for moment in moments if moment is not None)
            try:
                self._heard(self.waiting.receive(round(until * 1e9), wake))
            except OSError as error:
                # Out of memory, say: the wait goes on, without what would wake it.
                self.report.debug(f"poll: {error.strerror}", level=1)
                time.sleep(0.05)
                self._heard(listening.look(0, 1))
            self._answered()
            # Not at the end of a rest, nor if nothing woke: a rest costs a wake of its own.
            if not rests and time.monotonic() < until:
                sure = listening.raw and not self.resolver.busy
                census = CENSUS_READS if sure else CENSUS_READS_FOR_PROOF
                self._heard(listening.look(census, CENSUS_READS_FOR_PROOF if signed else 0))
                census_due = time.monotonic() + CENSUS_REST
        # What lay in the queues at the deadline came in time; what came later is passed over.
        if watch.proof is None:
            self._heard(listening.look(0, 256))
            self._answered(ANSWERS_AT_THE_END)
        if watch.proof is None:
            self._heard(listening.look(256, 0))
            self._follow()
            self._names()
        return watch.proof is not None


def _signatures(options: AgentOptions) -> Signatures | None:
    """What is needed to believe signed answers alone, if that is asked for. OptionError."""
    if options.auth == "none":
        return None
    from kdumpfence.agent.signed import read_signatures

    return read_signatures(options)


def _off_by_daemon(options: AgentOptions, report: Report, started: float) -> int:
    """As `_off`, where a kdumpfenced listens instead."""
    from kdumpfence.agent.daemon_wait import off

    try:
        return YES if off(options, report, _signatures(options), started) else NO
    except OptionError as error:
        report.error(str(error))
        return NO


def _off(options: AgentOptions, report: Report, started: float) -> int:
    deadline = started + options.timeout
    shown = ",".join(options.names)
    wait = None
    try:
        wait = _Wait(options, report, _signatures(options))
        if wait.listening.obstacle:
            report.error(wait.listening.obstacle)
        if not wait.watch.can_succeed:
            return NO  # each reason was told
        wait.announce()
        heard = wait.until(deadline)
        watch, level = wait.watch, 1
        if heard:
            report.debug(_proof(watch, shown))
        elif watch.alive:
            report.error(watch.alive)
        else:
            if watch.can_succeed:
                report.debug(f"timeout after {options.timeout} seconds")
            level = 0
            _explain(wait, options, report)
        report.debug(f"questions: {wait.asking.sent}, answers: {watch.answers}", level=level)
        return YES if heard else NO
    except (OptionError, PortError) as error:
        report.error(str(error))
        return NO
    finally:
        if wait is not None:
            wait.close()


def _proof(watch: Watch, shown: str) -> str:
    """Says what the yes is for."""
    signed = watch.signed
    if signed is None:
        return f"received valid message from '{watch.proof}' ({shown})"
    return f"received signed answer of '{signed.name}' from {watch.proof}, key {signed.key_id:08x}"


def _explain(wait: _Wait, options: AgentOptions, report: Report) -> None:
    """Why there is no proof: what an administrator would have to find out otherwise."""
    counts = {"of the node": 0, **wait.listening.counts}
    counts["of the node"] = counts.pop("accepted")  # and yet no proof
    rejected = ", ".join(f"{counts[reason]} {reason}" for reason in counts if counts[reason])
    if not rejected:
        rejected = "none" if wait.listening.census_fds else "not counted"
    report.debug(f"datagrams to the port: {rejected}")
    heard = dict.fromkeys(Address(packed, at) for packed, at in wait.listening.strangers)
    strangers = [address for address in heard if wait.watch.name_of(address) is None]
    if strangers:
        more = f" and {len(strangers) - 5} more" if len(strangers) > 5 else ""
        report.error(
            f"valid messages from {joined(strangers[:5])}{more}: "
            f"not among the addresses of '{','.join(options.names)}'"
        )
    if wait.watch.said_alive:
        report.error(
            f"node '{wait.watch.said_alive}' answered that it is alive; waited all the same "
            f"(alive_grace={options.alive_grace})"
        )
    for text in wait.watch.ignored.values():
        report.error(f"not believed: {text}")
    if wait.watch.unasked is not None:
        report.error(
            f"the node signed a message from {wait.watch.unasked}, but no answer to a question of "
            "this wait came: either it was recorded earlier, or questions or answers are filtered"
        )
    unresolved = [name for name, addresses in wait.watch.names.items() if not addresses]
    if unresolved:
        report.error(f"never resolved: {', '.join(unresolved)}")
    for obstacle in (wait.listening.obstacle, wait.asking.obstacle):
        if obstacle:
            report.error(obstacle)


if __name__ == "__main__":
    script()
