#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The dracut module `kdumpfence`: the sender in a crash kernel's image, for those who make it
# without kdump-utils. Taken in on request alone: dracut --add kdumpfence.
# shellcheck disable=SC2154  # dracut sets dracutsysrootdir, initdir and moddir

# called by dracut
check() {
    require_binaries getent || return 1
    [[ -x $dracutsysrootdir/usr/lib/kdumpfence/fence_kdump_send ]] || return 1
    [[ -r $dracutsysrootdir/etc/kdumpfence/nodes ]] || return 1
    return 255
}

# called by dracut
depends() {
    echo network
}

# called by dracut
install() {
    local home=/usr/lib/kdumpfence

    mkdir -p "$initdir/etc/kdumpfence"
    if ! "$dracutsysrootdir$home/resolve-nodes" "$dracutsysrootdir/etc/kdumpfence/nodes" \
        > "$initdir/etc/kdumpfence/resolved"; then
        dfatal "kdumpfence: /etc/kdumpfence/nodes cannot be used, the image has no sender"
        rm -f "$initdir/etc/kdumpfence/resolved"
        return 1
    fi

    inst "$home/fence_kdump_send"
    inst_script "$home/start-sender"
    ln -sf fence_kdump_send "$initdir$home/@fence_kdump_send"

    # For the names, should the network have somebody to ask.
    inst_multiple -o /etc/hosts /etc/host.conf /etc/nsswitch.conf /etc/resolv.conf
    inst_libdir_file "libnss_files.so.*" "libnss_dns.so.*"

    # The first of all hooks: before udev, the network and whatever saves the dump.
    inst_hook cmdline 00 "$moddir/kdumpfence.sh"
}
