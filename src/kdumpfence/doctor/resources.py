# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the cluster runs beside fencing devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kdumpfence.doctor.cib import Cib


class Resource(NamedTuple):
    """What the cluster runs."""

    name: str
    kind: str  #: "ocf:heartbeat:Filesystem"
    parameters: dict[str, str]
    operations: tuple[dict[str, str], ...]  #: attributes and parameters of each, with defaults


def resources(its: Cib) -> Iterator[Resource]:
    """All of them, each once, however many instances of it there are."""
    defaults = its.pairs(its.root.findall("configuration/op_defaults/meta_attributes"))
    for one, sets in its.primitives():
        kind = sets[-1]
        names = (kind.get("class", ""), kind.get("provider", ""), kind.get("type", ""))
        if names[0] != "stonith":
            operations = [
                {**defaults, **its.parameters([op]), **op.attrib}
                for of in sets
                for op in of.findall("operations/op")
            ]
            yield Resource(
                one.get("id", ""), ":".join(names), its.parameters(sets), tuple(operations)
            )
