# SPDX-License-Identifier: GPL-2.0-or-later
"""The sender in crash images made by real dracut and by real initramfs-tools, and real panics.

Each image is made in Debian's root by the distribution's own program, with the sender that
`kdumpfence install-sender` has put there. The panicked guest boots it, the image's own programs
bring the network up, and its hook saves the memory (dump.sh plays that) while the agent waits.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Union

import pytest

from tests.system.crash import debian_root, images, panics, quiet_boot
from tests.system.crash.conftest import about_each
from tests.system.crash.harness import Crash, Network, Outcome, run
from tests.system.crash.images import MAKERS, NETWORK, NODE, SURVIVOR, SYSTEMS, Image, Maker

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

KERNEL_ARGUMENTS = "console=ttyS0 panic=-1 nokaslr mitigations=off"

SENDER = "/usr/lib/kdumpfence/fence_kdump_send"
RESOLVED = "etc/kdumpfence/resolved"

#: Makers for the controls, and how long an agent waits there for the sender that is not in the
#: image, in seconds: more than twice of what it takes to hear the one that is.
CONTROLS = {"initramfs-tools": 40, "dracut": 45}

#: Makers whose images have a hook that saves the memory.
WITH_A_HOOK = ("initramfs-tools", "dracut without systemd")

#: What a sender says whose image has no names.
NO_NAME = "node 'survivor.cluster': .*; will try again"

Result = tuple[Image, Union[Outcome, quiet_boot.Outcome]]


def _panic(maker: Maker, folder: Path) -> Result:
    debian = debian_root.get()
    image = images.make(maker, debian, folder)
    images.forget_names(image)
    return image, _run(maker, debian, image, 120, "dump ends")


def _panic_with_a_system(maker: Maker, folder: Path) -> Result:
    # As few seconds of real dumping as may be: the panicked kernel has little memory.
    debian = debian_root.get()
    image = images.make(maker, debian, folder)
    images.forget_names(image)
    ends = "Restarting system"
    return image, _run(maker, debian, image, 150, ends, crashkernel="448M", memory=896)


def _panic_without_sender(maker: str, folder: Path) -> Result:
    # The dump goes on until the agent's no.
    debian = debian_root.get()
    image = images.make(MAKERS[maker], debian, folder, sender=False, files=NETWORK, dump=1000)
    return image, _run(MAKERS[maker], debian, image, CONTROLS[maker], "dump begins")


def _no_panic(maker: str, folder: Path) -> Result:
    debian = debian_root.get()
    image = images.make(MAKERS[maker], debian, folder, files=NETWORK, dump=4)
    arguments = f"{KERNEL_ARGUMENTS} {MAKERS[maker].arguments}"
    return image, quiet_boot.run(debian.kernel, image.file, arguments, SURVIVOR, folder)


def _run(
    maker: Maker,
    debian: debian_root.Root,
    image: Image,
    agent: int,
    until: str,
    *,
    crashkernel: str = "256M",
    memory: int = 768,
) -> Outcome:
    return run(
        Crash(
            initramfs=image.file,
            kernel=debian.kernel,
            arguments=f"{KERNEL_ARGUMENTS} {maker.arguments}",
            networks=[Network([f"{SURVIVOR}/24"])],
            agent=[str(panics.our_agent()), "-n", NODE, "-t", str(agent), "-v"],
            crashkernel=crashkernel,
            memory=memory,
            until=until,
            seconds=240,
        )
    )


#: What can be run. The longest come first, so that two at a time end together.
BOOTS: Mapping[str, Callable[[Path], Result]] = {
    **{name: functools.partial(_panic_with_a_system, maker) for name, maker in SYSTEMS.items()},
    **{
        f"{maker}, no sender": functools.partial(_panic_without_sender, maker) for maker in CONTROLS
    },
    **{name: functools.partial(_panic, MAKERS[name]) for name in WITH_A_HOOK},
    **{f"{maker}, no panic": functools.partial(_no_panic, maker) for maker in CONTROLS},
}


@about_each(*WITH_A_HOOK, "dracut and on")
def test_the_image_has_all_that_the_sender_needs(outcomes: list[Result]) -> None:
    ((image, _),) = outcomes
    starts = ["chroot", str(image.content), SENDER, "-V"]
    said = subprocess.run(starts, capture_output=True, text=True, check=False, timeout=60)
    assert "kdumpfence, native" in said.stdout, said.stderr
    resolved = (image.content / RESOLVED).read_text().splitlines()
    assert f'ADDRESSES="{SURVIVOR}"' in resolved


@about_each(*WITH_A_HOOK)
def test_a_panicked_node_is_heard_and_goes_on_telling_while_it_dumps(
    outcomes: list[Result],
) -> None:
    ((_, outcome),) = outcomes
    assert isinstance(outcome, Outcome)
    outcome.check_yes(NODE)
    outcome.line(NO_NAME)
    begins, ends = outcome.line("dump begins").at, outcome.line("dump ends").at
    while_it_dumps = [sent for sent in outcome.messages() if begins < sent.at < ends]
    assert len(while_it_dumps) >= 3, str(outcome)
    outcome.line("there is .*fence_kdump")  # when the dump is done


@about_each(*SYSTEMS)
def test_it_tells_while_a_real_system_saves_the_dump_of_a_real_panic(
    outcomes: list[Result],
) -> None:
    ((_, outcome),) = outcomes
    assert isinstance(outcome, Outcome)
    outcome.check_yes(NODE)
    begins, ends = outcome.line("running makedumpfile -F").at, outcome.line("saved vmcore in").at
    while_it_dumps = [sent for sent in outcome.messages() if begins < sent.at < ends]
    assert len(while_it_dumps) >= 3, str(outcome)
    # And nobody waits for it to end: systemd would for a minute and a half.
    restarts = outcome.line("Restarting system").at
    assert restarts - ends < 30, str(outcome)


@about_each("dracut and on")
def test_the_sender_of_the_image_outlives_the_image(outcomes: list[Result]) -> None:
    ((_, outcome),) = outcomes
    assert isinstance(outcome, Outcome)
    outcome.line(NO_NAME)
    image, system = (line for line in outcome.console if "Welcome to" in line.text)
    assert "Initramfs" in image.text
    assert "Initramfs" not in system.text
    assert outcome.messages()[-1].at > outcome.line("running makedumpfile -F").at > system.at


# Controls: what must not be a yes.


@about_each(*(f"{maker}, no sender" for maker in CONTROLS))
def test_without_the_sender_nobody_is_heard(outcomes: list[Result]) -> None:
    ((image, outcome),) = outcomes
    assert isinstance(outcome, Outcome)
    assert not (image.content / RESOLVED).exists()
    assert outcome.status == 1, str(outcome)
    assert outcome.datagrams == []
    # It was not the agent that was too early, nor the network that was not there.
    assert outcome.ended is not None
    assert outcome.ended > outcome.line(f"this is {NODE}").at + 3, str(outcome)


@about_each(*(f"{maker}, no panic" for maker in CONTROLS))
def test_a_boot_that_is_no_crash_sends_nothing(outcomes: list[Result]) -> None:
    ((_, quiet),) = outcomes
    assert isinstance(quiet, quiet_boot.Outcome)
    assert "nothing to dump" in quiet.console
    assert f"this is {NODE}" in quiet.console, quiet.console
    assert re.search("there is .*fence_kdump", quiet.console) is None, quiet.console
    # Later dump.sh starts the sender, with another port: so sending was possible, and is noticed.
    assert set(quiet.ports) == {quiet_boot.OTHER_PORT}, quiet.console
