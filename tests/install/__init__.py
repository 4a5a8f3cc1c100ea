# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence install-sender, on roots that the tests make up."""
