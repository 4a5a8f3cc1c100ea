# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the kernel of this machine counts messages for us."""

from __future__ import annotations

from kdumpfence.listener.kernel import CannotCountError
from kdumpfence.listener.kernel.counting import load
from tests.conftest import cannot_run, udp


def need_kernel_counting() -> None:
    """For tests of it."""
    with udp() as sock:
        try:
            load([sock], 1, 30.0, 10.0).close()
        except CannotCountError as error:
            cannot_run(f"no counting in the kernel: {error}")
