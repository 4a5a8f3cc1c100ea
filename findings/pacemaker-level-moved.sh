#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Pacemaker keeps using a fencing level where it was before its index or target was changed.
#
# Say power is cut first and kdump asked second. To save dumps, somebody changes the index of the
# power device's level so that it comes after kdump's, in an editor or with cibadmin --modify. From
# then on the configuration says kdump, then power. But the fencer only adds the level in its new
# place and does not remove it from the old one: power is still cut first, and the dump is lost. In
# the same way, a level that gets a new target stays with the old one as well.
#
# This ends when the fencer restarts, or when any level is added or removed, since it then reads all
# levels again. So remove a level and add it again, instead of changing it.
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

expected='  level 1 of target="node1": power
  level 2 of target="node1": kdump
fence node1: tried power, exit status 0
the index of power becomes 3
  level 3 of target="node1": power
  level 2 of target="node1": kdump
fence node1: tried power, exit status 0
a level is added, for node2
  level 3 of target="node1": power
  level 2 of target="node1": kdump
  level 1 of target="node2": power
fence node1: tried kdump power, exit status 0
the target of the first one becomes node2
  level 3 of target="node2": power
  level 2 of target="node1": kdump
  level 1 of target="node2": power
fence node1: tried kdump power, exit status 0
the level that was added is removed
  level 3 of target="node2": power
  level 2 of target="node1": kdump
fence node1: tried kdump, exit status 1'

cat >"$work/test.sh" <<'SHELL'
. /cluster.sh
change() { cibadmin "$1" --scope fencing-topology --xml-text "<fencing-level $2/>"; }
see() {
    sleep 2  # for the fencer to hear of the change
    levels
    fence node1
}
fencer_with '<fencing-level id="a" target="node1" index="1" devices="power"/>
<fencing-level id="b" target="node1" index="2" devices="kdump"/>'
levels
fence node1
echo "the index of power becomes 3"
cibadmin --query | sed 's/index="1"/index="3"/' >/edited.xml
cibadmin --replace --xml-file /edited.xml
see
echo "a level is added, for node2"
change --create 'id="c" target="node2" index="1" devices="power"'
see
echo "the target of the first one becomes node2"
change --modify 'id="a" target="node2"'
see
echo "the level that was added is removed"
change --delete 'id="c"'
see
SHELL

each_pacemaker "$work" "$expected" sid=3.0.3-2 trixie=3.0.0-2
at_least_one
