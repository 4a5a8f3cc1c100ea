# SPDX-License-Identifier: LGPL-2.1-or-later
"""fence_kdump_send: tells the other nodes "I am dumping", from the crash kernel."""
