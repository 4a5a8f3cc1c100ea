# SPDX-License-Identifier: LGPL-2.1-or-later
"""What would make kdump fencing fail, found before the crash: behind `kdumpfence doctor`.

It reads files and asks programs, and changes nothing. What one part of the set-up looks like to it
is in a module of that part; checks.py has the list of all.
"""
