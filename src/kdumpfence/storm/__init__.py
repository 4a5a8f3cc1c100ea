# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays any number of nodes that dump, to try what listens to them."""
