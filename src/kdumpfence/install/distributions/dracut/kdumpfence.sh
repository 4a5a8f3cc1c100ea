#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# dracut's hook cmdline/00, read in by its shell. start-sender does nothing outside of a crash
# kernel and returns at once.

[ ! -x /usr/lib/kdumpfence/start-sender ] || /usr/lib/kdumpfence/start-sender
