# SPDX-License-Identifier: GPL-2.0-or-later
"""fence_kdump, the fence agent: hears whether a node is in its crash kernel, and says yes or no."""
