#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# pcmk_host_map with IPv6 addresses: no spelling is right in Pacemaker 3.0.0 and in 3.0.3.
#
# The map gives each node a value that the agent gets as its plug, several of them as
# pcmk_host_map="node1:VALUE;node2:VALUE". The values may be addresses, as for fence_kdump.
#
# In 3.0.0 each colon of a value has to be escaped: node1:2001\:db8\:\:1. Without the backslashes
# nothing complains, and the device fences something else: from node1:192.0.2.1,2001:db8::1 it takes
# that it can fence a node called db8, with the plug 1, and that it has nothing to do with node1. A
# node whose only device this is cannot be fenced at all.
#
# In 3.0.3 the value begins after the first colon, and all others are its own. What was right
# before is now handed to the agent with its backslashes, 2001\:db8\:\:1, which is no address. So a
# cluster whose map is right stops working with the update, and none is right on nodes of both
# versions; an agent that takes backslashes out of addresses heals the second half.
#
# Pacemaker 3.0.3 (Debian sid) and 3.0.0 (Debian 13): its fencer, without the rest of a cluster.
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

# What is the same in both, and then what is not.
same='map node1:192.0.2.1;node2:192.0.2.2,198.51.100.2
  node1: plug=192.0.2.1
  node2: plug=192.0.2.2,198.51.100.2'
in_3_0_0="$same"'
map node1:192.0.2.1,2001:db8::1;node2:192.0.2.2
  node1: no device
  db8: plug=1
  node2: plug=192.0.2.2
map node1:192.0.2.1,2001\:db8\:\:1
  node1: plug=192.0.2.1,2001:db8::1'
in_3_0_3="$same"'
map node1:192.0.2.1,2001:db8::1;node2:192.0.2.2
  node1: plug=192.0.2.1,2001:db8::1
  db8: no device
  node2: plug=192.0.2.2
map node1:192.0.2.1,2001\:db8\:\:1
  node1: plug=192.0.2.1,2001\:db8\:\:1'

cat >"$work/test.sh" <<'SHELL'
. /cluster.sh
fencer_alone

fence() {
    echo "map $1"
    stonith_admin --register kdump --agent fence_witness --option "pcmk_host_map=$1" >/dev/null
    shift
    for node; do
        rm -f /given
        stonith_admin --fence "$node" --timeout 20 >/dev/null 2>&1 || :
        echo "  $node: $(grep plug= /given 2>/dev/null || echo no device)"
    done
    stonith_admin --deregister kdump
}
fence "node1:192.0.2.1;node2:192.0.2.2,198.51.100.2" node1 node2
fence "node1:192.0.2.1,2001:db8::1;node2:192.0.2.2" node1 db8 node2
fence 'node1:192.0.2.1,2001\:db8\:\:1' node1
SHELL

each_pacemaker "$work" "$in_3_0_3" sid=3.0.3-2
each_pacemaker "$work" "$in_3_0_0" trixie=3.0.0-2
at_least_one
