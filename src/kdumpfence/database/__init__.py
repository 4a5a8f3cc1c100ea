# SPDX-License-Identifier: LGPL-2.1-or-later
"""One memory for several listeners: a PostgreSQL database, schema `kdumpfence`.

How it works, which docs/database.md tells for people who query it:

- Each kdumpfenced writes everything into its own SQLite file first, as without a database, and in
  the same transaction into an outbox there (daemon/outbox.py). A thread of the daemon hands the
  outbox on, in order, whenever the database is there (daemon/forwarder.py). So a database that is
  slow, full or gone costs disk space and nothing else.
- A *report* is one listener's view of a dump: known by the listener, its node and the listener's
  own time of the first message. A *dump* is what all listeners saw: the reports of one node whose
  times overlap. `settle` (merging.py) is the one place that says what a dump is: a function of
  its reports and of which listeners are there. *Events* are the differences that it finds. So what
  arrives twice changes nothing, and says nothing twice.
- One writer at a time: each call locks the row of `meta`. So events have numbers without gaps, in
  the order in which they can be seen: who has seen N has seen all before it. A call is one
  statement, so no client that hangs can keep the lock.
- A listener numbers what it hands on; the database keeps the last number it took in the same
  transaction. After a failover that lost some, the listener goes on from where the database is.
- Times are the listener's, corrected by the offset between its clock and the database's, which it
  measures each time it asks. Not the database's own: what was spooled arrives hours later.

What may not be in this package: SQLite, sockets of messages, and what people are shown.
"""
