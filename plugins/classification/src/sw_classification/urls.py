"""URLs, read strictly: what two readers could take for two hosts is refused, not guessed.

Browsers and libraries differ (userinfo, backslashes, numbers as addresses, percent-encoded or non-ASCII hosts); a URL
is admitted only in the form in which all of them agree. Hosts come out in lower-case IDNA.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

import idna

MAX_URL: Final = 8192
_SCHEME: Final = re.compile(r"(https?)://", re.IGNORECASE)
_PORTS: Final = {"http": 80, "https": 443}
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
#: Printable ASCII without what URLs must escape or what some readers take for a slash.
_SAFE: Final = re.compile(r"[!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]*")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class UrlError(ValueError):
    """Not a URL that all readers take for the same place. The message is a fixed text."""


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its parts. ``path`` starts with a slash and is as written; ``data``: query or fragment are not empty."""

    scheme: str
    host: str
    port: int
    path: str
    data: bool

    @property
    def origin(self) -> str:
        """Scheme, host and port, the port only where it is not the scheme's own."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{port}"


def parse_url(text: str, *, scheme: str | None = None) -> Url:
    """Parse an absolute http(s) URL. ``scheme`` stands in where the text has none. Raises UrlError. O(length)."""
    if len(text) > MAX_URL:
        raise UrlError("the URL is too long")
    found = _SCHEME.match(text)
    if found is None:
        if scheme is None or "://" in text.split("?", 1)[0]:
            raise UrlError("not an http or https URL")
        rest, name = text, scheme
    else:
        rest, name = text[found.end() :], found[1].lower()
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    if "\\" in rest:
        raise UrlError("the URL holds a backslash")
    if "@" in authority:
        raise UrlError("the URL holds a user name")
    if not _SAFE.fullmatch(tail) and not _unicode_safe(tail):
        raise UrlError("the URL holds characters that must be escaped")
    if _BAD_ESCAPE.search(tail):
        raise UrlError("the URL holds a broken escape")
    host, port = _authority(authority, _PORTS[name])
    path = re.split(r"[?#]", tail, maxsplit=1)[0]
    return Url(name, host, port, path or "/", data=len(tail) > len(path) + 1)


def parse_host(text: str) -> str:
    """A host name or address alone, in lower-case IDNA. Raises UrlError."""
    if not text or "%" in text or any(char in text for char in "/\\@?#:[] \t\r\n"):
        raise UrlError("not a host name")
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError) as exc:
            raise UrlError("not a host name") from exc
    text = text.lower().removesuffix(".")
    if not text or len(text) > 253:
        raise UrlError("not a host name")
    labels = text.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(text)
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlError("not a host name")
    return text


def _authority(text: str, default: int) -> tuple[str, int]:
    if text.startswith("["):
        inner, closed, rest = text[1:].partition("]")
        if not closed or "%" in inner:
            raise UrlError("not an address in brackets")
        try:
            host = ipaddress.IPv6Address(inner).compressed
        except ValueError as exc:
            raise UrlError("not an address in brackets") from exc
        return host, _port(rest, default)
    name, colon, digits = text.partition(":")
    return parse_host(name), _port(colon + digits, default)


def _port(text: str, default: int) -> int:
    if text == "":
        return default
    digits = text[1:]
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 5 or not 0 < int(digits) < 65536:
        raise UrlError("not a port")
    return int(digits)


def _ipv4(text: str) -> str:
    """Four plain decimals only: shorter, octal and hexadecimal forms are read as different addresses."""
    parts = text.split(".")
    if len(parts) != 4 or not all(p.isdigit() and (p == "0" or p[0] != "0") and int(p) < 256 for p in parts):
        raise UrlError("an address in an unusual form")
    return text


def _unicode_safe(text: str) -> bool:
    """Letters of other scripts in path or query are escaped the same way by all; blanks and controls are not."""
    return all(_SAFE.fullmatch(c) or (ord(c) > 0xA0 and c.isalnum()) for c in text)


def is_internal(host: str, internal: tuple[str, ...]) -> bool:
    """Whether a host is one that the owner declared to be inside, or this machine itself."""
    if host in internal or host == "localhost" or host.endswith(".localhost"):
        return True
    if ":" in host:
        return host == "::1"
    return host.startswith("127.") and host.replace(".", "").isdigit()
