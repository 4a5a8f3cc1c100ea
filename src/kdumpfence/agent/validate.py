# SPDX-License-Identifier: LGPL-2.1-or-later
"""The action validate-all: what can be known without a crash.

The options as such were checked before. Of a fence daemon's request only what the device says is
judged, and no name is looked up: Pacemaker names "node1" here, whatever its nodes are called, and
waits. It may also ask on the very node that the device is for.
"""

from __future__ import annotations

import select
import time

from kdumpfence.addresses import FAMILIES, LookUpError, Resolver, joined, literal, look_up
from kdumpfence.agent.signed import read_signatures
from kdumpfence.agent.sockets import Listening, PortError
from kdumpfence.cmdline import OptionError
from kdumpfence.own_addresses import is_own, node_literal, why_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.agent.options import AgentOptions
    from kdumpfence.log import Report

#: Seconds that a validation by hand waits for look-ups.
PATIENCE = 5


def validate(options: AgentOptions, families: tuple[int, ...], report: Report) -> bool:
    """Whether all is well; what is not is said."""
    good = not options.complaints
    if options.auth != "none":
        try:
            read_signatures(options, named=options.by_hand and bool(options.names))
        except OptionError as error:
            report.error(str(error))
            good = False
    names = []
    judge = node_literal if options.by_hand else literal
    for name in options.names:
        try:
            found = judge(name, FAMILIES[options.family])
        except LookUpError as error:
            report.error(f"node '{name}': {error}")
            good = False
            continue
        if found is None:
            names.append(name)
        elif found[0].loopback:
            report.debug(f"node '{name}': loopback address; only useful for testing")
        elif not options.by_hand and is_own(found[0]):
            report.debug(f"node '{name}': {why_own(found)}, which cannot hear itself")
    if options.listener:
        return _daemon_hears(options, report) and good
    if options.by_hand and not _all_resolve(names, FAMILIES[options.family], report):
        good = False
    try:
        listening = Listening(options.ipport, families)
    except PortError as error:
        report.error(str(error))
        return False
    if not listening.raw:
        report.debug("no CAP_NET_RAW: cannot hear messages while another program holds the port")
    if listening.obstacle:
        report.error(listening.obstacle)
        good = False
    listening.close()
    return good


def _daemon_hears(options: AgentOptions, report: Report) -> bool:
    """Whether a kdumpfenced listens for this agent. No port is needed here then.

    A cluster is only warned: it makes up names, and may ask where or when no daemon runs yet.
    """
    from kdumpfence.agent.daemon_wait import look, names_of

    why = look(options, report, names_of(options) if options.by_hand else ())
    if why:
        (report.error if options.by_hand else report.warning)(why)
    return not (why and options.by_hand)


def _all_resolve(names: list[str], family: int, report: Report) -> bool:
    """Whether each name has an address of another machine, by one look-up within PATIENCE."""
    good = True
    waiting = dict.fromkeys(names)
    resolver = Resolver(names, family, ask=look_up)
    poller = select.poll()
    poller.register(resolver.fd, select.POLLIN)
    ends = time.monotonic() + PATIENCE
    while True:
        for name, answer in resolver.step():
            resolver.discard(name)
            del waiting[name]
            if isinstance(answer, LookUpError):
                report.error(f"node '{name}': {answer}")
                good = False
                continue
            report.debug(f"'{name}' is {joined(answer)}")
            own = [address for address in answer if address.loopback or is_own(address)]
            if len(own) == len(answer):
                report.error(f"node '{name}': {why_own(own)}")
                good = False
            elif own:
                report.warning(f"node '{name}': {why_own(own)}; ignoring that address")
        left = ends - time.monotonic()
        if not waiting or left <= 0:
            break
        poller.poll(min(left, 0.1) * 1000)
    resolver.close()
    for name in waiting:
        report.error(f"node '{name}': name lookup timed out after {PATIENCE} seconds")
    return good and not waiting
