"""Mail addresses, parsed exactly: one address, no comment, no quoting, no route, no look-alike of a separator."""

from __future__ import annotations

import re
from typing import Final

from sw_classification.urls import UrlError, parse_host

MAX_ADDRESS: Final = 320
_LOCAL: Final = re.compile(r"[A-Za-z0-9!#$&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$&'*+/=?^_`{|}~-]+)*")
_NAMED: Final = re.compile(r"""[^<>@,;:"()\\\r\n]*<([^<>\s]+)>""")


def parse_address(text: str) -> tuple[str, str] | None:
    """``(local part, domain)`` of one address, or None. ``Name <a@b.example>`` is admitted, lists are not.

    The domain is in lower-case IDNA; an address literal (``a@[192.0.2.1]``) is none of anybody's domains: None.
    """
    text = text.strip(" ")
    if len(text) > MAX_ADDRESS:
        return None
    named = _NAMED.fullmatch(text)
    if named:
        text = named[1]
    local, at, domain = text.rpartition("@")
    if not at or "@" in local or not _LOCAL.fullmatch(local) or len(local) > 64:
        return None
    try:
        host = parse_host(domain)
    except UrlError:
        return None
    return (local, host) if "." in host else None


def is_inside(text: str, domains: tuple[str, ...]) -> bool:
    """Whether ``text`` is exactly one address in one of the tenant's own domains. A subdomain is another domain."""
    parsed = parse_address(text)
    return parsed is not None and parsed[1] in domains


def recipients(value: object) -> list[str]:
    """All recipients in a parameter: a text with commas or semicolons, a list, or an object's texts. Never fewer."""
    if isinstance(value, str):
        return [part.strip() for part in re.split(r"[,;\n]", value) if part.strip()]
    if isinstance(value, dict):
        return [r for item in value.values() for r in recipients(item)]
    if isinstance(value, (list, tuple)):
        return [r for item in value for r in recipients(item)]
    return [] if value is None else [str(value)]
