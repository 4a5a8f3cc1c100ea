#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# crmsh's "load update" with the fencing levels of one node deletes those of all others.
#
# There is one fencing_topology in a configuration. Whoever adds a node finds that "crm configure
# fencing_topology" is refused, since there is one already, and takes what is documented for changes
# to an existing configuration: "load update", which leaves devices and resources that are not named
# as they are. Levels that are not named are gone, of every node, with exit status 0 and without a
# word: those nodes are fenced by any device that knows them. So all levels have to be given each
# time.
#
# crmsh 5.1.0 (Debian sid) and 5.0.0 (Debian 13). No cluster runs here: crm works on a file.
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

cat >"$work/test.sh" <<'SHELL'
export CIB_file=/cib.xml
cat >/cib.xml <<XML
<cib validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0"><configuration>
<crm_config/><nodes><node id="1" uname="node1"/><node id="2" uname="node2"/></nodes>
<resources>
<primitive id="kdump" class="stonith" type="fence_kdump"/>
<primitive id="power" class="stonith" type="fence_ipmilan"/>
</resources><constraints/>
<fencing-topology>
<fencing-level id="one" target="node1" index="1" devices="kdump"/>
<fencing-level id="two" target="node1" index="2" devices="power"/>
</fencing-topology>
</configuration><status/></cib>
XML
levels() {
    grep -o '<fencing-level [^>]*>' /cib.xml |
        sed 's/.*target="\([^"]*\)" index="\([^"]*\)" devices="\([^"]*\)".*/  \1, level \2: \3/'
}
levels
echo 'fencing_topology node2: kdump power'
status=0
crm -F configure fencing_topology node2: kdump power >/said 2>&1 || status=$?
echo "  exit status $status"
levels
echo 'load update'
status=0
echo 'fencing_topology node2: kdump power' | crm -F configure load update - >/said 2>&1 || status=$?
echo "  exit status $status"
levels
SHELL

expected='  node1, level 1: kdump
  node1, level 2: power
fencing_topology node2: kdump power
  exit status 1
  node1, level 1: kdump
  node1, level 2: power
load update
  exit status 0
  node2, level 1: kdump
  node2, level 2: power'

packages_from "$work"
for one in sid=5.1.0-3 trixie=5.0.0~rc1-1; do
    echo "crmsh ${one#*=}, Debian ${one%%=*}"
    root=$work/${one%%=*}
    unpack "$work" "${one%%=*}" "$root" "crmsh=${one#*=}" pacemaker-cli-utils || continue
    # What installing the packages would make: users, and a place for the log.
    mkdir -p "$root/etc" "$root/var/log/crmsh"
    printf '%s:x:0:0::/tmp:/bin/sh\n' root hacluster >"$root/etc/passwd"
    printf '%s:x:0:\n' root haclient >"$root/etc/group"
    cp "$work/test.sh" "$root/"
    said=$(inside "$root" sh /test.sh) || cannot "$said"
    as_expected "$expected" "$said"
    rm -rf "$root"
    # shellcheck disable=SC2034  # at_least_one looks at it
    ran=yes
done
at_least_one
