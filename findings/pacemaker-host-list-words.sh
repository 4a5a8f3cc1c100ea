#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Pacemaker: a device whose pcmk_host_list is cache-invalidator1,cache-invalidator2 fences neither.
#
# pcmk_host_list names the nodes that a device can fence. If "invalid" or "variable" is in one of
# the names, the device can fence none of them, and the log says no more than that it is not
# eligible. The list is read by the code for the output of the agents' action "list", and that
# skips lines with these words as complaints. pcmk_host_map takes such names.
#
# The same code has a surprise for devices without either parameter. There the action "list" says
# which nodes can be fenced: a line for each outlet, number and label, like "7,spare (was node2)".
# One would expect the label to be one name, and the number none. But each word is a node that the
# device can fence, up to the first character that is no letter, digit, "_", "-" or ".". So a
# remark in a label makes Pacemaker ask a device to switch off a node that is not connected to it.
#
# Pacemaker 3.0.3 (Debian sid) and 3.0.0 (Debian 13): its fencer, without the rest of a cluster.
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

expected='pcmk_host_list=node1,node2
  node1: plug=node1
  node2: plug=node2
pcmk_host_list=cache-invalidator1,cache-invalidator2
  cache-invalidator1: no device
  cache-invalidator2: no device
pcmk_host_list=node1,variables
  node1: no device
pcmk_host_map=cache-invalidator1:1;cache-invalidator2:2
  cache-invalidator1: plug=1
  cache-invalidator2: plug=2
list: 6,node1
  node1: plug=node1
  6: plug=6
list: 7,spare (was node2)
  spare: plug=spare
  node2: plug=node2
list: 8,node3/left
  node3: plug=node3'

cat >"$work/test.sh" <<'SHELL'
. /cluster.sh
fencer_alone

# An agent with a list, which is in /outlets.
{
    sed '/action=metadata/,$d' /usr/sbin/fence_witness
    cat <<'AGENT'
case $given in
    *action=metadata*) exec sed 's,<action name="monitor" />,&<action name="list" />,' /usr/share/witness.xml ;;
    *action=list*) exec cat /outlets ;;
esac
echo "$given" >>/given
AGENT
} >/usr/sbin/fence_outlets
/usr/bin/busybox chmod +x /usr/sbin/fence_outlets

fence_each() {
    for node; do
        rm -f /given
        stonith_admin --fence "$node" --timeout 20 >/dev/null 2>&1 || :
        echo "  $node: $(grep plug= /given 2>/dev/null || echo no device)"
    done
    stonith_admin --deregister device
}
configured() {
    echo "$1"
    stonith_admin --register device --agent fence_witness --option "$1" >/dev/null
    shift
    fence_each "$@"
}
listed() {
    echo "list: $1"
    echo "$1" >/outlets
    stonith_admin --register device --agent fence_outlets >/dev/null
    shift
    fence_each "$@"
}
configured pcmk_host_list=node1,node2 node1 node2
configured pcmk_host_list=cache-invalidator1,cache-invalidator2 cache-invalidator1 cache-invalidator2
configured pcmk_host_list=node1,variables node1
configured "pcmk_host_map=cache-invalidator1:1;cache-invalidator2:2" cache-invalidator1 cache-invalidator2
listed "6,node1" node1 6
listed "7,spare (was node2)" spare node2
listed "8,node3/left" node3
SHELL

each_pacemaker "$work" "$expected" sid=3.0.3-2 trixie=3.0.0-2
at_least_one
