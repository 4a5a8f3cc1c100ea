# SPDX-License-Identifier: LGPL-2.1-or-later
"""The status page at / of the metrics server, for those who would rather look than read.

A `view.Source` says what there is to see; `own` is that of this very daemon, and one that knows of
several daemons makes the same `View` with more listeners in it. `html`, `past` and `messages` make
a page of that, `site` serves it. What may not be in this folder: sockets, files of the daemon, and
what decides anything.
"""
