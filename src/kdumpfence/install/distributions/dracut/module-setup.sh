#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The dracut module `kdumpfence`: the sender in a crash kernel's image, for those who make it
# without kdump-utils. Taken in on request, dracut --add kdumpfence, and into the image of SUSE's
# kdump, whose mkdumprd asks for the module kdump.
#
# Where dracut cannot take in a module that was asked for, or one that this needs, it makes no image
# at all. A dump that nobody is told of is worth more than none: so whatever is missing, this says
# loudly what, and the image is made without it.
# shellcheck disable=SC2154  # dracut sets dracutbasedir, dracutsysrootdir, initdir, moddir

# called by dracut
check() {
    [[ " $dracutmodules $add_dracutmodules $force_add_dracutmodules " == *" kdump "* ]] && return 0
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

# called by dracut
install() {
    local home=/usr/lib/kdumpfence file

    # A hook that is missing would end dracut.
    for file in "$dracutsysrootdir$home"/{fence_kdump_send,resolve-nodes,start-sender} \
        "$moddir/kdumpfence.sh"; do
        if [[ ! -x $file ]]; then
            dfatal "kdumpfence: no $file, the image has no sender"
            return 0
        fi
    done
    mkdir -p "$initdir/etc/kdumpfence"
    if ! "$dracutsysrootdir$home/resolve-nodes" "$dracutsysrootdir/etc/kdumpfence/nodes" \
        > "$initdir/etc/kdumpfence/resolved"; then
        dfatal "kdumpfence: /etc/kdumpfence/nodes cannot be used, the image has no sender"
        rm -f "$initdir/etc/kdumpfence/resolved"
        return 0
    fi

    inst "$home/fence_kdump_send"
    inst_script "$home/start-sender"
    ln -sf fence_kdump_send "$initdir$home/@fence_kdump_send"
    inst_multiple -o setsid

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
