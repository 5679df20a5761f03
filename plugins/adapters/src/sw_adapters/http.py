"""Sends one request: to a checked address, with the listed name in TLS and Host, and nothing from the environment."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import certifi
import httpx

from safety_wrapper.model import ToolResult
from sw_adapters.addresses import Resolver, find
from sw_adapters.request import Request, RequestError, read_request
from sw_adapters.response import Answer, Body, render
from sw_adapters.settings import Address, Settings

_USER_AGENT: Final = "safety-wrapper"
_MAY_HAVE_RUN: Final = "; it may have been carried out: look before you repeat it"


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Certificates are checked against ``ca_file``, or the public authorities; SSL_CERT_FILE and the like don't count.

    Raises OSError or ssl.SSLError for a file that can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name unless told otherwise
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=str(ca_file or certifi.where()))
    return context


async def run(params: Mapping[str, Any], settings: Settings, context: ssl.SSLContext, resolver: Resolver) -> ToolResult:
    """One call of ``http.request``. What goes wrong is said in the result; raises only when cancelled."""
    deadline = asyncio.get_running_loop().time() + settings.timeout_s
    try:
        request = read_request(params, settings)
        async with asyncio.timeout_at(deadline):
            addresses = await find(request.host, resolver)
    except RequestError as exc:
        return _error(f"Refused: {exc}.")
    except TimeoutError:
        return _error("Error: the name could not be resolved in time.")
    transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False, http2=False, retries=0)
    async with httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=None) as client:  # noqa: S113 - the deadline above bounds all of it
        client.headers.clear()  # only what is said below
        try:
            return render(await _first(client, request, addresses, settings, deadline))
        except RequestError as exc:
            return _error(f"Error: {exc}.")
        except TimeoutError:
            return _error(f"Error: no answer within {settings.timeout_s:g} s{_repeat(request)}.")
        except httpx.TransportError:
            return _error(f"Error: the server broke off or answered with something that is no HTTP{_repeat(request)}.")


async def _first(
    client: httpx.AsyncClient, request: Request, addresses: list[Address], settings: Settings, deadline: float
) -> Answer:
    """The answer of the first address that can be connected to. Raises RequestError when there is none."""
    why = ""
    for address in addresses:
        try:
            async with asyncio.timeout_at(deadline):
                response = await client.send(_built(client, request, address), stream=True)
        except httpx.ConnectError as exc:
            why = _why(exc)
        else:
            try:
                return await _read(response, request, settings, deadline)
            finally:
                await response.aclose()
    raise RequestError(f"can't connect to {request.host.name}:{request.host.port}: {why}")


def _built(client: httpx.AsyncClient, request: Request, address: Address) -> httpx.Request:
    """The request as it is sent: to the address, under the listed name, with the target byte for byte."""
    ip = f"[{address.ip}]" if ":" in address.ip else address.ip
    headers = [
        ("Host", request.authority),
        ("User-Agent", _USER_AGENT),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    own = {name.lower() for name, _ in request.headers}
    return client.build_request(
        request.method,
        f"{request.host.scheme}://{ip}:{address.port}/",
        headers=[header for header in headers if header[0].lower() not in own] + list(request.headers),
        content=request.body or None,
        extensions={
            "sni_hostname": request.host.name.removeprefix("[").removesuffix("]"),
            "target": request.target.encode("ascii"),
        },
    )


async def _read(response: httpx.Response, request: Request, settings: Settings, deadline: float) -> Answer:
    """The answer as far as it comes within the bounds of time and size."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    body = Body(settings.max_response_bytes, encoding)
    answer = Answer(response.status_code, response.reason_phrase, tuple(response.headers.multi_items()), body)
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in response.aiter_raw():
                if not body.feed(chunk):
                    break
    except httpx.TransportError:
        answer.cut = f"the connection broke after {len(body.data)} bytes{_repeat(request)}"
    except TimeoutError:
        answer.cut = f"no more came within {settings.timeout_s:g} s{_repeat(request)}"
    return answer


def _repeat(request: Request) -> str:
    return "" if request.method in {"GET", "HEAD", "OPTIONS"} else _MAY_HAVE_RUN


def _why(exc: BaseException) -> str:
    """What kept a connection from being made, in fixed words."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as expected"
        cause = cause.__cause__ or cause.__context__
    return "it refuses connections or can't be reached"


def _error(text: str) -> ToolResult:
    return ToolResult(text, is_error=True)
