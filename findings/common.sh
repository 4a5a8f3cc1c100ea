# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# What the findings share: pinned Debian packages below a temporary folder, and how to run them
# there. To be sourced. Nothing is installed on the machine, and no rights are needed beyond user
# namespaces.

# Why this could not be run, and exit status 2: it says nothing about the finding.
cannot() {
    echo "cannot run here: $*" >&2
    exit 2
}

# packages_from FOLDER: what APT needs to know of Debian 13 and sid, in FOLDER/apt.conf. The mirror
# is the one that this machine is configured for, or $MIRROR.
packages_from() {
    for program in apt-get dpkg-deb unshare timeout; do
        command -v "$program" >/dev/null || cannot "$program is missing"
    done
    # shellcheck disable=SC2016  # $(REPO_URI) is for apt-get
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1)}
    mirror=${mirror:-http://deb.debian.org/debian}
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keys" ] || cannot "$keys is missing: install debian-archive-keyring"
    folder=$1
    mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial"
    : >"$folder/status"
    for suite in sid trixie; do
        echo "deb [signed-by=$keys check-valid-until=no] $mirror $suite main"
    done >"$folder/sources.list"
    cat >"$folder/apt.conf" <<CONF
Dir::State "$folder/state";
Dir::State::status "$folder/status";
Dir::Cache "$folder/cache";
Dir::Etc::SourceList "$folder/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Sandbox::User "";
APT::Install-Recommends "false";
Debug::NoLocking "true";
CONF
    APT_CONFIG=$folder/apt.conf apt-get -qq update || cannot "no package lists from $mirror"
}

# unpack FOLDER SUITE ROOT PACKAGE=VERSION...: unpack them and all that they depend on into ROOT.
# Status 1 if the mirror does not have such a version (any more).
unpack() {
    folder=$1 suite=$2 root=$3
    shift 3
    if ! APT_CONFIG=$folder/apt.conf apt-get -qq -y --download-only -t "$suite" \
        install "$@" busybox-static >"$folder/apt.log" 2>&1; then
        sed -n 's/^E: /  /p' "$folder/apt.log"
        return 1
    fi
    for name in bin sbin lib lib64; do
        mkdir -p "$root/usr/$name"
        ln -s "usr/$name" "$root/$name"
    done
    for package in "$folder"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$root"
        rm "$package"
    done
    mkdir -p "$root/proc" "$root/dev" "$root/tmp" "$root/run/lock" "$root/var"
    ln -sf /run "$root/var/run"
    # Shell and tools: what every package relies on without saying so.
    for name in sh cat env grep mount sed sleep sort uname mkdir rm ip modprobe poweroff unshare ln; do
        [ -e "$root/usr/bin/$name" ] || ln -s busybox "$root/usr/bin/$name"
    done
}

# inside ROOT COMMAND...: run it there, in namespaces of its own, a minute at most.
inside() {
    # shellcheck disable=SC2016  # for the inner shell
    unshare --map-root-user --mount --pid --ipc --net --uts --fork --kill-child=KILL \
        timeout -k 5 60 sh -e -c '
            root=$1
            shift
            mount -t proc proc "$root/proc"
            mount -t tmpfs -o mode=755 dev "$root/dev"
            mkdir "$root/dev/shm"
            for name in null random urandom; do
                : >"$root/dev/$name"
                mount --bind "/dev/$name" "$root/dev/$name"
            done
            exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/tmp TMPDIR=/tmp "$@"
        ' sh "$@" </dev/null
}

# boot ROOT: boot the Linux of package user-mode-linux, an ordinary process, with ROOT as its root
# file system and /test.sh as what it runs. Shows what that said.
boot() {
    cat >"$1/init" <<'INIT'
#!/bin/sh
exec >/said 2>&1
/usr/bin/busybox mount -t proc proc /proc  # over the other kernel's
[ -e /usr/lib/modules ] || ln -s uml/modules /usr/lib/modules
modprobe -q ipv6  # built in or not
modprobe tun
echo "Linux $(uname -r)"
sh /test.sh
poweroff -f
INIT
    chmod +x "$1/init"
    rm -f "$1/said"
    inside "$1" linux.uml mem=128M root=/dev/root rootfstype=hostfs rw init=/init \
        con=null ssl=null >"$1/console" 2>&1 || :
    if [ ! -s "$1/said" ]; then
        tail -n 3 "$1/console" >&2
        cannot "user-mode-linux does not boot"
    fi
    cat "$1/said"
}

# at_least_one: what a finding ends with. Exit status 2 if there was no version to run.
at_least_one() {
    [ "${ran-}" ] || cannot "the mirror has none of these versions; README.md says what to do"
}

# as_expected EXPECTED SEEN: show what was seen; exit status 1 if it is something else.
as_expected() {
    echo "$2" | sed 's/^/    /'
    [ "$1" = "$2" ] && return
    echo "This has CHANGED. Expected was"
    echo "$1" | sed 's/^/    /'
    exit 1
}

# each_linux FOLDER EXPECTED SUITE=VERSION...: boot these versions of user-mode-linux, as many of
# them as the mirror has, and let FOLDER/test.sh (beside FOLDER/test.py) say something there.
each_linux() {
    folder=$1 expected=$2
    shift 2
    packages_from "$folder"
    for one; do
        echo "user-mode-linux ${one#*=}, Debian ${one%%=*}"
        root=$folder/${one%%=*}
        unpack "$folder" "${one%%=*}" "$root" \
            "user-mode-linux=${one#*=}" python3-minimal iproute2 || continue
        cp "$folder/test.py" "$folder/test.sh" "$root/"
        said=$(boot "$root")
        echo "  ${said%%
*}"
        as_expected "$expected" "${said#*
}"
        rm -rf "$root"
        ran=yes
    done
}

# each_pacemaker FOLDER EXPECTED SUITE=VERSION...: the same with these versions of Pacemaker, and
# with FOLDER/test.sh run beside them, with rights that end there.
each_pacemaker() {
    folder=$1 expected=$2
    shift 2
    packages_from "$folder"
    for one; do
        echo "pacemaker ${one#*=}, Debian ${one%%=*}"
        root=$folder/${one%%=*}
        unpack "$folder" "${one%%=*}" "$root" \
            "pacemaker=${one#*=}" "pacemaker-cli-utils=${one#*=}" || continue
        put_witness "$root"
        cp "$folder/test.sh" "$root/"
        said=$(inside "$root" sh /test.sh) || cannot "$said"
        as_expected "$expected" "$said"
        rm -rf "$root"
        ran=yes
    done
}

# put_witness ROOT: a fence agent, fence_witness, that writes to /given what it is given on stdin.
put_witness() {
    cat >"$1/usr/sbin/fence_witness" <<'AGENT'
#!/bin/sh
given=$(cat)
case $given in *action=metadata*) exec cat /usr/share/witness.xml ;; esac
echo "$given" >>/given
AGENT
    chmod +x "$1/usr/sbin/fence_witness"
    cat >"$1/usr/share/witness.xml" <<'METADATA'
<?xml version="1.0" ?>
<resource-agent name="fence_witness" shortdesc="Writes down what it is given">
<longdesc>Writes down what it is given</longdesc><vendor-url></vendor-url>
<parameters>
<parameter name="action" unique="0" required="0"><getopt mixed="-o, --action=ACTION" />
<content type="string" default="off" /><shortdesc lang="en">What to do</shortdesc></parameter>
<parameter name="plug" unique="0" required="0"><getopt mixed="-n, --plug=NODE" />
<content type="string" /><shortdesc lang="en">The node</shortdesc></parameter>
</parameters>
<actions><action name="off" /><action name="monitor" /><action name="metadata" />
<action name="validate-all" /></actions>
</resource-agent>
METADATA
}
