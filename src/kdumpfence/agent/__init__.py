# SPDX-License-Identifier: LGPL-2.1-or-later
"""fence_kdump, the fence agent: hears whether a node is in its crash kernel, and says yes or no."""
