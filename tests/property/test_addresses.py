# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any text is addresses, a name or a LookUpError. No name service is asked here."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdumpfence import addresses
from kdumpfence.addresses import (
    FAMILIES,
    Address,
    LookUpError,
    cleaned,
    is_address,
    literal,
    look_up,
    split,
    why_refused,
    why_unusable,
)
from tests.support.refused import REFUSED

NUMBERS = st.integers(0, 2**32)
families = st.sampled_from(sorted(FAMILIES.values()))
v4 = st.binary(min_size=4, max_size=4)
v6 = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=4, max_size=4).map(lambda tail: bytes(10) + b"\xff\xff" + tail),
    st.binary(min_size=8, max_size=8).map(lambda tail: b"\xfe\x80" + bytes(6) + tail),
    st.sampled_from([bytes(16), bytes(15) + b"\1", b"\xff\2" + bytes(13) + b"\1"]),
)
literals = st.one_of(
    v4.map(lambda packed: socket.inet_ntop(socket.AF_INET, packed)),
    v6.map(lambda packed: socket.inet_ntop(socket.AF_INET6, packed)),
    st.builds(
        lambda packed, zone: f"{socket.inet_ntop(socket.AF_INET6, packed)}%{zone}",
        v6,
        st.sampled_from(["lo", "1", "0", "", "99999", "nothing0", "-1", str(2**32 + 1), "lo%lo"]),
    ),
    NUMBERS.map(str),  # inet_aton's other forms
    NUMBERS.map(hex),
    st.lists(st.integers(0, 300), min_size=1, max_size=5).map(lambda n: ".".join(map(str, n))),
)
texts = st.one_of(
    literals,
    st.text(),
    st.text("0123456789abcdef:.%x []/", max_size=40),
    st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape")),
    literals.flatmap(
        lambda text: st.sampled_from(
            [" " + text, text + " ", f"[{text}]", text + "\0", "\n" + text]
        )
    ),
    st.integers(60, 66).map(lambda n: "n" * n),
    st.integers(248, 258).map(lambda n: ("n" * 50 + ".") * 4 + "n" * (n - 204)),
    st.from_regex(r"[a-z0-9_-]{1,9}(\.[a-z0-9_-]{1,9}){0,3}\.?", fullmatch=True),
    st.from_regex(r"(0x)?[0-9a-f]{1,9}(\.(0x)?[0-9a-f]{1,9}){0,3}\.?", fullmatch=True),
    st.sampled_from(REFUSED),
)


def check(found: list[Address], family: int) -> None:
    """What the programs rely on in a list of addresses."""
    assert found
    assert len(set(found)) == len(found)
    for address in found:
        assert len(address.packed) == (4 if address.family == socket.AF_INET else 16)
        assert family in (socket.AF_UNSPEC, address.family)
        assert why_unusable(address) == ""
        # Nothing else ever comes with a scope, so with one it would never be heard.
        assert (address.scope != 0) == address.link_local


@given(texts, families)
@example("", socket.AF_UNSPEC)
@example("fe80::1%lo", socket.AF_INET6)
@example("fd00::1%1", socket.AF_UNSPEC)
@example("::ffff:10.0.0.1%1", socket.AF_INET)
@example("\ud800", socket.AF_UNSPEC)
def test_any_text_is_an_address_or_perhaps_a_name_or_refused(text: str, family: int) -> None:
    try:
        found = literal(text, family)
    except LookUpError as error:
        assert error.permanent
        assert str(error)
        assert is_address(text) or str(error) == why_refused(text)
    else:
        assert why_refused(text) == ""
        if found is not None:
            assert len(found) == 1
            check(found, family)


def is_inet_pton(text: str) -> bool:
    """By another reader than ours: the modules ipaddress and socket agree on it."""
    try:
        return ipaddress.ip_address(text) is not None and text.isascii() and "%" not in text
    except ValueError:
        return False


@given(texts)
@example("192.0.2.010")
@example("1.2.3.4%lo")
def test_an_address_is_what_inet_pton_takes(text: str) -> None:
    host, percent, _ = text.partition("%")
    if percent:
        assert not is_address(text) or (is_inet_pton(host) and ":" in host)
    else:
        assert is_address(text) == is_inet_pton(text)


def number_of_inet_aton(text: str) -> bool:
    """Whether getaddrinfo would take it for an address although inet_pton does not."""
    try:
        socket.inet_aton(text)
    except (OSError, ValueError):
        return False
    return True


@given(texts)
@example("127.1")
@example("0X7f.1")
@example("017")
def test_a_name_is_never_what_a_name_service_takes_for_an_address(text: str) -> None:
    if not why_refused(text) and not is_address(text):
        assert not number_of_inet_aton(text)
        name = text[:-1] if text.endswith(".") else text
        assert re.fullmatch(
            r"(?=.{1,253}$)(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*", name
        )
        assert not re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", name.rpartition(".")[2])


@given(st.lists(texts, max_size=4), st.sampled_from([",", " , ", ",,"]))
def test_a_list_is_its_parts(given_texts: list[str], comma: str) -> None:
    whole = split(comma.join(given_texts))
    assert whole == [part for text in given_texts for part in split(text)]
    for part in whole:
        if not why_refused(part):
            assert split(part) == [cleaned(part)] == [part]


@given(v6)
def test_brackets_and_escaped_colons_mean_the_address(packed: bytes) -> None:
    text = socket.inet_ntop(socket.AF_INET6, packed)
    escaped = text.replace(":", "\\:")
    for written in (text, escaped, f"[{text}]", f"[{escaped}]", f" [{text}] "):
        assert split(written) == [text]


@given(v4 | v6, families, st.sampled_from([0, 1]))
def test_what_is_shown_can_be_given_again(packed: bytes, family: int, scope: int) -> None:
    address = Address(packed)
    if address.link_local:
        address = Address(packed, scope)
    if why_unusable(address):
        with pytest.raises(LookUpError):
            literal(str(address), socket.AF_UNSPEC)
    elif family in (socket.AF_UNSPEC, address.family):
        assert literal(str(address), family) == [address]
        assert look_up(str(address), family) == [address]
    else:
        with pytest.raises(LookUpError, match=r"^not an ipv[46] address$"):
            literal(str(address), family)


def test_an_ipv4_address_that_no_node_can_have_is_refused() -> None:
    for first in range(256):
        refused = bool(why_unusable(Address(bytes([first, 1, 2, 3]))))
        assert refused == (first == 0 or 224 <= first < 240)


@given(v4 | v6)
def test_an_address_that_no_node_can_have_is_refused(packed: bytes) -> None:
    seen = ipaddress.ip_address(packed)
    if isinstance(seen, ipaddress.IPv6Address) and seen.ipv4_mapped is not None:
        seen = seen.ipv4_mapped
    impossible = seen.is_multicast or seen.is_unspecified
    if isinstance(seen, ipaddress.IPv4Address):
        impossible = impossible or seen.packed[0] == 0 or seen.packed == b"\xff\xff\xff\xff"
    else:
        impossible = impossible or seen.is_link_local  # without its interface
    assert bool(why_unusable(Address(packed))) == impossible


@given(v4 | v6, v4 | v6, st.integers(0, 2), st.integers(0, 2))
def test_addresses_are_equal_if_they_mean_the_same(a: bytes, b: bytes, i: int, j: int) -> None:
    def meant(packed: bytes) -> Any:
        seen = ipaddress.ip_address(packed)
        return getattr(seen, "ipv4_mapped", None) or seen

    mapped = bytes(10) + b"\xff\xff" + a if len(a) == 4 else a
    for one, two in ((a, b), (a, a), (a, mapped)):
        # Only a link-local address has a scope.
        if not (meant(one).version == meant(two).version == 6 and meant(one).is_link_local):
            i = j = 0
        same = (meant(one), i) == (meant(two), j)
        assert (Address(one, i) == Address(two, j)) is same
        if same:
            assert hash(Address(one, i)) == hash(Address(two, j))


class NameService:
    """_socket with a name service that answers what it is told; addresses stay the real ones."""

    def __init__(self) -> None:
        self.answer: Any = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def __getattr__(self, name: str) -> Any:
        return getattr(addresses_socket, name)

    def getaddrinfo(self, host: bytes, port: None, family: int, *rest: int) -> Any:
        if rest[-1] & socket.AI_NUMERICHOST:
            return addresses_socket.getaddrinfo(host, port, family, *rest)
        if isinstance(self.answer, Exception):
            raise self.answer
        return [one for one in self.answer if family in (socket.AF_UNSPEC, one[0])]


addresses_socket: Any = vars(addresses)["_socket"]


@pytest.fixture(scope="module")
def names() -> Iterator[NameService]:
    service = NameService()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses, "_socket", service)
        yield service


def answer(packed: bytes, scope: int) -> Any:
    if len(packed) == 4:
        peer: tuple[Any, ...] = (socket.inet_ntop(socket.AF_INET, packed), 0)
        return socket.AF_INET, socket.SOCK_DGRAM, 17, "", peer
    host = socket.inet_ntop(socket.AF_INET6, packed)
    zone = f"%{scope}" if scope else ""
    return socket.AF_INET6, socket.SOCK_DGRAM, 17, "", (host + zone, 0, 0, scope)


answers = st.one_of(
    st.sampled_from(
        [
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            OSError(errno.EMFILE, "Too many open files"),
            TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
        ]
    ),
    st.lists(st.builds(answer, v4 | v6, st.integers(0, 2)), min_size=1, max_size=5),
)


@given(text=texts, family=families, answered=answers)
def test_whatever_the_name_service_says_it_is_usable_addresses_or_an_error(
    names: NameService, text: str, family: int, answered: Any
) -> None:
    names.answer = answered
    of_family = not isinstance(answered, list) or [one for one in answered if one[0] == family]
    if family != socket.AF_UNSPEC and not of_family:
        # A name service does not answer with nothing at all.
        names.answer = socket.gaierror(socket.EAI_NODATA, "No address")
    try:
        found = look_up(text, family)
    except LookUpError as error:
        assert str(error)
    else:
        assert found
        assert len(set(found)) == len(found)
        for address in found:
            assert why_unusable(address) == ""
            assert family in (socket.AF_UNSPEC, address.family)
