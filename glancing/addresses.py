"""Tells where the words of strangers may lead.

The operator's own words (the command line, local lists and metadata) may name any host: mirrors in
private networks are normal. What remote documents and redirects name must be a global address,
unless the operator named that host, too, or allowed its network. Otherwise a published list could
make this program read from the inside of a site's network. Link-local addresses, where clouds keep
the credentials of their machines, are never read from, whoever names them.

Addresses that carry another one inside (IPv4-mapped, 6to4, Teredo, NAT64) are judged by that one,
because ``ipaddress`` calls some of them global.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052, section 2.1
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, section 2.5.5.1
# Python's answer to "is it global" differs from version to version for these.
_NOT_GLOBAL: tuple[Network, ...] = (
    IPv4Network("192.0.0.0/24"),  # RFC 6890; metadata services have been seen there
    IPv4Network("192.88.99.0/24"),  # RFC 7526
    IPv6Network("64:ff9b:1::/48"),  # RFC 8215
    IPv6Network("100::/64"),  # RFC 6666
    IPv6Network("fec0::/10"),  # RFC 3879
)


def parse_network(text: str) -> Network:
    """A network in CIDR form, or a single address; ValueError for anything else."""
    return ip_network(text.strip())


def literal(host: str) -> Address | None:
    """The address that a host name spells, in every way that resolvers take: ``127.1``, ``0x7f.1``.

    None for a name that has to be looked up.
    """
    bare = host.strip("[]").partition("%")[0]
    try:
        return ip_address(bare)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(bare))
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Which addresses may be connected to; ``allowed`` are the networks of ``--allow-network``."""

    allowed: tuple[Network, ...] = ()

    def refusal(self, address: Address, *, vouched: bool) -> str | None:
        """Why an address may not be read from; None when it may.

        ``vouched`` says that the operator's own words named its host.
        """
        return next(filter(None, (self._of_one(each, vouched) for each in _meant(address))), None)

    def _of_one(self, address: Address, vouched: bool) -> str | None:
        if address.is_link_local:
            return "a link-local address"
        if vouched or _lies_in(address, self.allowed):
            return None
        return _not_global(address)


def _meant(address: Address) -> tuple[Address, ...]:
    """The address that packets end up at: the one inside, where there is one."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.sixtofour:
        return (address.sixtofour,)
    if address.teredo:
        return address.teredo
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    return (address,)


def _not_global(address: Address) -> str | None:
    kinds = (
        (address.is_loopback, "a loopback address"),
        (address.is_multicast, "a multicast address"),
        (not address.is_global or _lies_in(address, _NOT_GLOBAL), "not a public address"),
    )
    return next((words for holds, words in kinds if holds), None)


def _lies_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
