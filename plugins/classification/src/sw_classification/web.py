"""Requests to the web: what leaves, to whom. A URL that readers could take differently is opaque."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from safety_wrapper.model import ToolCall
from safety_wrapper.policy import Policy, ToolEntry
from sw_classification.facts import NO_FLAGS, Fact, Findings
from sw_classification.urls import Url, UrlError, is_internal, parse_url

#: Methods that only ask.
ASKING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
METHODS: Final = ASKING | {"POST", "PUT", "PATCH", "DELETE"}
#: Headers that say how to answer and carry nothing of ours, with the values that are enough.
_PLAIN_HEADERS: Final = frozenset({"accept", "accept-language", "accept-encoding", "cache-control", "range"})


def analyse_request(call: ToolCall, entry: ToolEntry, policy: Policy, findings: Findings) -> None:
    """``http.request``: method, url, headers, body."""
    method, url = call.params.get("method", "GET"), call.params.get("url")
    headers, body = call.params.get("headers") or {}, call.params.get("body")
    if type(method) is not str or type(url) is not str or not isinstance(headers, Mapping):
        findings.malformed = "it names no method or no URL"
        return
    if method not in METHODS:
        findings.malformed = "it names a method that is not one of GET HEAD OPTIONS POST PUT PATCH DELETE"
        return
    fact = request_fact(method, url, carries=bool(body) or _headers_carry(headers), policy=policy, findings=findings)
    fact.flags |= _names(headers)
    findings.facts.append(fact)


def request_fact(
    method: str,
    url: str,
    *,
    carries: bool,
    policy: Policy,
    findings: Findings,
    scheme: str | None = None,
    program: str = "",
    argv: tuple[str, ...] = (),
) -> Fact:
    """The fact of one request. ``carries``: a body, headers or credentials of ours go with it."""
    try:
        parsed = parse_url(url, scheme=scheme)
    except UrlError as exc:
        findings.make_opaque(str(exc))
        return Fact("send", "url", url, program=program, argv=argv, method=method, external=True, unresolved=True)
    asking = method in ASKING and not carries
    inside = is_internal(parsed.host, policy.tenant.internal_hosts)
    return Fact(
        kind="read" if asking else "delete" if method == "DELETE" else "send",
        resource="url",
        value=parsed.origin + parsed.path + ("?…" if parsed.data else ""),
        program=program,
        argv=argv,
        # a query is data, whatever the path: it fits no listed path
        path=parsed.path + ("?" if parsed.data else ""),
        host=parsed.host,
        port=parsed.port,
        method=method,
        external=not inside and not asking,
        unless_listed=not inside and asking,
        flags=_place_flags(parsed, inside=inside),
    )


def _place_flags(parsed: Url, *, inside: bool) -> frozenset[str]:
    return frozenset({"internal" if inside else "outside", *(("query",) if parsed.data else ())})


def _headers_carry(headers: Mapping[str, Any]) -> bool:
    return any(str(name).lower() not in _PLAIN_HEADERS or len(str(value)) > 64 for name, value in headers.items())


def _names(headers: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(f"header:{str(name).lower()}" for name in headers) if headers else NO_FLAGS
