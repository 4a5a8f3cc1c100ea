# SPDX-License-Identifier: LGPL-2.1-or-later
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

from kdumpfence.agent.options import AGENT_OPTIONS, AUTHS, NODE_PARAMETERS, AgentOptions
from kdumpfence.cmdline import REQUIRED, metavar

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
    "auth": "What is believed: with none, any message from an address of the node; with sha256, "
    "only an answer that is signed with the node's key, from whatever address. With sha256 the "
    "node needs its key in its crash image, and the key file has to be on every node.",
    "key_file": "File with the cluster's key, made by kdumpfence key create; for auth=sha256.",
    "alive_grace": "Seconds for which the node has to answer that it is alive, without a gap, "
    "until the agent fails at once instead of at the time-out; 0 is at the first answer, -1 never. "
    "A node in a soft lockup answers and may still panic.",
    "listener": "A kdumpfenced that listens for this agent, which then opens no port: "
    "unix:/run/kdumpfenced/control on the same machine, or http://HOST:PORT. Only what it hears "
    "during the wait counts. With auth=none the daemon is believed, and over http whoever is in "
    "between; with auth=sha256 only an answer that the node signed for this wait.",
    "plug": "More names or addresses of the same node, added to nodename, separated by commas. "
    "pcmk_host_map is passed here.",
}

#: Options that are called otherwise as parameters.
_PARAMETER_NAMES = {"help": "usage"}


def _parameter(short: str, option: str, takes: int, _: str) -> str:
    name = option.replace("-", "_")
    getopt = f"{f'-{short}, ' if short else ''}--{option}"
    content = 'type="boolean" />'
    if option in NODE_PARAMETERS:
        getopt += "=NODE[,NODE...]"
        content = 'type="string" />'
    elif takes == REQUIRED:
        getopt += "=PORT" if option == "ipport" else f"={metavar(option)}"
        default = f'default="{getattr(AgentOptions(), name)}"'
        content = f'type="string" {default} />'
        if option == "auth":
            choices = "".join(f'\t\t\t<option value="{choice}" />\n' for choice in AUTHS)
            content = f'type="select" {default}>\n{choices}\t\t</content>'
    return (
        f'\t<parameter name="{_PARAMETER_NAMES.get(option, name)}" unique="0" required="0">\n'
        f'\t\t<getopt mixed="{getopt}" />\n'
        f"\t\t<content {content}\n"
        f'\t\t<shortdesc lang="en">{_DESCRIPTIONS[name]}</shortdesc>\n'
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
