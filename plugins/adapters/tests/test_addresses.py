"""Where a listed name may lead."""

import asyncio

import pytest
from sw_adapters.addresses import find, is_public
from sw_adapters.request import RequestError
from sw_adapters.settings import Address, Host

PUBLIC = Host("https", "api.example.com", 443, None)


def resolving(*addresses):
    async def resolver(_name, _port):
        if not addresses:
            raise OSError
        return list(addresses)

    return resolver


# fmt: off
NOT_PUBLIC = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1",
    "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:0:0:0:0:0:1", "2001:db8::1", "not-an-address",
]
# fmt: on


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_that_are_public(address):
    assert is_public(address)


def test_a_name_with_one_private_address_is_refused():
    with pytest.raises(RequestError, match="not public"):
        asyncio.run(find(PUBLIC, resolving("1.1.1.1", "127.0.0.1")))
    assert asyncio.run(find(PUBLIC, resolving("1.1.1.1", "1.0.0.1"))) == [
        Address("1.1.1.1", 443),
        Address("1.0.0.1", 443),
    ]


def test_a_host_listed_with_its_address_is_not_resolved():
    internal = Host("https", "db.example", 443, Address("127.0.0.1", 4433))
    assert asyncio.run(find(internal, resolving("10.0.0.1"))) == [Address("127.0.0.1", 4433)]


def test_a_name_without_address_is_said():
    with pytest.raises(RequestError, match="can't be resolved"):
        asyncio.run(find(PUBLIC, resolving()))
