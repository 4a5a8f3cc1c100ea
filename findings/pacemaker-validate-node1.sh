#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Validation by Pacemaker names a node that is not there: node1, whatever the nodes are called.
#
# `pcs stonith create` and `update` (pcs 0.12) run `stonith_admin --validate`, and that runs the
# agent's validate-all. One would expect the agent to be given what is configured. It gets two
# parameters more, nodename=node1 and plug=node1, as if node1 were to be fenced: also where the
# nodes are called otherwise, and pcmk_host_map or pcmk_host_list says so. A configured nodename=
# or plug= stays, and the other of the two is added all the same. Only a device without any
# parameter is spared.
#
# An agent that looks such a name up, as one that listens for the node has to, complains of a name
# that nobody configured, or, where some machine is called node1, judges that one.
#
# Pacemaker 3.0.3 (Debian sid) and 3.0.0 (Debian 13). No cluster runs here: none is asked.
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

expected='configured: nothing
  given: action=validate-all
configured: timeout=50
  given: action=validate-all nodename=node1 plug=node1 timeout=50
configured: timeout=50 pcmk_host_map=saturn:192.0.2.1;venus:192.0.2.2
  given: action=validate-all nodename=node1 plug=node1 timeout=50
configured: timeout=50 pcmk_host_list=saturn
  given: action=validate-all nodename=node1 plug=node1 timeout=50
configured: nodename=192.0.2.1
  given: action=validate-all nodename=192.0.2.1 plug=node1
configured: plug=192.0.2.1
  given: action=validate-all nodename=node1 plug=192.0.2.1'

cat >"$work/test.sh" <<'SHELL'
validate() {
    echo "configured: ${*:-nothing}"
    for option; do
        set -- "$@" --option "$option"
        shift
    done
    rm -f /given
    stonith_admin --validate --agent fence_witness "$@" >/said 2>&1 || cat /said
    echo "  given:" $(sort /given)
}
validate
validate timeout=50
validate timeout=50 "pcmk_host_map=saturn:192.0.2.1;venus:192.0.2.2"
validate timeout=50 pcmk_host_list=saturn
validate nodename=192.0.2.1
validate plug=192.0.2.1
SHELL

each_pacemaker "$work" "$expected" sid=3.0.3-2 trixie=3.0.0-2
at_least_one
