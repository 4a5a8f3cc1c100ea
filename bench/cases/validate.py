# SPDX-License-Identifier: LGPL-2.1-or-later
"""Validating messages that lie packed in memory, beside copying the same memory."""

from __future__ import annotations

import ctypes
import random
import statistics
import time
from collections.abc import Callable

from bench.paired import Figure, alternate, c_library, figure, pinned, say
from bench.queue import MESSAGE
from kdumpfence import _kdumpwire

MESSAGES = 1_000_000
BIG_ENDIAN = bytes.fromhex("1b302a4000000001")
RUBBISH = b"rubbish!"
#: A sample is the median of so many passes: an interrupt hits one of them.
PASSES = 5


def validating(packed: bytes, accepted: int) -> Callable[[], float]:
    """Messages a second of processor time."""

    def sample() -> float:
        took = []
        for _ in range(PASSES):
            began = time.thread_time_ns()
            counts = _kdumpwire.validate(packed)
            took.append(time.thread_time_ns() - began)
            if counts["accepted"] != accepted:
                raise RuntimeError(f"{counts['accepted']} of {accepted} were accepted")
        return MESSAGES * 1e9 / statistics.median(took)

    return sample


def copying(packed: bytes) -> Callable[[], float]:
    """The same for a copy of the whole buffer into another that is there already."""
    copy = c_library("copy").bare_copy
    copy.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    target = ctypes.create_string_buffer(len(packed))

    def sample() -> float:
        took = []
        for _ in range(PASSES):
            began = time.thread_time_ns()
            copy(target, packed, len(packed))
            took.append(time.thread_time_ns() - began)
        if target.raw[-8:] != packed[-8:]:
            raise RuntimeError("nothing was copied")
        return MESSAGES * 1e9 / statistics.median(took)

    return sample


def figures(quick: bool) -> list[Figure]:
    """Figure 3."""
    rounds = 5 if quick else 41
    dice = random.Random(1)
    contents = {
        "valid": (MESSAGE * MESSAGES, "a million valid messages"),
        "orders": (
            b"".join(dice.choices((MESSAGE, BIG_ENDIAN), k=MESSAGES)),
            "a million valid ones of both byte orders",
        ),
        "rubbish": (
            b"".join(dice.choices((MESSAGE, RUBBISH), k=MESSAGES)),
            "a million, each second one rubbish, at random",
        ),
    }
    found = []
    with pinned():
        for name, (packed, title) in contents.items():
            say(f"validate: {title}")
            accepted = MESSAGES - packed.count(RUBBISH)
            samples = alternate(rounds, ours=validating(packed, accepted), peer=copying(packed))
            found.append(
                figure(
                    f"validate-{name}", "3 validate", f"validate {title}, packed", "messages/s",
                    samples["ours"], samples["peer"], "`memcpy` of the same buffer",
                    "at least" if name == "valid" else "", 0.5,
                )
            )  # fmt: skip
    return found
