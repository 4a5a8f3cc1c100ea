# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced: a `Listener` as a service, with a history, a control socket and metrics."""
