# SPDX-License-Identifier: LGPL-2.1-or-later
"""Is what a user gets complete: the sdist, the wheels, and the switches that make them."""
