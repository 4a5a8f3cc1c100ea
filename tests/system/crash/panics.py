# SPDX-License-Identifier: LGPL-2.1-or-later
"""The panics that are tested and measured: what the crash kernel does, and who listens.

A `Scenario` says it without naming programs; `prepare` makes a Crash of it for one sender and one
agent. The node's address is NODE, the survivor's SURVIVOR.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from kdumpfence.install import layouts
from kdumpfence.install import native_sender as native
from tests.interop import stock
from tests.support.debian import NotAvailable
from tests.support.messages import MESSAGE
from tests.system.crash import signing, small_images
from tests.system.crash.harness import After, Beside, Crash, Network

NODE, SURVIVOR = "10.0.0.1", "10.0.0.2"
NODE_2, SURVIVOR_2 = "10.1.0.1", "10.1.0.2"
NODE_6, SURVIVOR_6 = "fd00::1", "fd00::2"

#: How often each sender is started to be measured.
ROUNDS = 6

#: How long the network of the late ones is not there, from the start of the sender; seconds.
LATE = 3

#: Seconds by which the end of a dump, which has to be told, may put off the reboot: tell-end takes
#: three, and to start a program takes an emulated processor some time.
PUT_OFF = 10


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What the crash kernel does, in the words of crash_init.sh; and the networks that it finds."""

    plan: str
    networks: Sequence[Network] = (Network([f"{SURVIVOR}/24"]),)
    node: Sequence[str] = (NODE,)  # its addresses, as the agent is told them
    panics: bool = True


_UP = f"ip link set eth0 up\nlast_step ip address add {NODE}/24 dev eth0\n"

#: kdump-utils starts the sender before it sees to the network.
AT_ONCE = Scenario(f"start sender fence_kdump_send {SURVIVOR}\n{_UP}")
NETWORK_FIRST = Scenario(f"{_UP}start sender fence_kdump_send {SURVIVOR}\n")
LATE_NETWORK = Scenario(f"start sender fence_kdump_send {SURVIVOR}\nsleep {LATE}\n{_UP}")
LATE_CARRIER = Scenario(
    f"start sender fence_kdump_send {SURVIVOR}\n{_UP}",
    networks=[Network([f"{SURVIVOR}/24"], plugged_in=After("sender starts", LATE))],
)
SECOND_NETWORK = Scenario(
    f"""
    start sender fence_kdump_send {SURVIVOR} {SURVIVOR_2}
    ip link set eth0 up
    ip address add {NODE}/24 dev eth0
    ip link set eth1 up
    last_step ip address add {NODE_2}/24 dev eth1
    """,
    networks=[Network([f"{SURVIVOR}/24"], dead=True), Network([f"{SURVIVOR_2}/24"])],
    node=(NODE, NODE_2),
)
IPV6_ONLY = Scenario(
    f"""
    start sender fence_kdump_send {SURVIVOR_6}
    ip link set eth0 up
    ip address add {NODE_6}/64 dev eth0
    usable fd000000000000000000000000000001
    """,
    networks=[Network([f"{SURVIVOR_6}/64"])],
    node=(NODE_6,),
)
LATE_NAMES = Scenario(
    f"""
    start sender fence_kdump_send survivor
    {_UP}
    sleep 1
    say "name comes"
    echo "{SURVIVOR} survivor" > /etc/hosts
    """,
)
NO_NETWORK = Scenario(
    f"""
    start sender fence_kdump_send {SURVIVOR}
    say "dump ends"
    tell-end 0
    say "the end is told"
    """,
)
NO_PANIC = dataclasses.replace(AT_ONCE, panics=False)

_SIGNS = f"--key-file={signing.NODE_KEY}"


def our_agent() -> Path:
    """Return the installed agent, the console script beside this Python. Raises NotAvailable."""
    agent = Path(sys.executable).with_name("fence_kdump")
    if not agent.is_file():
        raise NotAvailable(f"{agent} is missing: install the project beside {sys.executable}")
    return agent


def native_sender(*, static: bool = False) -> Path:
    """Return the native sender. Raises NotAvailable."""
    try:
        return Path(native.find(static=static))
    except native.NotBuilt as reason:
        raise NotAvailable(str(reason)) from None


def stock_sender() -> Path:
    """Return the stock sender. Raises NotAvailable."""
    return stock.get().sender


def prepare(
    scenario: Scenario,
    image: Path,
    *,
    sender: Path,
    agent: Path,
    timeout: int = 60,
    packed: bool = False,
    signs: bool = False,
) -> Crash:
    """Write the crash initramfs to `image`, packed if asked for, and say what is to happen.

    The agent's time-out is in seconds. Where the sender `signs`, an agent that demands it takes the
    place of `agent`, which waits beside it. Raises NotAvailable.
    """
    plan = scenario.plan
    programs = {"fence_kdump_send": sender}
    texts = {"/etc/kdumpfence/resolved": f'ADDRESSES="{SURVIVOR}"\n'}
    if "tell-end" in plan:
        programs["tell-end"] = Path(layouts.data_path("common/tell-end"))
    if signs:
        plan = plan.replace("fence_kdump_send ", f"fence_kdump_send {_SIGNS} ")
        texts[signing.NODE_KEY] = signing.node_file()
    small_images.save_crash(image, plan, programs, texts, packed=packed)
    crash = Crash(
        initramfs=image,
        arguments=small_images.ARGUMENTS,
        networks=scenario.networks,
        agent=[str(agent), "-n", ",".join(scenario.node), "-t", str(timeout), "-v"],
        panics=scenario.panics,
        until="plan done" if scenario.panics else "",
    )
    if not signs:
        return crash
    demands = [str(our_agent()), *crash.agent[1:]]
    key_file = signing.cluster_file(image.with_suffix(".key"))
    return dataclasses.replace(
        crash, agent=signing.demanding(demands, key_file), beside={"none": Beside(crash.agent)}
    )


def beside(
    image: Path,
    senders: Mapping[str, Path],
    rounds: int = ROUNDS,
    signing_ones: Collection[str] = (),
) -> Crash:
    """Let one crash kernel start these senders in turn, each alone and with the network there.

    No agent listens. Each start has a destination of its own, `destination()`, so that each has
    to ask for its Ethernet address, and its own name, as in "native_0".
    """
    plan = _UP + "sleep 0.2\n"
    for turn in range(rounds):
        for number, name in enumerate(senders):
            start = f"{name}_{turn}"
            signs = f"{_SIGNS} " if name in signing_ones else ""
            plan += f"start {start} {name} {signs}{destination(turn, number)}\nsleep 0.3\n"
            plan += f"memory {start}\nstop {start}\n"
    small_images.save_crash(image, plan, senders, {signing.NODE_KEY: signing.node_file()})
    every = [(turn, number) for turn in range(rounds) for number in range(len(senders))]
    addresses = [f"{destination(turn, number)}/24" for turn, number in every]
    return Crash(
        initramfs=image,
        arguments=small_images.ARGUMENTS,
        networks=[Network(addresses)],
        until="plan done",
    )


def destination(turn: int, number: int) -> str:
    """Tell where the n-th sender sends to in that round, both from 0."""
    return f"10.0.0.{100 + 10 * turn + number}"


def with_a_wrong_magic(sender: Path, target: Path) -> Path:
    """Write a sender whose messages differ from that one's in one bit of the magic number."""
    program = sender.read_bytes()
    # Some compilers write both numbers as one of 64 bits without its last zeros, and shift it.
    number = int.from_bytes(MESSAGE, sys.byteorder)
    shifted = number // (number & -number)
    for constant in (MESSAGE[:4], shifted.to_bytes(8, sys.byteorder)[:4]):
        if constant in program:
            wrong = bytes([constant[0] ^ 1]) + constant[1:]
            target.write_bytes(program.replace(constant, wrong))
            target.chmod(0o755)
            return target
    raise AssertionError(f"{sender} does not have the magic number in one piece")


def _ours(scenario: Scenario) -> Callable[[Path], Crash]:
    return lambda image: prepare(scenario, image, sender=native_sender(), agent=our_agent())


def _control(scenario: Scenario, image: Path, sender: Path, timeout: int = 6) -> Crash:
    """Let the agent listen when all is done that the crash kernel does, however slow that was.

    A sender of ours that does its job repeats the message every second then, so six are enough.
    """
    crash = prepare(scenario, image, sender=sender, agent=our_agent(), timeout=timeout)
    return dataclasses.replace(crash, agent_starts="plan done")


#: What test_panics.py is about; each is given the file to write its crash initramfs to.
PANICS: Mapping[str, Callable[[Path], Crash]] = {
    "native, late network": lambda image: prepare(
        LATE_NETWORK, image, sender=native_sender(), agent=our_agent(), signs=True
    ),
    "stock sender, late network": lambda image: prepare(
        LATE_NETWORK, image, sender=stock_sender(), agent=our_agent()
    ),
    "native, stock agent": lambda image: prepare(
        AT_ONCE, image, sender=native_sender(), agent=stock.get().agent
    ),
    "static": lambda image: prepare(
        AT_ONCE, image, sender=native_sender(static=True), agent=stock.get().agent, signs=True
    ),
    "late carrier": _ours(LATE_CARRIER),
    "second network": _ours(SECOND_NETWORK),
    "IPv6 only": _ours(IPV6_ONLY),
    "late names": _ours(LATE_NAMES),
    "side by side": lambda image: beside(
        image,
        {"stock": stock_sender(), "native": native_sender(), "static": native_sender(static=True)},
        signing_ones=("native", "static"),
    ),
    "no sender": lambda image: _control(AT_ONCE, image, Path("/bin/true")),
    # The stock sender, which answers no questions: ours would do that rightly. It repeats the
    # message every ten seconds.
    "wrong magic": lambda image: _control(
        AT_ONCE, image, with_a_wrong_magic(stock_sender(), image.with_suffix(".sender")), timeout=25
    ),
    "no network": lambda image: _control(NO_NETWORK, image, native_sender()),
    "no panic": lambda image: prepare(
        NO_PANIC, image, sender=native_sender(), agent=our_agent(), timeout=6
    ),
    "a yes after all": lambda image: _control(AT_ONCE, image, native_sender()),
}
