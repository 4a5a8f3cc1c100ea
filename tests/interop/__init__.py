# SPDX-License-Identifier: LGPL-2.1-or-later
"""End-to-end tests beside the stock programs.

Everything here runs the installed console scripts as real processes on real sockets, on
loopback only, next to ClusterLabs' fence_kdump and fence_kdump_send: first to prove that both
understand each other, then to compare what becomes of ordinary situations with either.
Malformed datagrams are sent to ours alone. Nothing here imports kdumpfence: a test that needs a
function of the product belongs in another folder.

    stock.py      gets the stock programs and the metadata schema
    programs.py   the programs under test, and one started process of them
    nodes.py      the other side of the wire: plain sockets that play a cluster node
    lab.py        what one test plays with: a port, nodes, receivers, started programs
    conftest.py   fixtures: which programs, and the host they run on
"""
