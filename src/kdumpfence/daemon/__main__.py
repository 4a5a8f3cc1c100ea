# SPDX-License-Identifier: LGPL-2.1-or-later
"""`python -m kdumpfence.daemon`."""

from kdumpfence.daemon.main import script

if __name__ == "__main__":
    script()
