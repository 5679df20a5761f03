"""Where a listed host may be connected to: its listed address, or public addresses only."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sw_adapters.request import RequestError
from sw_adapters.settings import Address, Host

#: Gives the addresses of a name as text; raises OSError when there is none.
type Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

#: So many of a name's addresses are tried.
MAX_TRIED: Final = 3
#: IPv6 networks that carry an IPv4 address in them, which nobody has checked (translation, 6to4, Teredo).
_CARRIERS: Final = tuple(
    ipaddress.ip_network(n) for n in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)


async def system_resolver(name: str, port: int) -> Sequence[str]:
    """What the operating system says."""
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_public(text: str) -> bool:
    """True for an address that anybody on the internet could reach: no loopback, private, link-local, multicast."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False  # also an address with a zone, which is a local one
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if any(address in network for network in _CARRIERS):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def find(host: Host, resolver: Resolver) -> list[Address]:
    """The addresses to try, in order. Raises RequestError when there is none, or when one of them is not public.

    The caller connects to exactly these: a name that resolves differently a moment later changes nothing.
    """
    if host.address is not None:
        return [host.address]
    try:
        found = list(dict.fromkeys(await resolver(host.name, host.port)))
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise RequestError(f"the name {host.name} can't be resolved; try again later, or tell the owner")
    if not all(is_public(address) for address in found):
        raise RequestError(
            f"the name {host.name} resolves to an address that is not public. The owner can list it with its address"
        )
    return [Address(ip, host.port) for ip in found[:MAX_TRIED]]
