# SPDX-License-Identifier: LGPL-2.1-or-later
"""Puts the agent and the sender where clusters and crash kernels look for them."""


class InstallError(Exception):
    """It cannot be done; the text says why, in one line."""
