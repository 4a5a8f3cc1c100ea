# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which of Debian's packages have the stock fence_kdump: one up to fence-agents 4.12, then two.

From 4.16 on (Debian 13) `fence-agents` is empty and depends on a package for each agent.
"""

from __future__ import annotations

from tests.support import debian
from tests.support.debian import NotAvailable

#: The first has the agent and its sender, the last the schema of their metadata; newest first.
KNOWN = (("fence-agents-kdump", "fence-agents-common"), ("fence-agents",))
#: The same for a reader.
WHERE = ", before Debian 13 ".join(" and ".join(packages) for packages in KNOWN)


def named() -> tuple[str, ...]:
    """Name those that apt knows here, as in KNOWN. Raises NotAvailable."""
    known = debian.known("fence-agents")
    for packages in KNOWN:
        if known.issuperset(packages):
            return packages
    raise NotAvailable(f"apt knows no package with the stock fence_kdump ({WHERE})")
