# SPDX-License-Identifier: LGPL-2.1-or-later
"""`python -m kdumpfence.sender`."""

from kdumpfence.sender.main import script

if __name__ == "__main__":
    script()
