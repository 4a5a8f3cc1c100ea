# SPDX-License-Identifier: LGPL-2.1-or-later
"""What SELinux and pacemaker.service may take away from the agent, planted one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.cluster_root import COROSYNC, NODES, Fault, Root, corosync, judge, with_agent

UNIT = "usr/lib/systemd/system/pacemaker.service"
DROP_IN = "etc/systemd/system/pacemaker.service.d/50-sandbox.conf"
MODULES = "var/lib/selinux/targeted/active/modules"
CONFIG = "etc/selinux/config"
AFTER = "then systemctl daemon-reload, and restart the cluster on this node"


@pytest.fixture
def healthy(tmp_path: Path) -> Root:
    """A node with this project's agent, and the unit as Pacemaker's package has it."""
    return with_agent(tmp_path).write(
        UNIT, "[Unit]\nPrivateNetwork=yes\n\n[Service]\nExecStart=/usr/sbin/pacemakerd\n"
    )


def sandbox(*lines: str, path: str = DROP_IN) -> Callable[[Root], object]:
    """The lines in a drop-in."""
    text = "# local\n[Service]\n" + "\n".join(lines) + "\n"
    return lambda root: root.write(path, text)


def enforcing(*modules: str, disabled: str = "") -> Callable[[Root], object]:
    """SELinux in force, with these modules in its policy."""

    def plant(root: Root) -> None:
        root.write(CONFIG, "# SELINUX=disabled\nSELINUX=enforcing\nSELINUXTYPE=targeted\n")
        root.write("sys/fs/selinux/enforce", "1")
        for name in ("base", *modules):
            root.write(f"{MODULES}/{'100' if name != 'kdumpfence' else '400'}/{name}/cil", "")
        if disabled:
            root.write(f"{MODULES}/disabled/{disabled}", "")

    return plant


def in_config_only(root: Root) -> None:
    """The same in a root that is not running."""
    enforcing("rhcs")(root)
    root.remove("sys/fs/selinux/enforce")


FAULTS = [
    Fault(
        "a confined domain",
        enforcing("rhcs"),
        "fails",
        "SELinux",
        (
            "the policy targeted has no module unconfined",
            "checkmodule -M -m -o kdumpfence.mod /usr/share/kdumpfence/selinux/kdumpfence.te",
            "semodule -i kdumpfence.pp",
        ),
    ),
    Fault(
        "a confined domain, before the first boot",
        in_config_only,
        "fails",
        "SELinux",
        ("it is enforcing",),
    ),
    Fault(
        "a domain that somebody confined",
        enforcing("rhcs", "unconfined", disabled="unconfined"),
        "fails",
        "SELinux",
        ("no module unconfined",),
    ),
    Fault(
        "a policy that cannot be looked at",
        lambda root: root.write(CONFIG, "SELINUX=enforcing\n"),
        "unknown",
        "selinux",
        ("no modules of SELinux's policy in /var/lib/selinux/targeted",),
    ),
    Fault(
        "no raw sockets",
        sandbox("CapabilityBoundingSet=cap_net_admin cap_net_bind_service", "NoNewPrivileges=no"),
        "warning",
        "sandbox",
        (
            "pacemaker.service has no CAP_NET_RAW: the agent hears nothing while",
            f"change CapabilityBoundingSet=cap_net_admin cap_net_bind_service in /{DROP_IN}, ",
            AFTER,
        ),
    ),
    Fault(
        "raw sockets taken away",
        sandbox("CapabilityBoundingSet=~CAP_SYS_PTRACE", "CapabilityBoundingSet=~CAP_NET_RAW"),
        "warning",
        "sandbox",
        ("CapabilityBoundingSet=~CAP_NET_RAW in",),
    ),
    Fault(
        "no capability at all",
        sandbox("CapabilityBoundingSet="),
        "warning",
        "sandbox",
        ("no CAP_NET_RAW",),
    ),
    Fault(
        "a network of its own",
        sandbox("PrivateNetwork=yes"),
        "fails",
        "sandbox",
        ("hears nothing", "change PrivateNetwork=yes", AFTER),
    ),
    Fault(
        "sockets of the file system only",
        sandbox("RestrictAddressFamilies=AF_UNIX AF_INET", "RestrictAddressFamilies=~AF_INET"),
        "fails",
        "sandbox",
        ("no sockets of AF_INET, AF_NETLINK",),
    ),
    Fault(
        "no netlink",
        sandbox("RestrictAddressFamilies=~AF_NETLINK"),
        "fails",
        "sandbox",
        ("no sockets of AF_NETLINK:", "change RestrictAddressFamilies=~AF_NETLINK"),
    ),
    Fault(
        "no IPv6, where nodes have it",
        lambda root: (
            sandbox("RestrictAddressFamilies=AF_UNIX AF_INET AF_NETLINK")(root),
            root.write(COROSYNC, corosync({**NODES, "node2": ("2001:db8::2",)})),
        ),
        "fails",
        "sandbox",
        ("no sockets of AF_INET6",),
    ),
    Fault(
        "system calls, and none for sockets",
        sandbox("SystemCallFilter=@basic-io @file-system @process"),
        "fails",
        "sandbox",
        ("may not call bind, getsockopt, recvmmsg",),
    ),
    Fault(
        "the calls for sockets taken away",
        sandbox("SystemCallFilter=@system-service", "SystemCallFilter=~@network-io:EPERM"),
        "fails",
        "sandbox",
        ("may not call bind", "change SystemCallFilter="),
    ),
    Fault(
        "addresses that may not be heard",
        sandbox("IPAddressDeny=any", "IPAddressAllow=localhost 192.0.2.0/24 198.51.100.2"),
        "fails",
        "sandbox",
        ("may not hear 198.51.100.3,", "change IPAddressDeny=any"),
    ),
    Fault(
        "in a drop-in for all services",
        sandbox("PrivateNetwork=yes", path="etc/systemd/system/service.d/all.conf"),
        "fails",
        "sandbox",
        ("PrivateNetwork=yes in /etc/systemd/system/service.d/all.conf",),
    ),
    Fault(
        "in a unit that covers the package's",
        sandbox("PrivateNetwork=yes", path="etc/systemd/system/pacemaker.service"),
        "fails",
        "sandbox",
        ("in /etc/systemd/system/pacemaker.service",),
    ),
]

FINE: dict[str, Callable[[Root], object]] = {
    "the unit as it comes": lambda root: root,
    "a domain that may do everything": enforcing("rhcs", "unconfined"),
    "this project's module": enforcing("rhcs", "kdumpfence"),
    "a permissive domain": enforcing("rhcs", "permissive_cluster_t"),
    "a policy that is not in force": lambda root: (
        enforcing("rhcs")(root),
        root.write("sys/fs/selinux/enforce", "0"),
    ),
    "other capabilities taken away": sandbox("CapabilityBoundingSet=~CAP_SYS_MODULE"),
    "all capabilities again": sandbox(
        "CapabilityBoundingSet=CAP_KILL",
        "CapabilityBoundingSet=~",
        "CapabilityBoundingSet=~CAP_KILL",
    ),
    "capabilities in two lines": sandbox(
        "CapabilityBoundingSet=CAP_KILL \\\n  CAP_CHOWN", "CapabilityBoundingSet=CAP_NET_RAW"
    ),
    "a setting that was reset": sandbox(
        "RestrictAddressFamilies=AF_UNIX", "RestrictAddressFamilies="
    ),
    "all families that are needed": sandbox("RestrictAddressFamilies=AF_UNIX AF_INET AF_NETLINK"),
    "the calls of services": sandbox(
        "SystemCallFilter=@system-service", "SystemCallFilter=~@mount"
    ),
    "addresses of the nodes": sandbox(
        "IPAddressDeny=any", "IPAddressAllow=192.0.2.0/24", "IPAddressAllow=198.51.100.0/24"
    ),
    "a network that is not its own": sandbox("PrivateNetwork=yes", "PrivateNetwork=no"),
    "a drop-in that another one covers": lambda root: (
        sandbox("PrivateNetwork=yes", path=DROP_IN.replace("etc/", "usr/lib/"))(root),
        root.write(DROP_IN, ""),
    ),
    "a comment": sandbox("# PrivateNetwork=yes", "; PrivateNetwork=yes"),
    "another section": lambda root: root.write(DROP_IN, "[Unit]\nPrivateNetwork=yes\n"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_alone(healthy: Root, fault: Fault) -> None:
    judge(healthy, "agent", fault)


@pytest.mark.parametrize("change", FINE.values(), ids=FINE)
def test_what_is_no_fault_is_not_complained_of(
    healthy: Root, change: Callable[[Root], object]
) -> None:
    change(healthy)
    found = healthy.find("agent")
    assert {one.state for one in found} == {"ok"}, found
    assert "sandbox" in {one.check for one in found}


def test_without_pacemaker_and_selinux_nothing_is_said(healthy: Root) -> None:
    healthy.remove(UNIT)
    assert [one.check for one in healthy.find("agent")] == ["agent"]
