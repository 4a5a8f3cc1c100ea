# SPDX-License-Identifier: GPL-2.0-or-later
"""fence_kdump_send: tells the other nodes "I am dumping", from the crash kernel."""
