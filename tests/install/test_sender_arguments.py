# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the sender will be told is judged by its own parser, wherever it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdumpfence import addresses
from kdumpfence.install import layouts, sender_arguments
from kdumpfence.install.dracut_config import KDUMP_CONF
from kdumpfence.install.sender_arguments import FENCE_KDUMP, SUSE
from kdumpfence.install.sysroot import Sysroot
from kdumpfence.sender import options as sender_options
from tests.docs import manpage
from tests.install import roots
from tests.install.conftest import Command
from tests.install.machine import Machine
from tests.support.labs import lab
from tests.support.netlab import Host

OWN = [name for name, layout in layouts.LAYOUTS.items() if layouts.NODES in
       [item.path for item in layout.items]]  # fmt: skip
PRESCRIPT = "setsid -f /usr/lib/fence_kdump_send"
#: What makes kdump take the sender and the network into the image.
TAKEN = "KDUMP_REQUIRED_PROGRAMS='/usr/lib/fence_kdump_send'\nKDUMP_NETCONFIG='auto:force'\n"
ETH0 = "KDUMP_NETCONFIG='eth0:static:force'\n"


@dataclass
class System:
    """A root, and the command to install the sender there."""

    command: Command
    root: Path

    def put(self, path: str, text: str | bytes) -> None:
        roots.put(self.root, path, text)

    def warnings(self, path: str, *arguments: str) -> list[str]:
        """What an installation warns of in that file; it goes on all the same."""
        said = self.command.ok(self.root, *arguments).splitlines()
        start = f"warning: {self.root}{path}: "
        return [line[len(start) :] for line in said if line.startswith(start)]

    def of(self, path: str, text: str) -> list[str]:
        """The same, after this text has been put there."""
        self.put(path, text)
        return self.warnings(path)


def begin(told: list[str], wanted: list[str]) -> bool:
    """Whether there are as many lines as are wanted, and they begin with these."""
    return len(told) == len(wanted) and all(map(str.startswith, told, wanted))


# ------------------------------------------------------------------ our own file


def test_all_layouts_that_have_the_file_are_here() -> None:
    assert set(OWN) == {"debian", "initramfs-tools", "dracut", "suse"}


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("ARGS='-v -i 1decade'\n", "ARGS: interval '1decade'"),
        ('ARGS="-p 7410,"\n', "ARGS: ipport '7410,'"),
        ('ARGS="-vx"\n', "ARGS: verbose 'x'"),
        ('ARGS="-v -Z"\n', "-Z"),
        # An option that takes the first node for its value.
        ('ARGS="-v -p"\n', "ARGS: "),
        # Nobody is told of anything by these.
        ('ARGS="--check"\n', "ARGS: --check sends nothing"),
        ('ARGS="-v --help"\n', "ARGS: --help sends nothing"),
        # Nodes that can be none.
        ('NODES="node2 0.0.0.0"\n', "NODES: node '0.0.0.0'"),
        ('NODES="fe80::7"\n', "NODES: node 'fe80::7'"),
        ('ARGS="-v ff02::1"\n', "ARGS: node 'ff02::1'"),
    ],
)
@pytest.mark.parametrize("layout", OWN)
def test_our_own_file_is_refused_in_one_line(
    command: Command, root_directory: Path, layout: str, text: str, given: str
) -> None:
    if "NODES" not in text:
        text = f'NODES="node2 198.51.100.2"\n{text}'
    roots.put(root_directory, layouts.NODES, text)
    before = roots.snapshot(root_directory)
    said = command.refused("--root", str(root_directory), "--distribution", layout)
    assert said.startswith(f"{root_directory}{layouts.NODES}: ")
    assert given in said
    after = roots.snapshot(root_directory)
    assert {path: after[path] for path in before} == before
    assert not (root_directory / "usr/lib/kdumpfence/fence_kdump_send").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        'NODES="node2"\nARGS="-v -p 7411 -f ipv4 --count=0 -i 5"\n',
        "NODES=\nARGS=-v\n",
        'NODES="198.51.100.2 2001:db8::2 fe80::7%eth0"\n',
        'NODES="node2,node3"\n',
        # Of several lines the last counts.
        'ARGS="-i 10x"\nNODES="node2"\nARGS="-i 10"\n',
    ],
)
@pytest.mark.parametrize("layout", OWN[1:])
def test_what_makes_sense_is_taken_in_silence(
    command: Command, root_directory: Path, layout: str, text: str
) -> None:
    roots.put(root_directory, layouts.NODES, text)
    assert "warning: " not in command.ok(root_directory, "--distribution", layout)


def test_one_judge_says_what_a_node_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def literal(name: str, family: int) -> None:
        if name == "10.0.0.256":
            raise addresses.LookUpError("no IPv4 address", True)

    monkeypatch.setattr(addresses, "literal", literal)
    assert sender_arguments.complaints(["node2", "10.0.0.256"]) == [
        "node '10.0.0.256': no IPv4 address"
    ]


def test_what_the_parser_forgives_is_complained_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it refuses an option or falls back to the default."""

    def forgiving(argv: list[str]) -> sender_options.SenderOptions:
        parsed = sender_options.SenderOptions()
        parsed.nodes = tuple(word for word in argv if not word.startswith("-"))
        parsed.complaints = ["interval '10x': taken for 10"]
        return parsed

    monkeypatch.setattr(sender_options, "sender_from_argv", forgiving)
    assert sender_arguments.complaints(["-i", "10x"], True) == ["interval '10x': taken for 10"]


# ------------------------------------------------------------------ kdump-utils


@pytest.fixture
def rhel(command: Command, root_directory: Path) -> System:
    """RHEL with kdump-utils, pcs, and a list of nodes."""
    roots.make(root_directory, "rocky")
    roots.put(root_directory, "/usr/sbin/pcs", "", 0o755)
    roots.put(root_directory, KDUMP_CONF, "path /var/crash\nfence_kdump_nodes node2\n")
    return System(command, root_directory)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "# fence_kdump_args -i 10x\n\n  path /var/crash\n"
            "fence_kdump_args -p 7410 -f auto -c 0 -i 10   # as ever\n"
            "fence_kdump_nodes\tnode2 198.51.100.2  2001:db8::2\n",
            [],
        ),
        ("fence_kdump_nodes -v node3", []),  # as good as an option among the arguments
        *(
            (f"path /x\nfence_kdump_nodes node2\n{line}", [f"line 3: {said}"])
            for line, said in (
                ('fence_kdump_args "-i 10"', "fence_kdump_args: kdump-utils before November 2025"),
                ("  fence_kdump_args   -c 0; # x", "fence_kdump_args: count '0;'"),
                ("fence_kdump_args --check", "fence_kdump_args: --check sends nothing"),
                ("fence_kdump_args -v &", "fence_kdump_args: operand '&'"),
                ("fence_kdump_args -i", "fence_kdump_args: "),
                ("fence_kdump_args=-v", "fence_kdump_args=-v: not an option of kdump.conf"),
                ("Fence_Kdump_Args -v", "Fence_Kdump_Args: not an option of kdump.conf"),
            )
        ),
        *(
            (f"path /x\nfence_kdump_nodes {nodes}", [f"line 2: fence_kdump_nodes: {said}"])
            for nodes, said in (
                ("node3; node4", "operand 'node3;'"),
                ("node3 &", "operand '&'"),
                ('"node3 node4"', "kdump-utils before November 2025"),
                ("0.0.0.0", "node '0.0.0.0'"),
            )
        ),
        (
            "fence_kdump_nodes node2\nfence_kdump_nodes node3",
            ["line 2: fence_kdump_nodes: given twice: kdumpctl will not load a crash kernel"],
        ),
    ],
)
def test_faults_in_kdump_conf_are_told_with_their_line(
    rhel: System, text: str, said: list[str]
) -> None:
    assert begin(rhel.of(KDUMP_CONF, f"{text}\n"), said)
    assert (rhel.root / roots.PLACES["rhel"][1:]).read_bytes() != roots.STOCK


@pytest.mark.parametrize("conf", [None, "path /var/crash\n", "fence_kdump_nodes\n"])
@pytest.mark.parametrize("pcs", [True, False])
def test_without_a_list_the_image_may_lack_the_sender_and_how_to_see_it(
    rhel: System, conf: str | None, pcs: bool
) -> None:
    (rhel.root / KDUMP_CONF[1:]).unlink()
    if conf is not None:
        rhel.put(KDUMP_CONF, conf)
    if not pcs:
        (rhel.root / "usr/sbin/pcs").unlink()
    said, *_ = rhel.warnings(KDUMP_CONF)
    assert said.startswith("no fence_kdump_nodes: the image will silently lack the sender")
    assert ("pcs is missing" in said) != pcs
    assert "lsinitrd /boot/initramfs-$(uname -r)kdump.img | grep fence_kdump_send" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# x\nexport FENCE_KDUMP_OPTS='-p 0'\n", ["line 2: FENCE_KDUMP_OPTS: ipport '0'"]),
        ("FENCE_KDUMP_OPTS=-f\\ ipv9 # x\n", ["line 1: FENCE_KDUMP_OPTS: family 'ipv9'"]),
        ('FENCE_KDUMP_OPTS="-v\n -i 9x"\n', ["line 1: FENCE_KDUMP_OPTS: interval '9x'"]),
        ('A=1\nFENCE_KDUMP_OPTS="-i $A"\n', ["line 2: FENCE_KDUMP_OPTS: contains $ or"]),
        ("FENCE_KDUMP_OPTS='-v'\" -i $A\"\n", ["line 1: FENCE_KDUMP_OPTS: contains $ or"]),
        ('FENCE_KDUMP_ARGS="-i 10"\n', ["line 1: FENCE_KDUMP_ARGS: kdump-utils only reads "]),
        ('FENCE_KDUMP_OPTS="-i 10x\n', ["line 1: FENCE_KDUMP_OPTS: not a plain shell"]),
        ("FENCE_KDUMP_OPTS = -v\n", ["line 1: FENCE_KDUMP_OPTS: not a plain shell"]),
        ("FENCE_KDUMP_OPTS+=-v\n", ["line 1: FENCE_KDUMP_OPTS: not a plain shell"]),
        ('FENCE_KDUMP_OPTS="-v \\\n -p \\\n 7411"\n', []),
        ("FENCE_KDUMP_OPTS= -i 10x\n", []),  # empty, for one command
        ("FENCE_KDUMP_OPTS='-v' # $(x)\n", []),
    ],
)
def test_faults_of_sysconfig_are_told_with_their_line(
    rhel: System, text: str, said: list[str]
) -> None:
    rhel.put(KDUMP_CONF, "path /var/crash\n")
    assert begin(rhel.of(FENCE_KDUMP, text), said)


def test_arguments_that_have_no_effect_are_told(rhel: System) -> None:
    said = rhel.of(FENCE_KDUMP, 'FENCE_KDUMP_OPTS="-i 5"\n')
    assert begin(said, ["line 1: FENCE_KDUMP_OPTS: no effect beside fence_kdump_nodes"])


# ------------------------------------------------------------------ this machine itself


@pytest.mark.parametrize(
    ("node", "is_own"),
    [
        ("10.0.0.2", True),  # the end of 110.0.0.2, for a grep
        ("110.0.0.2", True),
        ("0.0.2", True),
        ("10.0.0.22", False),
        ("11.0.0.2", False),
        ("1.0.0.2", False),
        ("db8::7", True),
        ("2001:db8::7", True),
        ("2001:db8::77", False),
        ("10a0b0.2", True),  # each dot is any character
        ("node1.example", True),
        ("node1", False),
        ("node11.example", False),
    ],
)
def test_what_kdumpctl_takes_for_the_machine_itself(
    root_directory: Path, node: str, is_own: bool
) -> None:
    machine = sender_arguments.Machine(("node1.example",), ("110.0.0.2", "2001:db8::7", "10a0b0c2"))
    if node == "10a0b0.2":
        machine = machine._replace(addresses=("10a0b0c2",))
    roots.put(root_directory, KDUMP_CONF, f"fence_kdump_nodes node9 {node} 192.0.2.77\n")
    with Sysroot(str(root_directory)) as opened:
        errors = sender_arguments.others(opened, "rhel", machine).errors
    assert len(errors) == is_own
    for error in errors:
        assert error.startswith(f"{root_directory}{KDUMP_CONF}: line 1: fence_kdump_nodes: ")
        assert f"'{node}'" in error
        assert "kdumpctl will not load a crash kernel" in error


def others(root: Path, conf: str, machine: sender_arguments.Machine) -> list[str]:
    """What is warned of in this kdump.conf, on this machine."""
    roots.put(root, "/usr/sbin/pcs")
    roots.put(root, KDUMP_CONF, conf)
    with Sysroot(str(root)) as opened:
        found = sender_arguments.others(opened, "rhel", machine)
    assert found.errors == []
    return [text.replace(str(root), "") for text in found.warnings]


def test_the_way_to_each_node_is_looked_at_as_kdump_utils_does(root_directory: Path) -> None:
    asked = []

    def trouble(node: str) -> str:
        asked.append(node)
        return f"no route to {node}" if node == "10.0.0.2" else ""

    machine = sender_arguments.Machine(("node1",), ("10.0.0.1",), trouble)
    said = others(root_directory, "fence_kdump_nodes node2 10.0.0.2 -v\n", machine)
    assert said == [f"{KDUMP_CONF}: line 1: fence_kdump_nodes: no route to 10.0.0.2"]
    assert asked == ["node2", "10.0.0.2"]


def test_names_that_kdump_utils_takes_for_this_machine_are_told(root_directory: Path) -> None:
    roots.put(root_directory, "/etc/hosts", "10.0.0.1 node1\n10.0.0.10 node10\n10.0.0.2 node2\n")
    machine = sender_arguments.Machine(("node1",), ("10.0.0.1",))
    said = others(root_directory, "fence_kdump_nodes node2 node10 10.0.0.10\n", machine)
    assert begin(said, [f"{KDUMP_CONF}: line 1: fence_kdump_nodes: kdump-utils takes 'node10' for"])
    _, said_of_hosts = others(root_directory, "", machine)
    assert said_of_hosts.startswith("/etc/hosts: kdump-utils takes 'node10' for this machine")


def test_of_another_machine_nothing_is_known(rhel: System) -> None:
    me = sender_arguments.Machine.this()
    own = " ".join(me.names + me.addresses)
    assert rhel.of(KDUMP_CONF, f"fence_kdump_nodes {own}\n") == []  # below --root


@pytest.fixture(scope="module")
def two_networks() -> Iterator[Host]:
    """node1 with two networks, the second of which has two default routes."""
    with lab() as opened:
        node1, node2 = opened.host("node1"), opened.host("node2")
        opened.link(node1, node2, ["10.0.1.1/24"], ["10.0.1.2/24"])
        opened.link(node1, node2, ["10.0.2.1/24"], ["10.0.2.2/24"])
        for gateway, metric in (("10.0.1.9", "300"), ("10.0.2.9", "100"), ("10.0.2.8", "200")):
            node1.tool("ip", "route", "add", "default", "via", gateway, "metric", metric)
        yield node1


@pytest.fixture
def cabled() -> Iterator[Host]:
    """node1 with addresses of its own."""
    with lab() as opened:
        node1, node2 = opened.host("node1"), opened.host("node2")
        opened.link(node1, node2, ["110.0.0.2/24", "2001:db8::1/64"], ["110.0.0.3/24"])
        yield node1


def test_the_addresses_of_this_machine_are_seen(cabled: Host) -> None:
    script = "from kdumpfence.install.sender_arguments import Machine\nprint(*Machine.this()[:2])"
    done = cabled.run([sys.executable, "-c", script])
    assert done.stdout == "('node1',) ('110.0.0.2', '2001:db8::1')\n", done.stderr


@pytest.mark.parametrize(
    ("distribution", "path", "line", "status"),
    [
        ("rhel", KDUMP_CONF, "fence_kdump_nodes node2 10.0.0.2", 1),
        ("rhel", KDUMP_CONF, "fence_kdump_nodes node2 110.0.0.2", 1),
        ("rhel", KDUMP_CONF, "fence_kdump_nodes node2 node1", 1),
        ("rhel", KDUMP_CONF, "fence_kdump_nodes 110.0.0.3", 0),
        ("suse", SUSE, f'KDUMP_PRESCRIPT="{PRESCRIPT} 110.0.0.2"\n{TAKEN}{ETH0}', 0),
        ("suse", SUSE, f'KDUMP_PRESCRIPT="{PRESCRIPT} node1"\n{TAKEN}{ETH0}', 0),
    ],
)
@pytest.mark.slow
def test_a_list_with_this_machine_itself_is_an_error_where_it_costs_the_crash_kernel(
    cabled: Host, built: str, distribution: str, path: str, line: str, status: int
) -> None:
    machine = Machine(cabled)
    cabled.run(["mount", "-t", "proc", "proc", "/run/over/root/proc"], check=True)
    cabled.run(["ln", "-sfn", "/proc/self/fd/0", "/dev/stdin"], check=True)
    (machine.root / "etc" / path[5:]).parent.mkdir(exist_ok=True)
    cabled.write_file(path, line + "\n")
    install = (sys.executable, "-m", "kdumpfence.cli", "install-sender", "--dry-run")
    done = cabled.run(["chroot", "/run/over/root", *install, "--distribution", distribution])
    assert done.returncode == status, done.stderr
    if status:
        assert re.fullmatch(
            rf"kdumpfence: {path}: line 1: .*not load a crash kernel\)\n", done.stderr
        )
    told = [text for text in done.stdout.splitlines() if text.startswith("warning: ")]
    assert len(told) == (distribution == "suse"), told
    assert all("is this machine" in text for text in told)


# ------------------------------------------------------------------ SUSE


@pytest.fixture
def suse(command: Command, root_directory: Path) -> System:
    return System(command, roots.make(root_directory, "sles"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        'KDUMP_PRESCRIPT=""\nKDUMP_POSTSCRIPT="/root/mail.sh"\n',
        f'KDUMP_PRESCRIPT="{PRESCRIPT} \\\n 192.0.2.2 2001:db8::3 \\\n node3"\n',
        f"KDUMP_PRESCRIPT='/usr/bin/{PRESCRIPT} -v -i 5 192.0.2.2'  # told at once\n",
        'KDUMP_PRESCRIPT="setsid --fork /usr/lib/fence_kdump_send 192.0.2.2"\n',
        f'KDUMP_PRESCRIPT="{PRESCRIPT} node2"\n'
        'KDUMP_POSTSCRIPT="timeout 20 /usr/lib/fence_kdump_send -c 5 -i 2 node2"\n',
        # Of several the last counts.
        f'KDUMP_PRESCRIPT="/usr/lib/fence_kdump_send node2"\nKDUMP_PRESCRIPT="{PRESCRIPT} node2"\n',
    ],
)
def test_what_holds_up_nothing_is_taken_in_silence(suse: System, text: str) -> None:
    assert suse.of(SUSE, text + TAKEN) == []


WAITS = "kdump waits for this sender for ever, and neither dumps nor reboots"
FOR_20_S = WAITS.replace("for ever", "for 20 seconds or more")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        # The line that this project's manual once had.
        ("/usr/lib/fence_kdump_send 192.0.2.2 &", ["'&': kdump 1.9 to 2.1.0", WAITS]),
        ("/usr/lib/fence_kdump_send -c 3 192.0.2.2", [FOR_20_S]),
        ("/usr/lib/fence_kdump_send -c 21 -i1 192.0.2.2", [FOR_20_S]),
        ("/usr/lib/fence_kdump_send -c 0 192.0.2.2", [WAITS]),
        ("setsid /usr/lib/fence_kdump_send 192.0.2.2", [WAITS]),
        ("setsid -f -w /usr/lib/fence_kdump_send 192.0.2.2", [WAITS]),
        ("setsid -fw /usr/lib/fence_kdump_send 192.0.2.2", [WAITS]),
        ("timeout 9 /usr/lib/fence_kdump_send 192.0.2.2", [WAITS]),
        ("nohup /usr/lib/fence_kdump_send 192.0.2.2 &", ["'&': kdump", WAITS]),
        (
            "sh -c '/usr/lib/fence_kdump_send node2 &'",
            ["'\\x27/usr/lib/fence_kdump_send': kdump", WAITS],
        ),
        (f"{PRESCRIPT} node2 > /dev/null 2>&1", ["'>': kdump"]),
        (f"{PRESCRIPT} node2; sync", ["'node2;': kdump"]),
        (f"{PRESCRIPT} -i '10' node2", ["'\\x2710\\x27': kdump"]),
        (f"{PRESCRIPT} node2 -p", ["option '-p': needs a value"]),
        (PRESCRIPT, ["no node given"]),
        (f"{PRESCRIPT} --check node2", ["--check sends nothing"]),
        (f"{PRESCRIPT} 224.0.0.1", ["node '224.0.0.1'"]),
        (f"{PRESCRIPT} `cat /etc/n`", ["$ or a backquote is replaced", "'`cat': kdump"]),
    ],
)
@pytest.mark.parametrize("variable", ["KDUMP_PRESCRIPT", "KDUMP_TRANSFER"])
def test_what_may_hold_up_the_dump_or_the_reboot_is_told_with_its_line(
    suse: System, variable: str, script: str, said: list[str]
) -> None:
    told = suse.of(SUSE, f'# as it is\nKDUMP_SAVEDIR=/x\n{variable}="{script}"\n{TAKEN}')
    assert begin(told[: len(said)], [f"line 3: {variable}: {one}" for one in said])
    assert len(told) == len(said) or "`" in script


def test_a_sender_after_the_dump_is_warned_of(suse: System) -> None:
    sender = "/usr/lib/fence_kdump_send"
    right = f"timeout 20 {sender} -c 5 -i 2"
    (late,) = suse.of(SUSE, f'KDUMP_POSTSCRIPT="{right} node2"\n{TAKEN}')
    assert "hears nothing until the dump is saved" in late
    assert late.endswith(f"list the nodes in {layouts.NODES}")
    # The line that SUSE documents.
    waits, _ = suse.of(SUSE, f'KDUMP_POSTSCRIPT="{sender} -v -i 10 -c 5 node2"\n{TAKEN}')
    assert "kdump waits for this sender for 40 seconds or more, and does not reboot" in waits
    assert f"write {right} NODE" in waits
    waits, _ = suse.of(SUSE, f'KDUMP_POSTSCRIPT="{sender} node2"\n{TAKEN}')
    assert "kdump waits for this sender for ever, and does not reboot" in waits
    early, _ = suse.of(SUSE, f'KDUMP_POSTSCRIPT="{PRESCRIPT} -c 5 node2"\n{TAKEN}')
    assert "kdump reboots at once" in early


@pytest.mark.parametrize(
    ("nodes", "is_late"), [('NODES="node3"', False), ("NODES=node3", False), ('NODES=" "', True)]
)
def test_a_sender_after_the_dump_is_not_late_where_the_image_tells_too(
    suse: System, nodes: str, is_late: bool
) -> None:
    suse.put(layouts.NODES, f"# NODES='node9'\n{nodes}\nARGS=\n")
    script = "timeout 20 /usr/lib/fence_kdump_send -c 5 -i 2 node2"
    assert len(suse.of(SUSE, f"KDUMP_POSTSCRIPT='{script}'\n{TAKEN}")) == is_late


NO_SENDER = "line 1: KDUMP_PRESCRIPT: the image has no /usr/lib/fence_kdump_send unless"
NO_NETWORK = "KDUMP_NETCONFIG: the image has no network: write 'auto:force'"


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ("", [NO_NETWORK, NO_SENDER]),
        ("KDUMP_REQUIRED_PROGRAMS='/usr/bin/vi /usr/lib/fence_kdump_send'\n", [NO_NETWORK]),
        ("KDUMP_NETCONFIG='eth0:dhcp:force'\n", [NO_SENDER]),
        ("KDUMP_SAVEDIR='nfs://198.51.100.9/dumps'\n", [NO_SENDER]),
        (
            "KDUMP_SAVEDIR='file:///x'\nKDUMP_NETCONFIG=auto\n",
            [f"line 3: {NO_NETWORK}", NO_SENDER],
        ),
        # Not for a script that names another program.
        (
            "KDUMP_POSTSCRIPT='timeout 9 /usr/libexec/fence_kdump_send -c 1 -i 1 node2'\n",
            [
                NO_NETWORK,
                NO_SENDER,
                "line 2: KDUMP_POSTSCRIPT: the image has no /usr/libexec/fence_kdump_send unless",
            ],
        ),
        ("KDUMP_POSTSCRIPT='timeout 9 /usr/lib/fence_kdump_send -c 1 node2'\n", []),
        (TAKEN, []),
    ],
)
def test_an_image_that_would_lack_the_sender_or_the_network_is_told(
    suse: System, others: str, said: list[str]
) -> None:
    """By the rule of kdump 1.0.3 to 2.1.9: the literal path, in KDUMP_POSTSCRIPT alone."""
    assert begin(suse.of(SUSE, f"KDUMP_PRESCRIPT='{PRESCRIPT} node2'\n{others}"), said)


IP = "ip=192.0.2.1:::255.255.255.0:node1:eth0:none"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", [NO_NETWORK]),
        ('# as it is shipped\nKDUMP_NETCONFIG="auto"\n', [f"line 2: {NO_NETWORK}"]),
        ("KDUMP_NETCONFIG = auto:force\n", ["line 1: KDUMP_NETCONFIG: not a plain", NO_NETWORK]),
        ("KDUMP_NETCONFIG=auto:force\n", []),
        ("KDUMP_SAVEDIR=ssh://10.9.9.9/x\n", []),
        (
            f"KDUMP_NETCONFIG=auto:force\nKDUMP_COMMANDLINE_APPEND='{IP}'\n",
            ["line 2: KDUMP_COMMANDLINE_APPEND: with ip= kdump configures no network"],
        ),
        (f"KDUMP_NETCONFIG=auto:force\nKDUMP_COMMANDLINE_APPEND='rd.neednet=1 {IP}'\n", []),
        ("KDUMP_NETCONFIG=auto:force\nKDUMP_COMMANDLINE_APPEND='ipv6.disable=1'\n", []),
    ],
)
def test_an_image_without_network_is_told_without_any_script(
    suse: System, text: str, said: list[str]
) -> None:
    suse.put(layouts.NODES, 'NODES="node2"\n')
    assert begin(suse.of(SUSE, text), said)


@pytest.mark.parametrize(
    ("netconfig", "nodes", "said"),
    [
        ("auto", "node2 10.0.2.2", ""),
        ("auto", "10.0.1.2 10.0.2.2", ""),
        ("auto", "10.0.1.2 node2", "the image only has eth1, and the addresses given are reached"),
        ("default:static", "10.0.1.2", "through eth0: write eth0:static:force"),
        ("eth0:static", "10.0.1.2", ""),
        ("eth0:static", "10.0.2.2", "through eth1: write eth1:static:force"),
        ("auto", "10.0.1.1", ""),  # this node itself
        ("auto", "node2", ""),
    ],
)
def test_an_interface_that_leads_to_no_node_is_told(
    two_networks: Host, root_directory: Path, netconfig: str, nodes: str, said: str
) -> None:
    script = (
        "from kdumpfence.install.sender_arguments import *\n"
        f"with Sysroot({str(root_directory)!r}) as root:\n"
        "    print(*others(root, 'suse', Machine.this()).warnings, sep='\\n', end='')"
    )
    roots.put(root_directory, SUSE, f"KDUMP_NETCONFIG='{netconfig}:force'\n")
    roots.put(root_directory, layouts.NODES, f'NODES="{nodes}"\n')
    done = two_networks.run([sys.executable, "-c", script])
    assert done.stderr == ""
    assert said in done.stdout
    assert (done.stdout.count("line 1: KDUMP_NETCONFIG: ") == 1) == bool(said)


def test_a_machine_without_default_route_is_told(cabled: Host, root_directory: Path) -> None:
    script = (
        "from kdumpfence.install.sender_arguments import *\n"
        f"with Sysroot({str(root_directory)!r}) as root:\n"
        "    print(*others(root, 'suse', Machine.this()).warnings)"
    )
    roots.put(root_directory, SUSE, "KDUMP_NETCONFIG='auto:force'\n")
    done = cabled.run([sys.executable, "-c", script])
    assert "line 1: KDUMP_NETCONFIG: no default route, and auto takes its interface" in done.stdout


@pytest.mark.parametrize("program", ["/usr/libexec/fence_kdump_send", "fence_kdump_send"])
def test_it_is_the_very_program_of_the_script_that_has_to_be_in_the_image(
    suse: System, program: str
) -> None:
    (said,) = suse.of(SUSE, f"KDUMP_PRESCRIPT='setsid -f {program} node2'\n{TAKEN}")
    assert f"the image has no {program} unless" in said


def test_scripts_that_do_not_run_are_told(suse: System) -> None:
    text = f'KDUMP_TRANSFER="/root/my.sh"\nKDUMP_PRESCRIPT="{PRESCRIPT} node2"\n{TAKEN}'
    (said,) = suse.of(SUSE, text)
    assert said == "line 2: KDUMP_PRESCRIPT: ignored because KDUMP_TRANSFER is set"


def test_rubbish_in_the_files_of_others_stops_no_installation(rhel: System) -> None:
    for path in (KDUMP_CONF, FENCE_KDUMP, SUSE):
        rhel.put(path, b"\xff\0\"'fence_kdump_nodes \xfe\nKDUMP_PRESCRIPT='\n= x\n\\")
    rhel.command.ok(rhel.root)


def of_the_manual(variable: str) -> tuple[str, list[str]]:
    """The command that our manual gives for this variable, and all the lines with it."""
    section = manpage.read("kdumpfence")["SUSE"].text.splitlines()
    at, *_ = (number for number, line in enumerate(section) if line.startswith(f"{variable}='"))
    lines = [line for line in section[at : at + 3] if re.match("KDUMP_[A-Z_]+='", line)]
    return lines[0].split("'")[1], lines


@pytest.mark.parametrize(
    ("variable", "warned_of"),
    [
        ("KDUMP_NETCONFIG", []),
        ("KDUMP_PRESCRIPT", []),
        ("KDUMP_POSTSCRIPT", ["hears nothing until"]),
    ],
)
def test_what_the_manual_says_for_suse_is_taken(
    suse: System, variable: str, warned_of: list[str]
) -> None:
    _, lines = of_the_manual(variable)
    told = suse.of(SUSE, "\n".join(lines) + "\n")
    assert len(told) == len(warned_of)
    assert all(wanted in one for one, wanted in zip(told, warned_of))


@pytest.mark.parametrize(
    "runner",
    [
        ("bash", "-c", "$SCRIPT"),  # kdump 1.9 to 2.1.0
        ("bash", "-c", 'eval "$SCRIPT"'),  # 2.1.1 and newer
        ("sh", "-c", 'exec sh -c "$SCRIPT"'),  # 1.0.3 and older
    ],
    ids=["words", "eval", "sh"],
)
@pytest.mark.parametrize("variable", ["KDUMP_PRESCRIPT", "KDUMP_POSTSCRIPT"])
@pytest.mark.slow
def test_what_the_manual_says_for_suse_holds_up_no_version_of_kdump(
    tmp_path: Path, runner: tuple[str, ...], variable: str
) -> None:
    sender, argv, end = (tmp_path / name for name in ("fence_kdump_send", "argv", "end"))
    sender.write_text(
        f"#!/bin/sh\nprintf '%s ' \"$@\" >{argv}.new\nmv {argv}.new {argv}\n"
        f"while [ ! -e {end} ]; do sleep 0.1; done\n"
    )
    sender.chmod(0o755)
    script, _ = of_the_manual(variable)
    assert sender_arguments.SUSE_SENDER in script
    script = script.replace(sender_arguments.SUSE_SENDER, str(sender)).replace(
        "timeout 20", "timeout 1"
    )
    try:
        subprocess.run(
            runner, env={**os.environ, "SCRIPT": script}, check=False, timeout=30,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(600):
            if argv.exists():
                break
            time.sleep(0.05)
    finally:
        end.touch()
    assert argv.read_text().split() == script.partition(f"{sender} ")[2].split()
