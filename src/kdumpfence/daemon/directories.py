# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directories of control socket and history: made if they are missing, and closed to others."""

from __future__ import annotations

import contextlib
import os
import stat

from kdumpfence.daemon.history import PATH
from kdumpfence.daemon.settings import Settings


def make(settings: Settings, own: str = os.path.dirname(PATH)) -> None:
    """Make them; that of the history is closed to others also if it is `own`: nobody else's."""
    history = os.path.dirname(settings.history_path)
    private = 0o750 if settings.history_mode & 0o040 else 0o700
    for folder, mode in ((os.path.dirname(settings.control_path), 0o755), (history, private)):
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode)
            os.chmod(folder, mode)  # whatever the umask
    if history == own:
        with contextlib.suppress(OSError):
            if stat.S_IMODE(os.stat(history).st_mode) & ~private:
                os.chmod(history, private)
