# SPDX-License-Identifier: LGPL-2.1-or-later
"""`kdumpfence.Listener`: hears any number of nodes and gives out what happens to them as events."""
