#!/usr/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Process 1 of the small crash kernel: does what /plan says, which is a script made of the words
# below. What it tells begins with "@" and the seconds that this kernel runs.

say() {
    read -r now _ < /proc/uptime
    echo "@ $now $*"
}

# start NAME COMMAND...: in the background.
start() {
    name=$1
    shift
    say "$name starts: $*"
    "$@" &
    eval "pid_$name=$!"
}

stop() {
    eval "kill -9 \$pid_$1; wait \$pid_$1" 2> /dev/null
}

# The last step of a network is announced: who counts from there counts too much, if at all.
last_step() {
    say "network comes: $*"
    "$@" && say "network is up: $*"
}

# usable ADDRESS: wait for the end of duplicate address detection; ADDRESS as in if_inet6.
usable() {
    while true; do
        before=$now
        while read -r address _ _ _ flags _; do
            [ "$address" = "$1" ] && [ $((0x$flags & 0x40)) = 0 ] && break 2
        done < /proc/net/if_inet6
        sleep 0.01
        read -r now _ < /proc/uptime
    done
    say "network is up: $1, not yet at $before"
}

# memory NAME: what the program takes. smaps_rollup counts pages, status adds up roughly.
memory() {
    pid=
    eval "pid=\$pid_$1"
    while read -r key value _; do
        case $key in Rss:|Anonymous:) say "memory of $1: $key $value kB, exactly" ;; esac
    done < "/proc/$pid/smaps_rollup"
    while read -r key value _; do
        case $key in VmHWM:|VmRSS:|Rss*) say "memory of $1: $key $value kB" ;; esac
    done < "/proc/$pid/status"
    while read -r key value _; do
        case $key in MemTotal:|MemAvailable:) say "memory: $key $value kB" ;; esac
    done < /proc/meminfo
}

mount -t proc proc /proc
say 'crash init'
[ -e /proc/vmcore ] && say "the memory of the panicked kernel is here"
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do
    insmod "$module"
done
# shellcheck disable=SC1091  # written by the test
. /plan
say 'plan done'
exec sleep 1000000
