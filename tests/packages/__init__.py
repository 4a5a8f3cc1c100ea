# SPDX-License-Identifier: LGPL-2.1-or-later
"""The packages for Debian and for rpm systems, really built, installed and removed again."""
