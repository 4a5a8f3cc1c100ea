# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `kdumpfence install-...` did below a root, as it is written down there.

By it the next run knows our files from others, also after one that was killed: the digests of a
file are written down before it is put anywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from kdumpfence.install import InstallError
from kdumpfence.install.layouts import HOME
from kdumpfence.install.sysroot import Found, Sysroot

PATH = f"{HOME}/installed"


@dataclass
class Record:
    """The content of that file."""

    layouts: dict[str, list[str]] = field(default_factory=dict)  #: their paths
    ours: dict[str, list[str]] = field(default_factory=dict)  #: digests by path
    directories: list[str] = field(default_factory=list)  #: made by us, outermost first
    node: str = ""  #: what the administrator calls this node

    @classmethod
    def load(cls, root: Sysroot) -> Record:
        """What is written down. Raises InstallError if that cannot be understood."""
        content = root.read(PATH)
        if content is None:
            return cls()
        try:
            fields = json.loads(content)
            record = cls(
                fields["layouts"], fields["ours"], fields["directories"], fields.get("node", "")
            )
            lists = [*record.layouts.values(), *record.ours.values(), record.directories]
            lists.append([record.node])
            if not all(isinstance(text, str) for one in lists for text in one):
                raise TypeError("not a text")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InstallError(
                f"{root.outside(PATH)}: not written by this program: move it away, and restore "
                "the .NAME.stock files by hand"
            ) from None
        return record

    def save(self, root: Sysroot) -> None:
        """Write it down."""
        text = json.dumps(vars(self), indent=1, sort_keys=True) + "\n"
        if root.read(PATH) != text.encode():
            root.write(PATH, text.encode(), 0o644)

    def forget(self) -> None:
        """Drop what is known of files that belong to no layout any more."""
        self.ours = {path: known for path, known in self.ours.items() if self.users(path)}

    def users(self, path: str) -> list[str]:
        """The layouts that this file belongs to."""
        return [name for name, paths in self.layouts.items() if path in paths]

    def is_ours(self, path: str, there: Found | None) -> bool:
        """Whether we put there what is there."""
        return there is not None and there.digest in self.ours.get(path, ())
