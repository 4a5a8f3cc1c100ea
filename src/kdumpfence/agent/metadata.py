# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent tells Pacemaker, pcs and crmsh about itself.

Parameters, types and defaults are the stock agent's, so that every configuration made
for it stays valid; `plug` is advertised beside them because Pacemaker passes what
`pcmk_host_map` says only to an agent that has it (or `port`, its older name, which is
understood as well). The actions
are the stock agent's as well: `reboot` and `status` are understood but not advertised,
or Pacemaker would use them (for a reboot that cannot be confirmed, and to find out
which nodes may be fenced). The order of the elements is that of the fence-agents schema.
"""

from __future__ import annotations

from kdumpfence.agent.options import AGENT_OPTIONS, NODE_PARAMETERS
from kdumpfence.cmdline import REQUIRED
from kdumpfence.wire import PORT

#: name, content type, default or None, description
_PARAMETERS = (
    (
        "nodename",
        "string",
        None,
        "Names or IP addresses of the node to be heard, separated by commas, of both IP "
        "families if it has them. A message from any one of them proves that the node is "
        "in its crash kernel. Needed for the action off; a fence daemon fills it in.",
    ),
    ("ipport", "string", str(PORT), "UDP port on which messages are expected."),
    (
        "family",
        "string",
        "auto",
        "IP family of the addresses to use: auto (both), ipv4 or ipv6.",
    ),
    (
        "action",
        "string",
        "off",
        "What to do: off waits for the message, monitor looks whether this machine itself "
        "has a crash kernel loaded, validate-all checks the parameters, metadata prints this.",
    ),
    (
        "timeout",
        "string",
        "60",
        "Seconds to wait for a message. Keep it some seconds below the time-out that the "
        "cluster sets for the action, or the agent is killed before it can answer.",
    ),
    ("verbose", "boolean", None, "Say more about what is heard and why it is not believed."),
    ("version", "boolean", None, "Print the version."),
    ("usage", "boolean", None, "Print a summary of the options."),
    (
        "plug",
        "string",
        None,
        "More names or addresses of the same node, added to those in nodename: what "
        "pcmk_host_map says about the node, several separated by commas.",
    ),
)

#: Parameters that are called otherwise on the command line.
_OPTION_NAMES = {"usage": "help"}


def _getopt(name: str) -> str:
    for short, option, takes, _ in AGENT_OPTIONS:
        if option == _OPTION_NAMES.get(name, name):
            if option in NODE_PARAMETERS:
                return f"{f'-{short}, ' if short else ''}--{option}=NODE[,NODE...]"
            if option == "ipport":
                return f"-{short}, --{option}=PORT"
            value = f"={option.upper()}" if takes == REQUIRED else ""
            return f"-{short}, --{option}{value}"
    raise KeyError(name)


def _parameter(name: str, content: str, default: str | None, text: str) -> str:
    attribute = "" if default is None else f' default="{default}"'
    return (
        f'\t<parameter name="{name}" unique="0" required="0">\n'
        f'\t\t<getopt mixed="{_getopt(name)}" />\n'
        f'\t\t<content type="{content}"{attribute} />\n'
        f'\t\t<shortdesc lang="en">{text}</shortdesc>\n'
        "\t</parameter>\n"
    )


METADATA = f"""<?xml version="1.0" ?>
<resource-agent name="fence_kdump" shortdesc="Recognises a node that runs its crash kernel">
<longdesc>A node that panics boots a crash kernel to save its memory, which takes minutes. From
there fence_kdump_send tells the other nodes, over UDP, that it is dumping; this agent
waits for that message. When it comes, the node runs nothing of the cluster any more and
counts as fenced, and its dump can be finished. When none comes within the time-out,
the agent fails and the next fencing level has to act.

fence_kdump switches nothing off, so it is never enough alone: give it the first level of
a fencing topology and a device that cuts the power the second.
</longdesc>
<vendor-url>https://www.clusterlabs.org/</vendor-url>
<parameters>
{"".join(_parameter(*one) for one in _PARAMETERS)}</parameters>
<actions>
\t<action name="off" />
\t<action name="monitor" />
\t<action name="metadata" />
\t<action name="validate-all" />
</actions>
</resource-agent>
"""
