# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfenced: a `Listener` as a service, with a history, a control socket and metrics."""
