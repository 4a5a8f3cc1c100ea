#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Pacemaker: a node whose fencing levels target it in different ways has only some of them.
#
# A fencing level targets a node by its name, by a pattern of names, or by a node attribute. One
# would expect a node to have all levels that match it, in the order of their index: kdump for the
# nodes that can dump, then power for all. But the fencer uses the levels of one target and ignores
# the others, without a word. A target by name comes first; of patterns and attributes it uses
# whichever its hash table has first, which neither the index nor the order decides. So power is
# not cut when kdump says no, and the fencing fails; or power is cut and kdump was never asked.
#
# So give all levels of a node the same target.
#
# Pacemaker 3.0.3 (Debian sid) and 3.0.0 (Debian 13): its fencer and a configuration, without the
# rest of a cluster. The device kdump says no, power says yes.
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

expected='  level 1 of target="node1": kdump
  level 2 of target="node1": power
fence node1: tried kdump power, exit status 0
  level 1 of target="node1": kdump
  level 2 of target-pattern="node[12]": power
fence node1: tried kdump, exit status 1
fence node2: tried power, exit status 0
  level 1 of target-pattern="node[12]": kdump
  level 2 of target-attribute="dumps=yes": power
fence node1: tried power, exit status 0
fence node2: tried kdump, exit status 1
  level 1 of target-pattern="^node1$": kdump
  level 2 of target-pattern="node[12]": power
fence node1: tried kdump, exit status 1
fence node2: tried power, exit status 0'

# Node1, and it alone, has the attribute "dumps".
cat >"$work/test.sh" <<'SHELL'
. /cluster.sh
fencer_with '<fencing-level id="a" target="node1" index="1" devices="kdump"/>
<fencing-level id="b" target="node1" index="2" devices="power"/>'
levels
fence node1

fencer_with '<fencing-level id="a" target="node1" index="1" devices="kdump"/>
<fencing-level id="b" target-pattern="node[12]" index="2" devices="power"/>'
levels
fence node1
fence node2

fencer_with '<fencing-level id="a" target-pattern="node[12]" index="1" devices="kdump"/>
<fencing-level id="b" target-attribute="dumps" target-value="yes" index="2" devices="power"/>'
levels
fence node1
fence node2

fencer_with '<fencing-level id="a" target-pattern="^node1$" index="1" devices="kdump"/>
<fencing-level id="b" target-pattern="node[12]" index="2" devices="power"/>'
levels
fence node1
fence node2
SHELL

each_pacemaker "$work" "$expected" sid=3.0.3-2 trixie=3.0.0-2
at_least_one
