# SPDX-License-Identifier: GPL-2.0-or-later
"""Is what a user gets complete: the sdist, the wheels, and the switches that make them."""
