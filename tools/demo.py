#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shows the main job on this machine's loopback, in real processes and real time.

    .venv/bin/python tools/demo.py [--agent PROGRAM] [--sender PROGRAM]

Two nodes of a cluster fall silent at once. The surviving node, this machine, runs a
fence agent for each. One node has panicked, and its crash kernel says so; from the other
nothing valid is ever heard. The first agent has to say yes, the second no, and neither may
fall for a stranger, or for the rubbish that arrives meanwhile (only this project's own agent is
sent rubbish).

Then the same with keys: a forged message and a recorded one are refused, a node that runs says so,
which is a quick no, and the crash kernel that has the node's key is believed (only our own agent
and sender have keys).

The exit status is 0 if everything went as described, and 1 if anything did not: try it with other
programs.

It needs no root, no cluster and no crash, and leaves port 7410 alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kdumpfence import Listener, keys
from kdumpfence.wire import Packet, encode_packet

#: The survivor, and the address from which the kernel sends to it: the node that panics.
NODE1 = "127.0.0.1"
#: The node that stays silent, and somebody who is no node at all.
NODE2, STRANGER = "127.0.0.2", "127.0.0.9"

TIMEOUT = 4  # seconds that the agents wait; a cluster's wait for a minute or so
GRACE = 1  # seconds that a node answers until it is alive; 5 unless an agent is told otherwise
START = 3.0  # seconds at most until an agent says that it waits, or the story goes on
PATIENCE = 8.0  # seconds beyond which a program that has not ended is taken for stuck

MESSAGE = bytes.fromhex("402a301b01000000")

#: What our own agent gets from each node before anything true, and none of it is a message.
RUBBISH = {
    "an empty datagram": b"",
    "a message without its last byte": MESSAGE[:-1],
    "a message of version 2": bytes.fromhex("402a301b02000000"),
    "a message after a stray byte": b"\0" + MESSAGE,
    "small talk": b"is anybody there?",
}

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """In a child: let the kernel end it even if the demo is killed outright."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Demo:
    """The stage: what is said, what runs, and what did not go as expected."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.wrong: list[str] = []
        self.programs: list[Program] = []

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def tell(self, *lines: str) -> None:
        """Print what happens next."""
        print(f"\n{self.now():6.2f} s  " + f"\n{'':10}".join(lines), flush=True)

    def show(self, who: str, line: str) -> None:
        """Print what a program says."""
        print(f"{self.now():6.2f} s      {who:<8}{line}", flush=True)

    def expect(self, good: bool, what: str) -> None:
        """Print what was expected, and remember it if it did not come out."""
        print(f"{self.now():6.2f} s  {'as expected' if good else 'WRONG, expected'}: {what}")
        if not good:
            self.wrong.append(what)

    async def start(self, who: str, stdin: bytes, *command: str) -> Program:
        """Start a program; its lines are shown as they come."""
        started_at = self.now()
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the demo's business alone
            preexec_fn=die_with_parent,
        )
        program = Program(self, who, process, started_at)
        self.programs.append(program)
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it may have ended already
            process.stdin.write(stdin)
            await process.stdin.drain()
        process.stdin.close()
        return program

    async def clear(self) -> None:
        """End whatever still runs."""
        for program in self.programs:
            await program.kill()


class Program:
    """A started program, its lines and its end."""

    def __init__(
        self, demo: Demo, who: str, process: asyncio.subprocess.Process, started_at: float
    ) -> None:
        self.demo = demo
        self.who = who
        self.process = process
        self.spoke = False
        self.started_at = started_at
        self.ended_at = 0.0
        pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
        jobs = [self._wait(), *(self._show(pipe) for pipe in pipes)]
        self.tasks = [asyncio.ensure_future(job) for job in jobs]

    async def _show(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.demo.show(self.who, line.decode(errors="replace").rstrip())
            self.spoke = True

    async def _wait(self) -> None:
        await self.process.wait()
        self.ended_at = self.demo.now()

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs, minus a signal's number if that ended it."""
        return self.process.returncode

    async def speaks(self, seconds: float) -> None:
        """Wait for its first line, its end, or so many seconds."""
        end = self.demo.now() + seconds
        while not self.spoke and self.status is None and self.demo.now() < end:
            await asyncio.sleep(0.01)

    async def ends(self, seconds: float) -> int | None:
        """Wait for its end and its last line; the exit status, None if it goes on."""
        await asyncio.wait(self.tasks, timeout=seconds)
        if self.status is not None:
            self.demo.show(self.who, f"exit status {self.status}")
        return self.status

    async def kill(self) -> None:
        """End it as a reboot would."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await asyncio.wait(self.tasks, timeout=1)
        for task in self.tasks:
            task.cancel()


def free_port() -> int:
    """A UDP port that nobody holds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def send(source: str, port: int, *datagrams: bytes) -> None:
    """Send to the survivor from that address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        for datagram in datagrams:
            # Where no raw socket hears the port, its last holder may be gone: ECONNREFUSED.
            with contextlib.suppress(OSError):
                sock.sendto(datagram, (NODE1, port))


async def play(demo: Demo, agent: str, sender: str, rubbish: bool) -> None:
    """The story, in its order; with or without rubbish among what the agents get."""
    port = free_port()
    demo.tell(
        f"node1 ({NODE1}) and node2 ({NODE2}) fall silent. On this surviving node the",
        f"cluster starts a fence agent for each, with options on stdin, both on UDP port {port}.",
    )
    agents = []
    for who, node in (("agent1", NODE1), ("agent2", NODE2)):
        options = f"nodename={node}\naction=off\nipport={port}\ntimeout={TIMEOUT}\n"
        agents.append(await demo.start(who, options.encode(), agent))
    agent1, agent2 = agents
    for one in agents:
        await one.speaks(START)

    stranger = f"A stranger ({STRANGER}) sends a valid message."
    if rubbish:
        demo.tell(
            f"{stranger} Then each node's address",
            "sends what is not a message: " + ", ".join(list(RUBBISH)[:2]) + ",",
            ", ".join(list(RUBBISH)[2:]) + ".",
        )
    else:
        demo.tell(stranger)
    send(STRANGER, port, MESSAGE, MESSAGE)
    for node in (NODE1, NODE2) if rubbish else ():
        send(node, port, *RUBBISH.values())
    await asyncio.sleep(0.6)
    for one in agents:
        demo.expect(one.status is None, f"{one.who} believes none of it and keeps waiting")

    demo.tell("node1 has panicked. Its crash kernel is up now and says so.")
    dumping = await demo.start("node1", b"", sender, "-v", "-p", str(port), NODE1)
    status = await agent1.ends(PATIENCE)
    took = agent1.ended_at - dumping.started_at
    good = status == 0 and took > 0
    figure = f", {took:.2f} s" if good else ""  # of another end it would say nothing
    demo.expect(good, f"agent1 says yes{figure} after node1's sender was started")
    demo.expect(agent2.status is None, "that says nothing about node2: agent2 keeps waiting")
    demo.tell("The cluster considers node1 fenced and lets it finish its dump.")
    status = await agent2.ends(PATIENCE)
    waited = agent2.ended_at - agent2.started_at
    good = status == 1 and waited >= TIMEOUT
    demo.expect(good, f"agent2 says no after {f'{waited:.2f}' if good else TIMEOUT} s")
    demo.tell("The cluster goes on to node2's second fencing level and cuts its power.")
    demo.expect(dumping.status is None, "node1 was still sending; its reboot ends that")


def make_keys(folder: Path, *nodes: str) -> Path:
    """A cluster's key, and the keys of these nodes, named like them; the path of the first."""
    command = program_path(None, "kdumpfence")
    cluster_key = folder / "key"
    steps = [["create"]]
    steps += [["derive", "--node", node, "--out", str(folder / node)] for node in nodes]
    for step in steps:
        subprocess.run(
            [command, "key", *step, "--file", str(cluster_key)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return cluster_key


@contextlib.contextmanager
def running_node(name: str, address: str, port: int, key: keys.Keys) -> Iterator[None]:
    """What kdumpfenced does on a node that runs: it answers questions."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    with Listener(sockets=[sock], answer_as=name) as listener:
        listener.answer_as(name, key)
        yield


async def play_with_keys(demo: Demo, agent: str, sender: str, folder: Path) -> None:
    """The story of what is signed."""
    cluster_key = make_keys(folder, "node1", "node2")
    port = free_port()
    demo.tell(
        "The same with keys. The cluster has one, and each node's crash kernel has a key that",
        "comes from it. Both nodes are asked; only a signed answer counts (auth=sha256).",
    )
    agents = []
    for who, node, address in (("agent3", "node1", NODE1), ("agent4", "node2", NODE2)):
        options = (
            f"nodename={node}\nplug={address}\naction=off\nipport={port}\ntimeout={TIMEOUT}\n"
            f"auth=sha256\nkey_file={cluster_key}\nalive_grace={GRACE}\n"
        )
        agents.append(await demo.start(who, options.encode(), agent))
    agent3, agent4 = agents
    for one in agents:
        await one.speaks(START)

    demo.tell(
        "Somebody sends a message with node2's address, and replays what node1's crash kernel",
        "sent when it crashed last month.",
    )
    key = keys.read(str(folder / "node1"))
    recorded = Packet(
        "status", "node1", state="dumping", key_id=key.signs[0], session=1, sequence=1
    )
    send(NODE2, port, MESSAGE)
    send(NODE1, port, encode_packet(recorded, key.signs[1]))
    await asyncio.sleep(0.6)
    for one in agents:
        demo.expect(one.status is None, f"{one.who} believes none of it and keeps waiting")

    demo.tell("node2 only failed to stop a resource. Its kdumpfenced answers that it is alive.")
    with running_node("node2", NODE2, port, keys.read(str(folder / "node2"))):
        status = await agent4.ends(PATIENCE)
    waited = agent4.ended_at - agent4.started_at
    good = status == 1 and waited < TIMEOUT
    demo.expect(
        good, f"agent4 says no{f' after {waited:.2f} s' if good else ''}, before its time is over"
    )

    demo.tell("node1 has panicked. Its crash kernel is up now, and answers the next question.")
    key_file = str(folder / "node1")
    dumping = await demo.start("node1", b"", sender, "--key-file", key_file, "-p", str(port), NODE1)
    status = await agent3.ends(PATIENCE)
    took = agent3.ended_at - dumping.started_at
    good = status == 0 and took > 0
    figure = f", {took:.2f} s" if good else ""
    demo.expect(good, f"agent3 says yes{figure} after node1's sender was started")


async def run(agent: str, sender: str, rubbish: bool, signed: bool) -> int:
    """Play it to its end, or to the signal that ends it; the exit status."""
    demo = Demo()
    loop = asyncio.get_running_loop()

    async def all_of_it() -> None:
        await play(demo, agent, sender, rubbish)
        if signed:
            await demo.clear()
            with tempfile.TemporaryDirectory(prefix="kdumpfence-demo-") as folder:
                await play_with_keys(demo, agent, sender, Path(folder))

    playing = asyncio.ensure_future(all_of_it())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, playing.cancel)
    try:
        await playing
    except asyncio.CancelledError:
        print("\nInterrupted; every program was ended.")
        return 1
    except OSError as error:
        print(f"\n{error}")
        return 1
    finally:
        await demo.clear()
    if demo.wrong:
        print(
            "\nThis did NOT go as expected. Expected, but not seen:",
            *demo.wrong,
            sep="\n  - ",
        )
        return 1
    print("\nEverything went as expected.")
    return 0


def program_path(given: str | None, name: str) -> str:
    """The program to run: the one given, else ours beside the interpreter."""
    if given is not None:
        path = shutil.which(given)
        if path is None:
            sys.exit(f"{given}: no such program")
        return path
    path = shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        sys.exit(f"{name} is not installed beside {sys.executable}: `make demo` does all that")
    return path


def main() -> int:
    """Parse the command line and play."""
    parser = argparse.ArgumentParser(description="fence_kdump and fence_kdump_send on loopback")
    parser.add_argument("--agent", help="an agent instead of ours, such as a stock fence_kdump")
    parser.add_argument("--sender", help="a sender instead of ours")
    arguments = parser.parse_args()
    agent = program_path(arguments.agent, "fence_kdump")
    sender = program_path(arguments.sender, "fence_kdump_send")
    core = os.environ.get("KDUMPFENCE_PURE", "0") not in ("", "0")
    print(f"The agent is {agent}{' (on its pure-Python core)' if core else ''},")
    print(f"the sender   {sender}.")
    own_agent = arguments.agent is None
    signed = own_agent and arguments.sender is None
    return asyncio.run(run(agent, sender, rubbish=own_agent, signed=signed))


if __name__ == "__main__":
    sys.exit(main())
