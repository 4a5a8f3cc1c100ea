# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m kdumpfence.agent`."""

from kdumpfence.agent.main import script

if __name__ == "__main__":
    script()
