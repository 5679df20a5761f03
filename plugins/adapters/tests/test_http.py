"""Real requests to a real TLS server on loopback. Each failure beside the same request without its cause."""

import asyncio
import gzip

import pytest
from sw_adapters import Adapters

from safety_wrapper import dispatch, registry
from safety_wrapper.errors import AdapterError
from safety_wrapper.model import MAX_RESULT_CHARS, Ticket
from safety_wrapper.testing import make_call


@pytest.fixture
def request_to(web, files):
    """Ask a server that answers in the given way; the result and what the server saw."""

    def ask(answering, *, tls=True, settings=None, resolver=None, listed=None, **params):
        async def walk():
            async with web.serving(answering, files if tls else None) as seen:
                host = listed or (f"{web.name}:443" if tls else f"http://{web.name}:80")
                chosen = {
                    "hosts": [host],
                    "resolve": {f"{web.name}:{443 if tls else 80}": f"127.0.0.1:{seen.port}"},
                    "ca_file": str(files[0]),
                    "timeout_s": 5,
                    **(settings or {}),
                }
                plugin = Adapters(chosen) if resolver is None else Adapters(chosen, resolver=resolver)
                plan = registry.vet({"adapters": plugin})
                scheme = "https" if tls else "http"
                full = {"method": "GET", "url": f"{scheme}://{web.name}/v1", **params}
                result = await dispatch.execute(plan, make_call("http.request", full), ())
                return result, seen.requests

        return asyncio.run(walk())

    return ask


def test_a_request_arrives_as_asked_and_its_answer_is_read(request_to, web):
    result, seen = request_to(
        web.answers(web.ok(b'{"id":7}', "Content-Type: application/json", "Set-Cookie: a=b")),
        method="POST",
        url=f"https://{web.name}/v1/a%2Fb?x=[".replace("[", "%5B"),
        headers={"X-One": "1"},
        body="h\u00e9",
    )
    assert result.text == 'HTTP 200 OK\ncontent-type: application/json\ncontent-length: 8\n\n{"id":7}'
    assert not result.is_error
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/a%2Fb?x=%5B HTTP/1.1"
    assert b"Host: api.example.test" in lines
    assert b"X-One: 1" in lines
    assert body == "h\u00e9".encode()
    names = {line.partition(b":")[0].lower() for line in lines[1:]}
    assert names == {
        *(b"host", b"user-agent", b"accept", b"accept-encoding", b"connection"),
        *(b"x-one", b"content-type", b"content-length"),
    }


def test_http_only_where_it_is_listed(request_to, web):
    result, _ = request_to(web.answers(web.ok(b"plain")), tls=False)
    assert result.text.endswith("plain")
    refused, seen = request_to(web.answers(web.ok(b"plain")), url=f"http://{web.name}:443/")
    assert refused.text.startswith("Refused:")
    assert seen == []


def test_a_redirect_is_not_followed(request_to, web):
    location = f"Location: https://{web.name}/next"
    result, seen = request_to(
        web.answers(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n" + location.encode() + b"\r\n\r\n")
    )
    assert len(seen) == 1
    assert "redirects are not followed" in result.text


def test_a_slow_server_ends_at_the_deadline(request_to, web):
    async def silent(_request, _writer):
        await asyncio.sleep(60)

    result, _ = request_to(silent, settings={"timeout_s": 0.3}, method="POST")
    assert result.text == "Error: no answer within 0.3 s; it may have been carried out: look before you repeat it."
    assert result.is_error


def test_a_dripping_body_ends_at_the_deadline_with_what_came(request_to, web):
    async def dripping(_request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        for _ in range(600):
            writer.write(b"drip ")
            await writer.drain()
            await asyncio.sleep(0.05)

    result, _ = request_to(dripping, settings={"timeout_s": 0.5})
    assert "drip drip" in result.text
    assert "no more came within 0.5 s" in result.text
    assert result.is_error


def test_a_cut_stream_is_said(request_to, web):
    cut = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf of"
    result, _ = request_to(web.answers(cut))
    assert "the connection broke after 7 bytes" in result.text
    assert "half of" in result.text
    assert result.is_error
    whole, _ = request_to(web.answers(cut.replace(b"100", b"7")))
    assert "broke" not in whole.text


def test_a_bomb_is_cut_while_it_streams(request_to, web):
    packed = gzip.compress(b"A" * 30_000_000)
    bomb = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\n\r\n" + packed
    result, _ = request_to(web.answers(bomb), settings={"max_response_bytes": 100_000})
    assert "longer than 100000 bytes" in result.text
    assert len(result.text) <= MAX_RESULT_CHARS
    assert result.facts["bytes"] == 100_000
    small = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"small")
    assert request_to(web.answers(small))[0].text.endswith("small")


def test_an_endless_answer_is_cut(request_to, web):
    async def endless(_request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    result, _ = request_to(endless)
    assert "longer than 1048576 bytes" in result.text


def test_big_headers_are_an_error_not_a_flood(request_to, web):
    big = b"HTTP/1.1 200 OK\r\n" + b"X-Big: " + b"a" * 300_000 + b"\r\nContent-Length: 0\r\n\r\n"
    result, _ = request_to(web.answers(big))
    assert "no HTTP" in result.text
    assert len(result.text) < 300
    many = b"HTTP/1.1 200 OK\r\n" + b"X-Small: a\r\n" * 100 + b"Content-Length: 0\r\n\r\n"
    assert request_to(web.answers(many))[0].text.startswith("HTTP 200 OK")


@pytest.mark.parametrize("junk", [b"", b"junk\r\n\r\n", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"])
def test_junk_is_an_error(request_to, web, junk):
    result, _ = request_to(web.answers(junk))
    assert result.is_error
    assert result.text.startswith("Error:")


def test_a_certificate_for_another_name_or_by_another_authority_is_refused(request_to, web, files):
    async def walk(host, ca):
        async with web.serving(web.answers(web.ok(b"secret")), files) as seen:
            settings = {"hosts": [f"{host}:443"], "resolve": {f"{host}:443": f"127.0.0.1:{seen.port}"}, **ca}
            plan = registry.vet({"adapters": Adapters(settings)})
            call = make_call("http.request", {"method": "GET", "url": f"https://{host}/"})
            return await dispatch.execute(plan, call, ()), seen.requests

    for host, ca in (("other.example.test", {"ca_file": str(files[0])}), (web.name, {})):
        result, seen = asyncio.run(walk(host, ca))
        assert "its certificate is not accepted" in result.text
        assert seen == []
    assert asyncio.run(walk(web.name, {"ca_file": str(files[0])}))[0].text.endswith("secret")


def test_a_name_that_resolves_to_loopback_is_refused(request_to, web):
    async def rebinding(_name, _port):
        return ["127.0.0.1"]

    result, seen = request_to(web.answers(web.ok(b"x")), settings={"resolve": {}}, resolver=rebinding)
    assert "not public" in result.text
    assert seen == []
    assert request_to(web.answers(web.ok(b"x")), resolver=rebinding)[0].text.endswith("x")


def test_the_environment_changes_nothing(request_to, web, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setenv("NO_PROXY", "")
    assert request_to(web.answers(web.ok(b"direct")))[0].text.endswith("direct")


def test_a_host_that_is_away_is_said(request_to, web):
    result, _ = request_to(web.answers(b""), settings={"resolve": {f"{web.name}:443": "127.0.0.1:9"}})
    assert "can't connect to api.example.test:443" in result.text
    assert result.is_error


def test_a_cancelled_request_ends_at_once(web, files):
    async def walk():
        connected = asyncio.Event()

        async def silent(_request, _writer):
            connected.set()
            await asyncio.sleep(60)

        async with web.serving(silent, files) as seen:
            host = f"{web.name}:443"
            settings = {"hosts": [host], "resolve": {host: f"127.0.0.1:{seen.port}"}, "ca_file": str(files[0])}
            plan = registry.vet({"adapters": Adapters(settings)})
            call = make_call("http.request", {"method": "GET", "url": f"https://{web.name}/"})
            task = asyncio.create_task(dispatch.execute(plan, call, ()))
            await connected.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(walk())


def test_tickets_and_other_tools_are_refused():
    plugin = Adapters({})
    ticket = Ticket("tkt_1", "dec_1", "http", {}, {}, 0, "")
    with pytest.raises(AdapterError):
        asyncio.run(plugin.execute_tool_call(make_call("http.request"), (ticket,)))
    with pytest.raises(AdapterError):
        asyncio.run(plugin.execute_tool_call(make_call("mail.send"), ()))
    nothing = asyncio.run(plugin.execute_tool_call(make_call("http.request", {}), ()))
    assert nothing.text.startswith("Refused: the method must be one of")
