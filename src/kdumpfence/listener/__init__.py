# SPDX-License-Identifier: GPL-2.0-or-later
"""`kdumpfence.Listener`: hears any number of nodes and gives out what happens to them as events."""
