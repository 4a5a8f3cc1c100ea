# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proof by panic: a guest's kernel really panics, and an agent outside hears its crash kernel.

harness.py         one panic: boots the guest, lets it panic, tells what was said and heard
small_images.py    the initramfs of the kernel that panics, and the smallest for a crash kernel;
                   panicking_init.sh and crash_init.sh are their inits
signing.py         the node's key, and agents that ask for its signature
listening.py       a Listener beside these agents
panics.py          the panics that are tested and measured, each with its networks and programs
debian_root.py     a Debian root directory, made of real packages
images.py          crash initramfs that real dracut and real initramfs-tools make in it
dump.sh            stands for what saves the dump there
quiet_boot.py      a boot of such an image without a panic
conftest.py        two guests at a time, while the tests wait for those they are about
"""
