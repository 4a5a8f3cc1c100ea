# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages for Debian and for rpm systems, really built, installed and removed again."""
