# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the key file to `decision.Signatures`; only for auth=sha256."""

from __future__ import annotations

from kdumpfence import keys
from kdumpfence.agent.decision import Signatures
from kdumpfence.cmdline import OptionError
from kdumpfence.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.agent.options import AgentOptions


def read_signatures(options: AgentOptions, named: bool = True) -> Signatures:
    """What the node's packets are to be signed with.

    OptionError if the file cannot be read, or, with `named`, no name of the node has a key.
    """
    try:
        found = keys.read(options.key_file)
    except keys.KeyFileError as error:
        raise OptionError(str(error)) from None
    signatures = Signatures(found, options.called)
    if named and not signatures.names:
        raise OptionError(_why_no_name(options, found))
    return signatures


def _why_no_name(options: AgentOptions, found: keys.Keys) -> str:
    if not options.called:
        return (
            "auth sha256: keys belong to names, and no name of the node was given beside its "
            "addresses: nodename=NODE[,NODE...]"
        )
    called = ", ".join(options.called)
    if found.node:
        return f"key file {shown(options.key_file)}: has the key of '{found.node}', not of {called}"
    return f"auth sha256: none of {called} can be in a packet (1 to 64 ASCII characters)"
