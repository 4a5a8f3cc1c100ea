# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sender in crash images made by real dracut and by real initramfs-tools, and real panics.

Each image is made in Debian's root by the distribution's own program, with the sender and the key
that `kdumpfence install-sender` has put there. The panicked guest boots it, the image's own
programs bring the network up, and its hook saves the memory (dump.sh plays that) while agents wait:
one demands the node's signature, one demands none, and the last has the key of another cluster.
"""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import guest
from tests.support.messages import PORT
from tests.support.netlab import Lab
from tests.support.packets import key_id, node_key, sign
from tests.system.crash import debian_root, images, listening, panics, quiet_boot, signing
from tests.system.crash.conftest import about, about_each
from tests.system.crash.harness import Beside, Crash, Network, Outcome, run
from tests.system.crash.images import MAKERS, NETWORK, NODE, SURVIVOR, SYSTEMS, Image, Maker

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

SENDER = "/usr/lib/kdumpfence/fence_kdump_send"
RESOLVED = "etc/kdumpfence/resolved"

AGENT = str(panics.our_agent())

#: Seconds for which an agent waits that will say no, but is answered several times a second.
IN_VAIN = 3

#: Makers for the controls, and how long an agent waits there for the sender that is not in the
#: image, in seconds: more than twice of what it takes to hear the one that is.
CONTROLS = {"initramfs-tools": 40, "dracut": 45}

#: Makers whose images have a hook that saves the memory.
WITH_A_HOOK = ("initramfs-tools", "dracut without systemd")

#: What a sender says whose image has no names.
NO_NAME = "node 'survivor.cluster': .*; will try again"

Result = tuple[Image, Any]  # and an Outcome, of harness.py or quiet_boot.py


def _image(maker: Maker, folder: Path, **how: Any) -> Image:
    return images.make(maker, debian_root.get(), folder, **how)


def _panic(maker: Maker, folder: Path) -> Result:
    image = _image(maker, folder)
    images.forget_names(image)
    return image, _run(maker, image, 120, "the end is told")


def _panic_with_a_system(maker: Maker, folder: Path) -> Result:
    # As few seconds of real dumping as may be: the panicked kernel has little memory.
    image = _image(maker, folder)
    images.forget_names(image)
    memory = {"crashkernel": "448M", "memory": 896}
    return image, _run(maker, image, 150, "Restarting system", **memory)


def _panic_without_sender(maker: str, folder: Path) -> Result:
    # The dump goes on until the agent's no.
    image = _image(MAKERS[maker], folder, sender=False, files=NETWORK, dump=1000)
    return image, _run(MAKERS[maker], image, CONTROLS[maker], "dump begins")


def _no_panic(maker: str, folder: Path) -> Result:
    image = _image(MAKERS[maker], folder, files=NETWORK, dump=4)
    arguments = f"{guest.ARGUMENTS} {MAKERS[maker].arguments}"
    return image, quiet_boot.run(image.file, arguments, SURVIVOR, folder)


def _run(maker: Maker, image: Image, timeout: int, until: str, **memory: Any) -> Outcome:
    agent, beside = _agent(timeout), {}
    if image.key_file.exists():
        other = signing.cluster_file(image.key_file.with_name("other-key"), signing.OTHER_KEY)
        beside["none"] = Beside(agent)
        listens = [sys.executable, listening.__file__, str(image.key_file), signing.NAME, NODE]
        beside["listener"] = Beside(listens, ends=False)
        beside["other key"] = Beside(signing.demanding(_agent(IN_VAIN), other), starts="")
        agent = signing.demanding(agent, image.key_file)
    crash = Crash(
        initramfs=image.file,
        arguments=f"{guest.ARGUMENTS} {maker.arguments}",
        networks=[Network([f"{SURVIVOR}/24"])],
        agent=agent,
        beside=beside,
        until=until,
        seconds=240,
        **{"crashkernel": "256M", "memory": 768, **memory},
    )
    return run(crash)


def _agent(timeout: int) -> list[str]:
    return [AGENT, "-n", NODE, "-t", str(timeout), "-v"]


#: What can be run. The longest come first, so that two at a time end together.
BOOTS: Mapping[str, Callable[[Path], Result]] = {
    **{name: functools.partial(_panic_with_a_system, maker) for name, maker in SYSTEMS.items()},
    **{
        f"{maker}, no sender": functools.partial(_panic_without_sender, maker) for maker in CONTROLS
    },
    **{name: functools.partial(_panic, MAKERS[name]) for name in WITH_A_HOOK},
    **{f"{maker}, no panic": functools.partial(_no_panic, maker) for maker in CONTROLS},
}


def messages_between(outcome: Outcome, begin: str, end: str) -> int:
    """How many there were between these two lines of the console."""
    begins, ends = outcome.line(begin).at, outcome.line(end).at
    return sum(begins < sent.at < ends for sent in outcome.messages())


@about_each(*WITH_A_HOOK, "dracut and on")
def test_the_image_has_all_that_the_sender_needs(outcomes: list[Result]) -> None:
    ((image, _),) = outcomes
    starts = ["chroot", str(image.content), SENDER, "-V"]
    said = subprocess.run(starts, capture_output=True, text=True, check=False, timeout=60)
    assert "kdumpfence, native" in said.stdout, said.stderr
    resolved = (image.content / RESOLVED).read_text().splitlines()
    assert f'ADDRESSES="{SURVIVOR}"' in resolved


@about_each(*WITH_A_HOOK, "dracut and on")
def test_the_image_has_the_nodes_own_key_and_nothing_of_the_clusters(
    outcomes: list[Result],
) -> None:
    ((image, _),) = outcomes
    cluster_key = signing.read_key(image.key_file)
    own = image.content / signing.NODE_KEY.lstrip("/")
    assert (own.stat().st_mode & 0o7777, own.stat().st_uid) == (0o600, 0)
    own_key = signing.read_key(own)
    assert own_key == node_key(cluster_key, signing.NAME)
    assert files_with(own_key, image.content) == [own]
    assert files_with(cluster_key, image.content) == []


@about_each("kdump-tools")
def test_an_image_without_the_sender_has_no_key(outcomes: list[Result]) -> None:
    ((image, _),) = outcomes
    cluster_key = signing.read_key(image.key_file)
    for key in (cluster_key, node_key(cluster_key, signing.NAME)):
        assert files_with(key, image.content) == []


def files_with(key: bytes, folder: Path) -> list[Path]:
    """Those in which a key stands, as it is or in hexadecimal digits."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100, "is this an image?"
    return [path for path in files if _has(path.read_bytes(), key)]


def _has(content: bytes, key: bytes) -> bool:
    return key in content or key.hex().encode() in content.lower()


@about_each(*WITH_A_HOOK, *SYSTEMS)
def test_the_nodes_signature_is_believed_and_that_of_another_cluster_is_not(
    outcomes: list[Result],
) -> None:
    ((image, outcome),) = outcomes
    cluster_key = signing.read_key(image.key_file)
    signing.check_yes(outcome, cluster_key, NODE)
    other = outcome.beside["other key"]
    assert other.status == 1, str(outcome)
    assert (
        f"[error]: not believed: status of '{signing.NAME}' from {NODE} with key id "
        f"{key_id(cluster_key):08x}, which the key file does not have"
    ) in other.text, str(outcome)
    assert re.search("questions: [0-9]+, answers: [1-9]", other.text), str(outcome)


@about_each("initramfs-tools")
def test_a_recorded_crash_is_believed_by_those_alone_who_demand_no_signature(
    outcomes: list[Result],
) -> None:
    ((image, outcome),) = outcomes
    recorded = [sent for sent in outcome.sent if sent.is_message]
    assert {sent.is_unasked for sent in recorded} == {True, False}, str(outcome)
    agents = {"none": _agent(IN_VAIN), "sha256": _agent(IN_VAIN)}
    agents["sha256"] = signing.demanding(agents["sha256"], image.key_file)
    with Lab() as lab:
        node, survivor = lab.host("node"), lab.host("survivor")
        lab.link(node, survivor, [f"{NODE}/24"], [f"{SURVIVOR}/24"])
        sock = node.open_socket()
        sock.bind((NODE, PORT))
        sock.settimeout(0.1)
        programs = {
            name: survivor.popen(agent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for name, agent in agents.items()
        }
        asked = set()
        while any(program.poll() is None for program in programs.values()):
            with contextlib.suppress(TimeoutError):
                _, asker = sock.recvfrom(2048)
                asked.add(asker)
                for sent in recorded:
                    sock.sendto(sent.payload, (SURVIVOR, PORT))
                    sock.sendto(sent.payload, asker)
        said = {name: program.communicate()[0] for name, program in programs.items()}
        status = {name: program.returncode for name, program in programs.items()}
    # Both asked, and one asked again where the recorded messages seemed to come from.
    assert len(asked) == 3, said
    assert (SURVIVOR, PORT) in asked, said
    assert status == {"none": 0, "sha256": 1}, said
    assert f"the node signed a message from {NODE}, but no answer to a question" in said["sha256"]


@about_each(*WITH_A_HOOK)
def test_a_panicked_node_is_heard_and_goes_on_telling_while_it_dumps(
    outcomes: list[Result],
) -> None:
    ((_, outcome),) = outcomes
    outcome.check_yes(NODE, beside="none")
    outcome.line(NO_NAME)
    assert messages_between(outcome, "dump begins", "dump ends") >= 1, str(outcome)
    outcome.line("there is .*fence_kdump")  # when the dump is done


@about("initramfs-tools")
def test_the_end_of_a_dump_is_told(outcomes: list[Result]) -> None:
    check_end(*outcomes[0], "finished", "dump ends", "the end is told")


@about("dracut without systemd")
def test_the_failure_of_a_dump_is_told(outcomes: list[Result]) -> None:
    check_end(*outcomes[0], "failed", "dump ends", "the end is told")


@about("kdump-tools")
def test_the_end_of_a_dump_is_told_by_debians_unit(outcomes: list[Result]) -> None:
    check_end(*outcomes[0], "finished", "saved vmcore in", "Restarting system")


def check_end(image: Image, outcome: Outcome, state: str, dumped: str, reboots: str) -> None:
    """Check that the end of the dump was told and heard, and that the reboot did not wait."""
    ends = [sent for sent in outcome.messages() if sent.state in ("finished", "failed")]
    assert ends, str(outcome)
    assert {sent.state for sent in ends} == {state}, str(outcome)
    key = node_key(signing.read_key(image.key_file), signing.NAME)
    assert all(sign(sent.payload, key) == sent.payload for sent in ends), str(outcome)
    heard = outcome.beside["listener"].text.splitlines()
    assert heard[0] == f"began {signing.NAME}", str(outcome)
    assert heard[-1] == f"{state} {signing.NAME}", str(outcome)
    begins = outcome.line(dumped).at
    assert ends[0].at > begins, str(outcome)
    put_off = outcome.line(reboots).at - begins
    print(f"from the end of the dump to the reboot: {put_off:.1f} s")
    assert put_off <= panics.PUT_OFF, str(outcome)


@about_each(*SYSTEMS)
def test_it_tells_while_a_real_system_saves_the_dump_of_a_real_panic(
    outcomes: list[Result],
) -> None:
    ((_, outcome),) = outcomes
    outcome.check_yes(NODE, beside="none")
    assert messages_between(outcome, "running makedumpfile -F", "saved vmcore in") >= 1
    # And nobody waits for it to end: systemd would for a minute and a half.
    saved, restarts = outcome.line("saved vmcore in"), outcome.line("Restarting system")
    assert restarts.at - saved.at < 30, str(outcome)


@about_each("dracut and on")
def test_the_sender_of_the_image_outlives_the_image(outcomes: list[Result]) -> None:
    ((_, outcome),) = outcomes
    # Its own lines prove nothing: systemd resets the console, and some are lost.
    welcome = re.compile("Welcome to|Booting initrd of")  # the latter since systemd 257
    image, system = (line for line in outcome.console if welcome.search(line.text))
    assert re.search("Initramfs|initrd", image.text)
    assert not re.search("Initramfs|initrd", system.text)
    assert outcome.messages()[-1].at > outcome.line("running makedumpfile -F").at > system.at


# Controls: what must not be a yes.


@about_each(*(f"{maker}, no sender" for maker in CONTROLS))
def test_without_the_sender_nobody_is_heard(outcomes: list[Result]) -> None:
    ((image, outcome),) = outcomes
    assert not (image.content / RESOLVED).exists()
    assert outcome.agent.status == 1, str(outcome)
    assert outcome.datagrams == []
    # It was not the agent that was too early, nor the network that was not there.
    assert outcome.agent.ended is not None
    assert outcome.agent.ended > outcome.line(f"this is {NODE}").at + 3, str(outcome)


@about_each(*(f"{maker}, no panic" for maker in CONTROLS))
def test_a_boot_that_is_no_crash_sends_nothing(outcomes: list[Result]) -> None:
    ((_, quiet),) = outcomes
    assert "nothing to dump" in quiet.console
    assert f"this is {NODE}" in quiet.console, quiet.console
    assert re.search("there is .*fence_kdump", quiet.console) is None, quiet.console
    # Later dump.sh starts the sender, with another port: so sending was possible, and is noticed.
    assert set(quiet.ports) == {quiet_boot.OTHER_PORT}, quiet.console
