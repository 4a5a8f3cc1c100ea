# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why a question has no answer. None of these means that a node is not dumping."""

from __future__ import annotations


class ClientError(Exception):
    """There is no answer; the text is one line for people."""


class Unreachable(ClientError):
    """No daemon is there, it did not answer in time, or it is not ready: try again later."""


class Refused(ClientError):
    """The daemon does not take this question: it is of an older version, or asked for nonsense."""


class Unexpected(ClientError):
    """Whoever answered is not kdumpfenced, or not one that this program may believe."""


class CannotTell(ClientError):
    """The daemon knows of no dump, but does not listen for this node, or may have missed it."""
