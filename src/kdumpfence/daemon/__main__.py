# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m kdumpfence.daemon`."""

from kdumpfence.daemon.main import script

if __name__ == "__main__":
    script()
