# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfence: the command for everything beside fencing; one file a subcommand."""
