#!/usr/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Process 1 of the kernel that panics. /crash has the crash kernel and what it is given; when this
# script ends before the panic, the kernel panics too, but into nothing: the guest switches off.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
read -r arguments < /crash/arguments
# Without a checksum over the crash kernel, which an emulated processor computes for seconds.
kexec --load-panic --kexec-syscall --no-checks /crash/kernel \
    --initrd=/crash/initramfs --command-line="$arguments"
crash=/sys/kernel/kexec/crash_ # where Linux 6.19 has them; the older files are to go
[ -e ${crash}loaded ] || crash=/sys/kernel/kexec_crash_
read -r loaded < ${crash}loaded
read -r size < ${crash}size
echo "crash kernel loaded: $loaded, memory reserved: $size bytes"
[ "$loaded" = 1 ] || exit
if [ -e /crash/panics ]; then
    echo PANICS
    sleep 0.05 # until the line is out
    echo c > /proc/sysrq-trigger
fi
echo 'falls silent'
exec sleep 1000000
