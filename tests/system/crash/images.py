# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crash images as distributions make them: by real dracut and by real initramfs-tools.

In Debian's root (debian_root.py) `kdumpfence key create` makes the cluster's key, `kdumpfence
install-sender` puts the sender and the node's own key in place, as an administrator would, and the
maker makes the image. Nothing is left but that, what is in it, and the cluster's key.

What would save the memory is played by a hook of the distribution's own kind, dump.sh.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import debian_layer
from tests.support.initramfs import Initramfs
from tests.system.crash import signing
from tests.system.crash.debian_root import Root

NODE, SURVIVOR = "10.0.0.1", "10.0.0.2"  # dump.sh knows them too

_HOOK = "dump.sh"  # as a file's text: the text of that file

# An image of its own has what the machine needs, and no more.
_DRIVERS = "virtio_net virtio_pci"
_SUPERFLUOUS = "crypt dm ifcfg kernel-modules kernel-modules-extra lunmask nvdimm overlay-root qemu"
_MODULES = {
    "etc/initramfs-tools/conf.d/modules": "MODULES=list\n",
    "etc/initramfs-tools/modules": _DRIVERS.replace(" ", "\n") + "\n",
}


@dataclasses.dataclass(frozen=True)
class Maker:
    """Something that makes images. The image's file and the kernel's version end the command."""

    distribution: str  # as install-sender calls it
    command: Sequence[str]
    files: Mapping[str, str]  # its settings and the hook, at their paths in the root
    arguments: str  # of the crash kernel: they let the image's own programs bring the network up
    with_sender: Sequence[str] = ()  # what the command needs besides, to take the sender in
    system: Sequence[str] | None = None  # the services to enable, if the root is in it as well
    appended: Mapping[str, str] = dataclasses.field(default_factory=dict)  # to files in the root
    dump_status: int = 0  # with which the hook's dump ends
    needs: str = ""  # a file that has to be in the root
    instead: Maker | None = None  # takes its place where that is missing


def _ip(device: str) -> str:
    return f"ip={NODE}:::255.255.255.0:node1:{device}:none"


_MODULES_D = "usr/lib/dracut/modules.d"


def _dracut(device: str, *options: str) -> Maker:
    module = f"{_MODULES_D}/98dump"
    setup = f'check() {{ return 0; }}\ninstall() {{ inst_hook pre-mount 99 "$moddir/{_HOOK}"; }}\n'
    return Maker(
        distribution="dracut",
        command=(
            *("dracut", "--quiet", "--no-hostonly", "--no-early-microcode", "--compress=zstd -1"),
            *("--add-drivers", _DRIVERS, "--omit", _SUPERFLUOUS, *options),
        ),
        files={f"{module}/module-setup.sh": setup, f"{module}/{_HOOK}": _HOOK},
        # This "device" is there at once, so nobody waits for it. It would be mounted after the
        # dump, and never is.
        arguments=f"{_ip(device)} rd.neednet=1 root=/dev/null",
        with_sender=("--add", "kdumpfence"),
    )


# Where dracut's own network cannot be taken in, somebody else's hook does it.
_WITHOUT_SYSTEMD = ("--omit", "systemd systemd-initrd dracut-systemd")
_NO_DRACUT_NETWORK = _dracut("eth0", "--omit", "network", *_WITHOUT_SYSTEMD)
_OWN_NETWORK = {
    f"{_MODULES_D}/97link/module-setup.sh": (
        "check() { return 0; }\n"
        'install() { inst ip; inst_hook pre-trigger 00 "$moddir/link.sh"; }\n'
    ),
    f"{_MODULES_D}/97link/link.sh": (
        f"modprobe -a {_DRIVERS}\nip link set eth0 up\nip address add {NODE}/24 dev eth0\n"
    ),
}

MAKERS = {
    "initramfs-tools": Maker(
        distribution="initramfs-tools",
        command=("mkinitramfs", "-c", "zstd", "-o"),
        files={
            **_MODULES,
            "etc/initramfs-tools/scripts/local-top/dump": _HOOK,
        },
        arguments=f"{_ip('ens2')} root=/dev/vda",
    ),
    "dracut": _dracut("ens2", "--add", "systemd-networkd"),
    # Nobody gives the network device another name here.
    "dracut without systemd": dataclasses.replace(
        _dracut("eth0", "--add", "network-legacy", *_WITHOUT_SYSTEMD),
        dump_status=1,
        needs="usr/sbin/dhclient",  # dracut-network of Debian 13 and later does without it
        instead=dataclasses.replace(
            _NO_DRACUT_NETWORK,
            files={**_NO_DRACUT_NETWORK.files, **_OWN_NETWORK},
            dump_status=1,
        ),
    ),
}

# The image goes on into a root file system, which is Debian's, with systemd and kdump-tools as they
# are; it is brought along in the image, as /system, and becomes a tmpfs.
_SYSTEM = {
    "etc/machine-id": "7d" * 16 + "\n",
    "etc/hostname": "node1\n",
    "etc/fstab": "",
    "etc/systemd/network/all.network": (
        f"[Match]\nName=e*\n[Network]\nAddress={NODE}/24\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"  # or it waits for these
    ),
    "etc/kdumpfence/nodes": 'NODES="survivor.cluster"\nARGS="-v -i 1"\n',
}
_SYSTEM_ARGUMENTS = "systemd.unit=kdump-tools-dump.service reset_devices irqpoll nr_cpus=1 nousb"
_MOVE = "mount -t tmpfs tmpfs {0} && mv /system/* {0}"
_MODULE = f"{_MODULES_D}/98system"

SYSTEMS = {
    # Debian's way: nothing of ours is in the image, a unit is in the root file system.
    "kdump-tools": Maker(
        distribution="debian",
        command=MAKERS["initramfs-tools"].command,
        files={
            **_SYSTEM,
            **_MODULES,
            "etc/initramfs-tools/scripts/system": (
                "mount_top() { :; }\nmount_premount() { :; }\nmount_bottom() { :; }\n"
                f"mountroot() {{ {_MOVE.format('$rootmnt')}; }}\n"
            ),
        },
        arguments=f"boot=system {_SYSTEM_ARGUMENTS}",
        system=["systemd-networkd"],
        # As install-sender says.
        appended={"etc/default/kdump-tools": "KDUMP_SCRIPT=/usr/lib/kdumpfence/kdump-config\n"},
    ),
    # The sender of the image goes on in a root file system that knows nothing of it.
    "dracut and on": dataclasses.replace(
        MAKERS["dracut"],
        files={
            **_SYSTEM,
            # Nothing of what systemd starts before all else is needed for this.
            "etc/systemd/system/kdump-tools-dump.service.d/alone.conf": (
                "[Unit]\nDefaultDependencies=no\n"
            ),
            f"{_MODULE}/module-setup.sh": (
                "check() { return 0; }\n"
                'install() { inst mv; inst_hook cmdline 90 "$moddir/root.sh"\n'
                '    inst_hook mount 50 "$moddir/mount.sh"; }\n'
            ),
            f"{_MODULE}/root.sh": "root=system rootok=1\n",
            f"{_MODULE}/mount.sh": _MOVE.format("$NEWROOT"),
        },
        arguments=f"{_ip('ens2')} rd.neednet=1 {_SYSTEM_ARGUMENTS}",
        system=[],
    ),
}

# initramfs-tools brings the network up when the root file system is to come from it, and for the
# hooks of those who need it. This is one, for images that have no sender to ask for it.
NETWORK = {
    "etc/initramfs-tools/scripts/init-premount/network": (
        '#!/bin/sh\n[ "$1" != prereqs ] || exit 0\n. /scripts/functions\nconfigure_networking\n'
    )
}

# The names of the other nodes are those of the machine on which the image is made.
CLUSTER = {
    "etc/hosts": f"127.0.0.1 localhost\n{SURVIVOR} survivor.cluster\n",
    "etc/kdumpfence/nodes": 'NODES="survivor.cluster"\nARGS="-v"\n',
}

# What no crash kernel needs of the root, two thirds of it, as find(1) takes it.
_LEFT_OUT = " -o ".join(
    (
        *("-path ./system", "-path ./image", "-path ./boot", "-path './usr/share/*'"),
        *(f"-name '{name}'" for name in ("modules", "*perl*", "*hwdb*", "*xen*", "gconv", "file")),
        *(f"-name {name}" for name in ("dracut", "klibc", "dhclient")),
    )
)
# $1 are services to enable. An archive begins at a multiple of 4.
_PACK_SYSTEM = f"""
cd /
[ -z "$1" ] || systemctl --quiet enable $1
touch /etc/.updated /var/.updated
mkdir -p /system/usr/share
find . -xdev \\( {_LEFT_OUT} \\) -prune -o -print | cpio --quiet -pdm /system
head -c $((-$(stat -c %s image) & 3)) /dev/zero >> /image
find system | cpio --quiet -o -H newc | zstd -q -1 >> /image
"""
_UNPACK = """
chroot "$root" unmkinitramfs /image /content
mv "$root/content" .
"""
_LEAVE = '\nmv "$root/image" .'


@dataclasses.dataclass(frozen=True)
class Image:
    """An image, and the folder in which it lies unpacked."""

    file: Path
    content: Path
    key_file: Path  # of the cluster; it is there if the sender is
    said: str  # by the sender's installation and by the maker


def make(
    maker: Maker,
    root: Root,
    folder: Path,
    *,
    sender: bool = True,
    files: Mapping[str, str] | None = None,
    dump: int = 12,
) -> Image:
    """Make an image in `folder`, with the sender or without; its dump takes `dump` seconds.

    Twelve are more than the ten between two messages.

    `files` are put into the root as well, each path without its first slash. Raises
    RuntimeError, and NotAvailable.
    """
    if maker.instead and not (root.folder / maker.needs).exists():
        maker = maker.instead
    layer = {name: (root.folder / name).read_text() + text for name, text in maker.appended.items()}
    layer |= {
        name: _hook(dump, maker.dump_status) if text == _HOOK else text
        for name, text in {**CLUSTER, **maker.files, **(files or {})}.items()
    }
    command, install = [*maker.command], ""
    if sender:
        command += maker.with_sender
        program = shlex.join([sys.executable, "-m", "kdumpfence.cli"])
        install = (
            f'{program} key create --file "$root/etc/kdumpfence/key"\n'
            f'cp -p "$root/etc/kdumpfence/key" cluster-key\n'
            f"{program} install-sender --distribution {maker.distribution} --node {signing.NAME}"
            ' --root "$root"\n'
        )
    command += ["/image", root.version]
    script = f'{install}chroot "$root" {shlex.join(command)}{_UNPACK}'
    if maker.system is not None:
        pack = ("sh", "-euc", _PACK_SYSTEM, "sh", " ".join(maker.system))
        script += f'chroot "$root" {shlex.join(pack)}'
    said = debian_layer.run(root.folder, folder, layer, script + _LEAVE)
    return Image(folder / "image", folder / "content", folder / "cluster-key", said)


def _hook(seconds: int, status: int) -> str:
    text = Path(__file__).with_name(_HOOK).read_text()
    as_it_is = "DUMP_SECONDS=12 DUMP_STATUS=0"
    assert as_it_is in text
    return text.replace(as_it_is, f"DUMP_SECONDS={seconds} DUMP_STATUS={status}", 1)


def forget_names(image: Image) -> None:
    """Empty the files in which the image would look up names.

    The kernel unpacks what comes behind the image after it, over it.
    """
    empty = Initramfs()
    for path in ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"):
        empty.write(path, "")
    behind = image.file.with_name("behind")
    empty.save(behind)
    with image.file.open("ab") as file:
        file.write(bytes(-file.tell() % 4))  # an archive begins at a multiple of 4
        file.write(behind.read_bytes())
