# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfence install-sender, on roots that the tests make up."""
