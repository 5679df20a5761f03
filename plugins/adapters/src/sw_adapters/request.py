"""From a call's parameters to one exact request, or a sentence that says what is wrong with them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sw_adapters.settings import HOST, Host, Settings

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
MAX_URL_CHARS: Final = 8192
MAX_HEADERS: Final = 64
MAX_HEADER_CHARS: Final = 8192
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
#: Exactly what goes on the wire: no user, no fragment, nothing that two parsers read differently.
_URL: Final = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{HOST})(?::(?P<port>[1-9][0-9]{{0,4}}))?"
    r"(?P<path>(?:/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)*)"
    r"(?P<query>\?(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*)?"
)
_DOT_SEGMENT: Final = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")
#: About the connection (ours), about who asks (comes by ticket), or about another request than this one.
_CONNECTION: Final = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"})
_OURS: Final = frozenset({"host", "content-length", "accept-encoding", "http2-settings", "forwarded", "via"})
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "cookie2", "set-cookie"})
_ANOTHER_REQUEST: Final = frozenset(
    {"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"}
)
_NOT_THE_MODELS: Final = _CONNECTION | _OURS | _CREDENTIALS | _ANOTHER_REQUEST
_NOT_THE_MODELS_PREFIXES: Final = ("proxy-", "x-forwarded-", "sec-")


class RequestError(Exception):
    """The parameters make no request. The text is for the model: what is wrong, and what would work."""


@dataclass(frozen=True, slots=True)
class Request:
    """One exact request. ``target`` is path and query as they go on the wire."""

    method: str
    host: Host
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        default = _DEFAULT_PORTS[self.host.scheme] == self.host.port
        return self.host.name if default else f"{self.host.name}:{self.host.port}"


def read_request(params: Mapping[str, Any], settings: Settings) -> Request:
    """The request that ``params`` ask for, if its host is listed. Raises RequestError."""
    method, url = params.get("method"), params.get("url")
    headers, body = params.get("headers", {}), params.get("body")
    if method not in METHODS:
        raise RequestError(f"the method must be one of {', '.join(METHODS)}")
    host, target = _split(url, settings)
    if body is not None and not isinstance(body, str):
        raise RequestError("the body must be text")
    if body and method not in _WITH_BODY:
        raise RequestError(f"{method} takes no body; use POST, PUT, PATCH or DELETE, or put it into the query")
    checked = _headers(headers)
    if body and "content-type" not in {name.lower() for name, _ in checked}:
        checked = (*checked, ("content-type", "text/plain; charset=utf-8"))
    try:
        data = (body or "").encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError("the body holds a lone surrogate, which no encoding can send") from None
    return Request(str(method), host, target, checked, data)


def _split(url: object, settings: Settings) -> tuple[Host, str]:
    match = _URL.fullmatch(url) if isinstance(url, str) and len(url) <= MAX_URL_CHARS else None
    if match is None:
        raise RequestError(
            "the URL must be like https://host/path?query: lower-case scheme and host, no user, no #fragment, other "
            f"characters percent-encoded, at most {MAX_URL_CHARS} characters"
        )
    if _DOT_SEGMENT.search(match["path"]):
        raise RequestError("the URL's path must not hold . or .. as a segment")
    scheme, name = match["scheme"], match["host"]
    port = int(match["port"] or _DEFAULT_PORTS[scheme])
    host = settings.hosts.get((scheme, name, port))
    if host is None:
        where = f"{'http://' if scheme == 'http' else ''}{name}:{port}"
        raise RequestError(f"{where} is not on the list of hosts. Listed: {settings.listed()}")
    return host, (match["path"] or "/") + (match["query"] or "")


def _headers(headers: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(headers, Mapping) or len(headers) > MAX_HEADERS:
        raise RequestError(f"headers must be an object of at most {MAX_HEADERS} names and values")
    seen: set[str] = set()
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise RequestError("a header's name may hold letters, digits and - only")
        lower = name.lower()
        if lower in _NOT_THE_MODELS or lower.startswith(_NOT_THE_MODELS_PREFIXES):
            raise RequestError(f"the header {lower} is not yours to set; leave it out")
        if not isinstance(value, str) or len(value) > MAX_HEADER_CHARS or not _HEADER_VALUE.fullmatch(value):
            raise RequestError(f"the value of the header {lower} must be one line of printable ASCII")
        if lower in seen:
            raise RequestError(f"the header {lower} stands there twice")
        seen.add(lower)
    return tuple((str(name), str(value)) for name, value in headers.items())
