#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The dracut module `kdumpfence`: the sender in a crash kernel's image, started before all else.
# Taken in on request, dracut --add kdumpfence, and into the image of kdump-utils and of SUSE's kdump,
# whose mkdumprd ask for the modules kdumpbase and kdump.
#
# Where dracut cannot take in a module that was asked for, or one that this needs, it makes no image
# at all. A dump that nobody is told of is worth more than none: so whatever is missing, this says
# loudly what, and the image is made without it.
# shellcheck disable=SC2154  # dracut sets dracutbasedir, dracutsysrootdir, initdir, moddir

# called by dracut
check() {
    local asked=" $dracutmodules $add_dracutmodules $force_add_dracutmodules "
    [[ $asked == *" kdumpbase "* || $asked == *" kdump "* ]] && return 0
    return 255
}

# called by dracut
depends() {
    # In a shell of its own dracut's function notes down nothing. Without it nobody knows better.
    if [[ $(type -t check_module) != function ]] \
        || (add_dracutmodules+=" network "; check_module network) > /dev/null 2>&1; then
        echo network
    fi
    return 0
}

# The nodes and options of kdump-utils, as its module (99kdumpbase, which comes before this one) has
# written them into the image, in the form of our own file. Fails if it names no nodes.
kdump_utils() {
    local option value nodes='' args=''

    [[ -r $initdir/etc/kdump.conf ]] || return 1
    while read -r option value; do
        case $option in
            fence_kdump_nodes) nodes=$value ;;
            fence_kdump_args) args=$value ;;
        esac
    done < "$initdir/etc/kdump.conf"
    [[ $nodes =~ [^[:space:]\"] ]] || return 1
    # Its versions before November 2025 leave quotes where they are.
    printf 'NODES="%s"\nARGS="%s"\n' "${nodes//\"/}" "${args//\"/}"
}

# This node's name, and the key that it signs with, for every sender in the image. Without them it
# sends all the same.
this_node() {
    local own=$dracutsysrootdir/etc/kdumpfence made=$initdir/etc/kdumpfence file

    for file in this-node node-key; do
        [[ ! -e $own/$file ]] || cp -pL "$own/$file" "$made/"
    done
    if [[ ! -e $made/node-key ]] && grep -qs key-file "$made/this-node"; then
        dfatal "kdumpfence: no $own/node-key: messages will not be signed"
    fi
    return 0
}

# called by dracut
install() {
    local home=/usr/lib/kdumpfence other=/usr/libexec/fence_kdump_send file
    local nodes=$dracutsysrootdir/etc/kdumpfence/nodes name=/etc/kdumpfence/nodes
    local made=$initdir/etc/kdumpfence

    mkdir -p "$made"
    this_node

    # A hook that is missing would end dracut.
    for file in "$dracutsysrootdir$home"/{fence_kdump_send,resolve-nodes,start-sender} \
        "$moddir/kdumpfence.sh"; do
        if [[ ! -x $file ]]; then
            dfatal "kdumpfence: no $file, this module starts no sender"
            return 0
        fi
    done
    if kdump_utils > "$made/nodes"; then
        nodes=$made/nodes name=/etc/kdump.conf
    fi
    if ! "$dracutsysrootdir$home/resolve-nodes" "$nodes" $name > "$made/resolved"; then
        dfatal "kdumpfence: the nodes in $name cannot be used, this module starts no sender"
        rm -f "$made/nodes" "$made/resolved"
        return 0
    fi
    [[ ! -e $made/this-node ]] || cat "$made/this-node" >> "$made/resolved"
    rm -f "$made/nodes"

    inst "$home/fence_kdump_send"
    inst_script "$home/start-sender"
    [[ ! -x $dracutsysrootdir$home/tell-end ]] || inst_script "$home/tell-end"
    ln -sf fence_kdump_send "$initdir$home/@fence_kdump_send"
    inst_multiple -o setsid sleep
    # kdump-utils starts its sender later: instead of it, one that does nothing if ours runs.
    if [[ -e $initdir$other && -r $moddir/unless-it-runs ]]; then
        cp -f --remove-destination "$moddir/unless-it-runs" "$initdir$other"
        chmod 755 "$initdir$other"
    fi

    # For the names, should the network have somebody to ask.
    inst_multiple -o /etc/hosts /etc/host.conf /etc/nsswitch.conf /etc/resolv.conf
    inst_libdir_file "libnss_files.so.*" "libnss_dns.so.*"

    # The first of all hooks: before udev, the network and whatever saves the dump.
    inst_hook cmdline 00 "$moddir/kdumpfence.sh"

    dracut_module_included network || dfatal "kdumpfence: $(why_no_network):" \
        "if nothing else brings the network up, nobody is told"
    return 0
}

why_no_network() {
    local found=("$dracutbasedir"/modules.d/[0-9][0-9]network)
    if [[ ! -d ${found[0]} ]]; then
        echo "dracut has no module network (Debian: install dracut-network)"
    else
        echo "dracut's module network cannot be installed (it needs NetworkManager, or" \
            "systemd-networkd and systemd in the image, or up to dracut 109 ip and dhclient)"
    fi
}
