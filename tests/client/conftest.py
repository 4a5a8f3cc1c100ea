# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon, and a place for its socket, as the daemon's own tests have them."""

from __future__ import annotations

from tests.daemon.conftest import counting, daemon, path, public

__all__ = ["counting", "daemon", "path", "public"]
