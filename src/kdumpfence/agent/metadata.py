# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent tells Pacemaker, pcs and crmsh about itself.

Parameters, types and defaults are the stock agent's, so that every configuration made
for it stays valid; `plug` is advertised beside them because Pacemaker passes what
`pcmk_host_map` says only to an agent that has it (or `port`, its older name, which is
understood as well). The actions are the stock agent's as well: `reboot` and `status` are
understood but not advertised, or Pacemaker would use them (for a reboot that cannot be confirmed,
and to find out which nodes may be fenced). The order of the elements is that of the fence-agents
schema.
"""

from __future__ import annotations

from kdumpfence.agent.options import AGENT_OPTIONS, NODE_PARAMETERS, AgentOptions
from kdumpfence.cmdline import REQUIRED

#: What each option means in a cluster's configuration: more than fits into its line of --help.
_DESCRIPTIONS = {
    "nodename": "Names or IP addresses of the node to be heard, separated by commas, of both IP "
    "families if it has them. A message from any one of them proves that the node is "
    "in its crash kernel. Required for the action off; the fence daemon fills it in.",
    "ipport": "UDP port on which messages are expected.",
    "family": "IP family of the addresses to use: auto (both), ipv4 or ipv6.",
    "action": "What to do: off waits for the message, monitor checks that this machine has a "
    "crash kernel loaded, validate-all checks the parameters, metadata prints this description.",
    "timeout": "Seconds to wait for a message. Keep it some seconds below the cluster's time-out "
    "for the action (pcmk_off_timeout), or the agent is killed before it can answer.",
    "verbose": "Log more: what is heard, and why it is not believed.",
    "version": "Print the version.",
    "help": "Print a summary of the options.",
    "plug": "More names or addresses of the same node, added to nodename, separated by commas. "
    "pcmk_host_map is passed here.",
}

#: Options that are called otherwise as parameters.
_PARAMETER_NAMES = {"help": "usage"}


def _parameter(short: str, option: str, takes: int, _: str) -> str:
    getopt = f"{f'-{short}, ' if short else ''}--{option}"
    content = 'type="boolean"'
    if option in NODE_PARAMETERS:
        getopt += "=NODE[,NODE...]"
        content = 'type="string"'
    elif takes == REQUIRED:
        getopt += "=PORT" if option == "ipport" else f"={option.upper()}"
        content = f'type="string" default="{getattr(AgentOptions(), option)}"'
    return (
        f'\t<parameter name="{_PARAMETER_NAMES.get(option, option)}" unique="0" required="0">\n'
        f'\t\t<getopt mixed="{getopt}" />\n'
        f"\t\t<content {content} />\n"
        f'\t\t<shortdesc lang="en">{_DESCRIPTIONS[option]}</shortdesc>\n'
        "\t</parameter>\n"
    )


METADATA = f"""<?xml version="1.0" ?>
<resource-agent name="fence_kdump" shortdesc="Detects that a node is running its crash kernel">
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
{"".join(_parameter(*option) for option in AGENT_OPTIONS)}</parameters>
<actions>
\t<action name="off" />
\t<action name="monitor" />
\t<action name="metadata" />
\t<action name="validate-all" />
</actions>
</resource-agent>
"""
