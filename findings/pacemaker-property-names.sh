#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# stonith-enabled alone fails a check of Pacemaker 3.0.3, fencing-enabled alone does nothing in 3.0.0.
#
# Pacemaker 3.0.2 renamed the property, and keeps the old name as an alias. One would expect the old
# name to go on being valid, with a remark perhaps, and the new one to be refused, or at least
# noticed, where it is not known. But crm_verify -V ends with 78 (EX_CONFIG) for the old name, by
# which scripts tell a broken configuration from a sound one. And 3.0.0 goes by the default, without
# a word of the name: whoever writes fencing-enabled=false there has fencing enabled, and here hears
# only that there is no device for it. Both names at once please both, with equal values.
#
# Pacemaker 3.0.3 (Debian sid) and 3.0.0 (Debian 13). No cluster runs here: none is asked.
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

cat >"$work/test.sh" <<'SHELL'
verify() {
    echo "$*"
    {
        echo '<cib validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0">'
        echo '<configuration><crm_config><cluster_property_set id="options">'
        for property; do
            echo "<nvpair id=\"${property%%-*}\" name=\"${property%=*}\" value=\"${property#*=}\"/>"
        done
        echo '</cluster_property_set></crm_config><nodes/><resources/><constraints/>'
        echo '</configuration><status/></cib>'
    } >/cib.xml
    status=0
    crm_verify --xml-file /cib.xml -V >/said 2>&1 || status=$?
    fencing=disabled
    ! grep -q 'Resource start-up disabled' /said || fencing=enabled
    ! grep -q deprecated /said || echo '  deprecated'
    echo "  exit status $status, fencing is $fencing"
}
verify stonith-enabled=false
verify fencing-enabled=false
verify stonith-enabled=false fencing-enabled=false
SHELL

each_pacemaker "$work" 'stonith-enabled=false
  deprecated
  exit status 78, fencing is disabled
fencing-enabled=false
  exit status 0, fencing is disabled
stonith-enabled=false fencing-enabled=false
  exit status 0, fencing is disabled' sid=3.0.3-2
each_pacemaker "$work" 'stonith-enabled=false
  exit status 0, fencing is disabled
fencing-enabled=false
  exit status 78, fencing is enabled
stonith-enabled=false fencing-enabled=false
  exit status 0, fencing is disabled' trixie=3.0.0-2
at_least_one
