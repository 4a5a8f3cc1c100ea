# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests under another kernel, in a guest that has netem and VRFs, and a clock to be set."""
