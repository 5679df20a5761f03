"""Settings of the plugin: an explicit list of hosts. Pure, but for the authority file's existence."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safety_wrapper.errors import ConfigError

DEFAULT_MAX_RESPONSE_BYTES: Final = 1024 * 1024
MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
DEFAULT_TIMEOUT_S: Final = 30.0
MAX_TIMEOUT_S: Final = 3600.0
_KEYS: Final = frozenset({"hosts", "resolve", "ca_file", "max_response_bytes", "timeout_s"})
#: A name in its one spelling (lower case, no dot at the end), an IPv4 address, or an IPv6 address in brackets.
HOST: Final = r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]{2,45}\])"
_ENTRY: Final = re.compile(rf"(?P<http>http://)?(?P<host>{HOST}):(?P<port>[1-9][0-9]{{0,4}})")
_ADDRESS: Final = re.compile(r"(?P<ip>[0-9.]+|\[[0-9a-f:.]+\]):(?P<port>[1-9][0-9]{0,4})")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect to: an IP address as text (without brackets) and a port."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Host:
    """One listed host. ``address`` is set for an internal one: it is connected to there, and nowhere else."""

    scheme: str
    name: str
    port: int
    address: Address | None


@dataclass(frozen=True, slots=True)
class Settings:
    """``hosts`` by (scheme, name, port)."""

    hosts: Mapping[tuple[str, str, int], Host]
    ca_file: Path | None
    max_response_bytes: int
    timeout_s: float

    def listed(self) -> str:
        """The list for people and models."""
        names = [f"{'http://' if h.scheme == 'http' else ''}{h.name}:{h.port}" for h in self.hosts.values()]
        return ", ".join(sorted(names)) or "none"


def read_settings(settings: Mapping[str, Any]) -> Settings:
    """Check the plugin's settings. Raises ConfigError naming the key, never its value."""
    unknown = sorted(settings.keys() - _KEYS)
    if unknown:
        raise ConfigError(f"adapters: unknown setting {unknown[0]!r}")
    entries, resolve = settings.get("hosts", []), settings.get("resolve", {})
    if type(entries) is not list or type(resolve) is not dict:
        raise ConfigError("adapters: hosts must be a list, resolve an object")
    addresses = {key: _address(value) for key, value in resolve.items()}
    hosts: dict[tuple[str, str, int], Host] = {}
    for number, entry in enumerate(entries):
        host = _host(number, entry, addresses)
        if (host.scheme, host.name, host.port) in hosts:
            raise ConfigError(f"adapters: hosts[{number}] stands there twice")
        hosts[host.scheme, host.name, host.port] = host
    if addresses.keys() - {f"{h.name}:{h.port}" for h in hosts.values()}:
        raise ConfigError("adapters: resolve names a host that is not in hosts")
    return Settings(
        hosts,
        _ca_file(settings.get("ca_file")),
        int(_number(settings, "max_response_bytes", DEFAULT_MAX_RESPONSE_BYTES, MAX_RESPONSE_BYTES)),
        _number(settings, "timeout_s", DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S),
    )


def _host(number: int, entry: object, addresses: Mapping[str, Address]) -> Host:
    match = _ENTRY.fullmatch(entry) if isinstance(entry, str) else None
    if match is None or int(match["port"]) > 65535:
        raise ConfigError(f"adapters: hosts[{number}] must be like api.example.com:443 or http://intranet.example:8080")
    name, port = match["host"], int(match["port"])
    address = addresses.get(f"{name}:{port}")
    ip = literal_ip(name)
    if name.startswith("[") and ip is None:
        raise ConfigError(f"adapters: hosts[{number}] is no IPv6 address")
    if address is None and ip is not None:
        address = Address(ip, port)  # a host that is an address is listed with its address
    return Host("http" if match["http"] else "https", name, port, address)


def literal_ip(name: str) -> str | None:
    """The address that ``name`` spells, or None when it is a name."""
    try:
        return str(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def _address(value: object) -> Address:
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    ip = literal_ip(match["ip"]) if match else None
    if match is None or ip is None or int(match["port"]) > 65535:
        raise ConfigError("adapters: an address in resolve must be like 10.1.2.3:8080")
    return Address(ip, int(match["port"]))


def _ca_file(value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str) or not Path(value).is_absolute() or not Path(value).is_file():
        raise ConfigError("adapters: ca_file must be the absolute path of a file")
    return Path(value)


def _number(settings: Mapping[str, Any], key: str, default: float, largest: float) -> float:
    value = settings.get(key, default)
    if type(value) not in {int, float} or not 0 < value <= largest:
        raise ConfigError(f"adapters: {key} must be a number above 0 and at most {largest:.0f}")
    return float(value)
