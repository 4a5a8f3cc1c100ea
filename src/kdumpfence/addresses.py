# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an address is, what a name is, and names -> addresses without ever waiting.

The one judge for all programs (the native sender has the same in Cython). What inet_pton
takes is an address: IPv4 as four numbers without leading zeros, IPv6, and an interface behind
a link-local one. Anything else is a host name, if it can be one, or refused at once: a name
service would take `127.1` and `192.0.2.010` for something that nobody meant, and look
`192.0.2.1;` up until the time is over.

An address is there on the spot. A name goes to a thread, because a look-up may hang for as
long as a resolver likes; `Resolver` asks again, quickly at first, until every name has an
address. What may not be in this file: sockets that carry messages, and what a message means.

`_socket`, `_thread` and `posix` are used instead of `socket`, `threading` and `os`: the
latter's enums and helpers cost as much start-up time as the interpreter itself.
"""

from __future__ import annotations

import _socket
import _thread
import posix
import time

from kdumpfence.signals import Wakeup
from kdumpfence.text import whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Protocol

    class Threads(Protocol):
        """What is used of `_thread`; a Listener has that of the system, see `unpatched`."""

        def allocate_lock(self) -> _thread.LockType: ...  # noqa: D102
        def start_new_thread(self, run: Callable[[str], None], args: tuple[str], /) -> Any: ...  # noqa: D102, ANN401


FAMILIES = {"auto": _socket.AF_UNSPEC, "ipv4": _socket.AF_INET, "ipv6": _socket.AF_INET6}


def socket_families(name: str) -> tuple[int, ...]:
    """The families that sockets are opened for, by a name of FAMILIES."""
    family = FAMILIES[name]
    return (_socket.AF_INET, _socket.AF_INET6) if family == _socket.AF_UNSPEC else (family,)


#: Seconds until a name that did not resolve is asked for again: doubled from the first
#: value to the last.
RETRY_FIRST = 0.1
RETRY_LAST = 5.0

#: Look-ups under way at a time; one that has hung for a second no longer counts.
LOOK_UPS_AT_ONCE = 64

#: Look-ups of one name under way at a time: a second one is for a hosts file that appears
#: while the first one still waits for a name server.
LOOK_UPS_OF_A_NAME = 3

#: What decides on names; a change of one is a reason to ask again.
NAME_FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf")

#: Characters of a host name without its dot, and of a label of it (RFC 1035, 2.3.4).
MOST_NAME = 253
MOST_LABEL = 63

#: Why a text is neither an address nor a name.
NEITHER = "neither a host name nor an IP address"
NO_NUMBERS = NEITHER + " (IPv4: four numbers from 0 to 255 without leading zeros)"


class Address:
    """An IP address that can be a node's: 4 or 16 bytes in network order.

    `scope` is the interface index of a link-local IPv6 address, else 0.
    """

    __slots__ = ("packed", "scope")

    def __init__(self, packed: bytes, scope: int = 0) -> None:
        if packed[:12] == b"\0" * 10 + b"\xff\xff":
            packed = packed[12:]  # IPv4-mapped: on the wire it is IPv4
        self.packed = packed
        # The kernel names the interface of link-local senders only.
        self.scope = scope if self.link_local else 0

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return _socket.AF_INET if len(self.packed) == 4 else _socket.AF_INET6

    @property
    def link_local(self) -> bool:
        """Whether it means nothing without its interface."""
        return self.packed[0] == 0xFE and self.packed[1] & 0xC0 == 0x80 and len(self.packed) == 16

    @property
    def loopback(self) -> bool:
        """Whether it is this machine's alone."""
        return self.packed[0] == 127 if len(self.packed) == 4 else self.packed == bytes(15) + b"\1"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self.packed == other.packed and self.scope == other.scope

    def __hash__(self) -> int:
        return hash((self.packed, self.scope))

    def __str__(self) -> str:
        host = _socket.inet_ntop(self.family, self.packed)
        return f"{host}%{interface_name(self.scope)}" if self.scope else host

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"


def interface_name(index: int) -> str:
    """The name of an interface; its index if it has gone away."""
    try:
        return _socket.if_indextoname(index)
    except OSError:
        return str(index)


class LookUpError(Exception):
    """A name without a usable address; `permanent` if asking again cannot help."""

    def __init__(self, text: str, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent


def why_unusable(address: Address) -> str:
    """Why no datagram of a node can come from this address; "" if one can."""
    packed = address.packed
    if address.family == _socket.AF_INET:
        # 240.0.0.0/4 is reserved on paper, and unicast to Linux.
        if packed[0] == 0 or 224 <= packed[0] < 240 or packed == b"\xff\xff\xff\xff":
            return "no node can have this address"
    elif packed[0] == 0xFF or packed == bytes(16):
        return "no node can have this address"
    elif address.link_local and not address.scope:
        return "a link-local address needs its interface, as in fe80::1%eth0"
    return ""


# ------------------------------------------------------------------ what was written


def _words(text: str) -> str:
    return text.replace("-", "a").replace("_", "a")


def _parse(text: str) -> tuple[bytes, str] | None:
    """(packed, interface or "") if an address is written there."""
    host, percent, zone = text.partition("%")
    family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
    try:
        packed = _socket.inet_pton(family, host)
    except (OSError, ValueError):
        return None
    if percent:
        plain = _words(zone.replace(".", "a").replace("@", "a").replace("+", "a"))
        if family == _socket.AF_INET or not (plain.isascii() and plain.isalnum()):
            return None
    return packed, zone


def is_address(text: str) -> bool:
    """Whether an address is written there, be it one that a node can have or not."""
    return _parse(text) is not None


def _why_no_name(text: str) -> str:
    """Why this can be no host name; "" if it can be one."""
    labels = (text[:-1] if text[-1:] == "." else text).split(".")
    if not text.isascii() or len(".".join(labels)) > MOST_NAME:
        return NEITHER
    for label in labels:
        if not 0 < len(label) <= MOST_LABEL or label[0] == "-" or not _words(label).isalnum():
            return NEITHER
    # A number at the end is meant as part of an address (RFC 1123, 2.1); inet_aton takes it so.
    last = labels[-1].lower()
    if last.isdigit() or (last[:2] == "0x" and not last[2:].strip("0123456789abcdef")):
        return NO_NUMBERS
    return ""


def why_refused(text: str) -> str:
    """Why this can be neither an address nor a host name; "" if it can be one."""
    return "" if is_address(text) else _why_no_name(text)


def is_meant_as_address(text: str) -> bool:
    """Whether an address is written there, or a mistyped one.

    The latter is what can be no name either and has "::" or more than one number in it.
    """
    if not _why_no_name(text):
        return False
    plain = text.replace("\\", "")
    parts = "".join(letter if letter.isalnum() else "." for letter in plain).split(".")
    return is_address(text) or "::" in plain or sum(part.isdigit() for part in parts) > 1


def cleaned(text: str) -> str:
    """What was written, in the form in which it is used; unchanged if it can be neither.

    Colons may be escaped by a backslash, which Pacemaker 2.1.2 to 3.0.1 wanted in pcmk_host_map
    and 3.0.2 hands on; and an IPv6 address may be in brackets.
    """
    if "\\" not in text and text[:1] != "[":
        return text
    word = text.replace("\\:", ":")
    if word[:1] == "[" and word[-1:] == "]" and ":" in word:
        word = word[1:-1]
    return text if why_refused(word) else word


def split(text: str) -> list[str]:
    """NODE[,NODE...] -> its parts, cleaned; a comma too many does no harm."""
    parts = [part.strip(" \t\n\v\f\r") for part in text.split(",")]
    return [cleaned(part) for part in parts if part]


def _scope(zone: str) -> int:
    """The index of an interface, by its name or number; 0 if there is none of that name."""
    try:
        return _socket.if_nametoindex(zone)
    except OSError:
        return whole_number(zone, 0, 2**31 - 1) or 0


def literal(text: str, family: int) -> list[Address] | None:
    """The address that is written there; None if it has to be looked up. Never blocks.

    To be looked up is a name, and a link-local address whose interface is not there (yet).
    `family` is one of FAMILIES' values. Raises LookUpError, `permanent`, if it can be neither
    an address nor a name, or is an address that is not of that family or cannot be a node's.
    """
    parsed = _parse(text)
    if parsed is None:
        why = _why_no_name(text)
        if why:
            raise LookUpError(why, True)
        return None
    packed, zone = parsed
    address = Address(packed, _scope(zone) if zone else 0)
    if family not in (_socket.AF_UNSPEC, address.family):
        other = "ipv6" if family == _socket.AF_INET6 else "ipv4"
        raise LookUpError(f"not an {other} address", True)
    if zone and address.link_local and not address.scope and zone.strip("0"):
        return None
    why = why_unusable(address)
    if zone and not address.link_local and not why:
        why = "only a link-local address has an interface"
    if why:
        raise LookUpError(why, True)
    return [address]


# ------------------------------------------------------------------ names


def look_up(name: str, family: int) -> list[Address]:
    """All addresses of a name or literal in that family (AF_UNSPEC: both).

    May block for as long as the name service does. Raises LookUpError.
    """
    found = literal(name, family)
    if found is not None:
        return found
    if "%" in name:
        raise LookUpError(f"this machine has no interface '{name.partition('%')[2]}'")
    try:
        # As bytes: for a str the C function imports the IDNA codec, which takes 10 ms.
        answers = _socket.getaddrinfo(name.encode(), None, family, _socket.SOCK_DGRAM)
    except _socket.gaierror as error:
        raise LookUpError(str(error.args[-1])) from None
    except OSError as error:
        raise LookUpError(str(error.strerror)) from None
    found = []
    for answer_family, _, _, _, peer in answers:
        host = str(peer[0]).partition("%")[0]
        scope = int(peer[3]) if len(peer) == 4 else 0
        address = Address(_socket.inet_pton(answer_family, host), scope)
        # Of another family than asked for is an IPv4-mapped one.
        if address not in found and family in (_socket.AF_UNSPEC, address.family):
            found.append(address)
    if not found:
        raise LookUpError("no address of the requested family")
    usable = [address for address in found if not why_unusable(address)]
    if not usable:
        raise LookUpError(f"{joined(found)}: {why_unusable(found[0])}")
    return usable


def joined(found: Sequence[Address]) -> str:
    """For a line."""
    return ", ".join(str(address) for address in found)


class NameFiles:
    """Notices that names may mean something else than before."""

    def __init__(self) -> None:
        self._seen = self._look()

    @staticmethod
    def _look() -> list[tuple[int, int, int]]:
        found = []
        for path in NAME_FILES:
            try:
                about = posix.stat(path)
                found.append((about.st_ino, about.st_size, about.st_mtime_ns))
            except OSError:
                found.append((0, 0, 0))
        return found

    def changed(self) -> bool:
        """Whether one of them appeared, went or changed since the last call."""
        before, self._seen = self._seen, self._look()
        return before != self._seen


class _Pending:
    """A name that has no address yet."""

    __slots__ = ("asked_at", "delay", "due", "running")

    def __init__(self, now: float) -> None:
        self.due: float | None = now  # None: not before an answer
        self.delay = RETRY_FIRST
        self.running = 0  # look-ups under way
        self.asked_at = 0.0


class Resolver:
    """Looks names up in threads until each has an address.

    Drive it from a loop: call `step`, wait until `fd` can be read or `next_due` is
    reached, call `step` again. Nothing here blocks. Threads that hang in a look-up are
    left behind; they do not keep the program alive.
    """

    def __init__(
        self,
        names: Iterable[str],
        family: int,
        retry_last: float = RETRY_LAST,
        ask: Callable[[str, int], list[Address]] = look_up,
        threads: Threads = _thread,
    ) -> None:
        self._family = family
        self._threads = threads
        self._retry_last = max(retry_last, RETRY_FIRST)
        self._ask = ask
        now = time.monotonic()
        self._pending = {name: _Pending(now) for name in names}
        self._answers: list[tuple[str, list[Address] | LookUpError]] = []
        self._lock = threads.allocate_lock()
        self._wakeup: Wakeup | None = Wakeup()
        #: Can be read when an answer came: for poll, not for reading.
        self.fd = self._wakeup.fileno()

    @property
    def busy(self) -> bool:
        """Whether there is a name without an address; if not, no call does anything any more."""
        return bool(self._pending)

    @property
    def unresolved(self) -> list[str]:
        """The names without an address so far."""
        return list(self._pending)

    @property
    def next_due(self) -> float | None:
        """When `step` wants to be called (time.monotonic); None: not before an answer."""
        crowded = self._young(time.monotonic()) >= LOOK_UPS_AT_ONCE
        times = [pending.due for pending in self._pending.values() if pending.due is not None]
        if crowded:  # room comes when the oldest of the young is a second old, or answers
            return time.monotonic() + 0.1 if times else None
        return min(times, default=None)

    def add(self, name: str) -> None:
        """Look this name up as well; one that is waited for already stays as it is."""
        if name not in self._pending:
            self._pending[name] = _Pending(time.monotonic())

    def discard(self, name: str) -> None:
        """Ask for this name no more. `add` it again only after an answer was told."""
        self._pending.pop(name, None)

    def _young(self, now: float) -> int:
        return sum(p.running > 0 and now - p.asked_at < 1.0 for p in self._pending.values())

    def hurry(self) -> None:
        """What names mean may have changed: ask for all of them again, now.

        One whose look-up is still under way is asked for a second time beside it.
        """
        now = time.monotonic()
        for pending in self._pending.values():
            pending.delay = RETRY_FIRST
            if pending.running < LOOK_UPS_OF_A_NAME:
                pending.due = now

    def step(self) -> list[tuple[str, list[Address] | LookUpError]]:
        """Start look-ups that are due; the answers that came since the last call."""
        if self._wakeup is not None:
            self._wakeup.clear()
        with self._lock:
            answers, self._answers = self._answers, []
        now = time.monotonic()
        news = []
        for name, answer in answers:
            pending = self._pending.get(name)
            if pending is None:  # another look-up of this name was quicker
                continue
            news.append((name, answer))
            if isinstance(answer, LookUpError) and not answer.permanent:
                pending.running -= 1
                if pending.due is None and not pending.running:
                    pending.due = now + pending.delay
                    pending.delay = min(2 * pending.delay, self._retry_last)
            else:
                del self._pending[name]
        room = LOOK_UPS_AT_ONCE - self._young(now)
        for name, pending in self._pending.items():
            if room > 0 and pending.due is not None and pending.due <= now:
                try:
                    self._threads.start_new_thread(self._run, (name,))
                except RuntimeError:  # no thread to be had at the moment
                    pending.due = now + 1.0
                    continue
                pending.running += 1
                pending.due = None
                pending.asked_at = now
                room -= 1
        return news

    def _run(self, name: str) -> None:
        answer: list[Address] | LookUpError
        try:
            answer = self._ask(name, self._family)
        except LookUpError as error:
            answer = error
        except Exception as error:  # whatever a name service module may raise
            answer = LookUpError(f"{type(error).__name__}: {error}")
        with self._lock:
            self._answers.append((name, answer))
            if self._wakeup is not None:
                self._wakeup.wake()

    def close(self) -> None:
        """Give the descriptors back. Look-ups under way end unheard."""
        with self._lock:
            if self._wakeup is not None:
                self._wakeup.close()
            self._wakeup = None
