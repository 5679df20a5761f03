"""From parameters to one exact request. Each refusal beside the same request without its cause."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sw_adapters.request import METHODS, RequestError, read_request
from sw_adapters.settings import read_settings

LISTED = read_settings(
    {"hosts": ["api.example.com:443", "api.example.com:8443", "http://intranet.example:8080", "[::1]:443"]}
)
GOOD = {"method": "GET", "url": "https://api.example.com/v1/things?limit=2&q=a%20b"}


# fmt: off
NOT_THE_MODELS = [
    "Host", "host", "Cookie", "AUTHORIZATION", "Proxy-Authorization", "Connection", "Keep-Alive", "TE", "Trailer",
    "Transfer-Encoding", "Upgrade", "Content-Length", "Expect", "Accept-Encoding", "X-HTTP-Method-Override",
    "X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via", "X-Original-URL", "Sec-Fetch-Site", "Proxy-Connection",
]
# fmt: on


def ask(**changes):
    return read_request({**GOOD, **changes}, LISTED)


def test_a_good_request_goes_on_the_wire_as_it_is_written():
    request = ask()
    assert (request.method, request.target) == ("GET", "/v1/things?limit=2&q=a%20b")
    assert request.authority == "api.example.com"
    assert ask(url="https://api.example.com:8443").authority == "api.example.com:8443"
    assert ask(url="https://api.example.com").target == "/"
    assert ask(url="https://api.example.com?x=1").target == "/?x=1"
    assert ask(url="http://intranet.example:8080/a//b").target == "/a//b"
    assert ask(url="https://[::1]/").host.address is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example.com/",
        "https://api.example.com:444/",
        "http://api.example.com:443/",
        "https://intranet.example:8080/",
        "https://api.example.com.evil.example/",
        "https://api.example.com@evil.example/",
        "https://evil.example#@api.example.com/",
        "https://evil.example\\@api.example.com/",
        "https://user:pass@api.example.com/",
        "https://api.example.com/#fragment",
        "https://API.example.com/",
        "HTTPS://api.example.com/",
        "https://api.example.com./",
        "https://api.example.com:0443/",
        "https://api.example.com:/",
        "https:api.example.com/",
        "//api.example.com/",
        "file:///etc/passwd",
        "https://api.example.com/a b",
        "https://api.example.com/a\r\nX: y",
        "https://api.example.com/\u00e9",
        "https://api.example.com/%zz",
        "https://api.example.com/a/../b",
        "https://api.example.com/a/%2E%2e/b",
        "https://api.example.com/..",
        "https://\uff41pi.example.com/",
        "https://api.example.com/" + "a" * 9000,
        "",
        None,
        7,
    ],
)
def test_any_other_url_is_refused(url):
    with pytest.raises(RequestError):
        ask(url=url)


def test_a_refused_host_is_told_what_is_listed():
    with pytest.raises(RequestError, match=r"other\.example:443 is not on the list .*intranet\.example:8080"):
        ask(url="https://other.example/")


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "get", "GET / HTTP/1.1\r\nX: y", "", None, "PROPFIND"])
def test_any_other_method_is_refused(method):
    with pytest.raises(RequestError, match="method"):
        ask(method=method)


@pytest.mark.parametrize("method", METHODS)
def test_the_listed_methods_pass(method):
    assert ask(method=method).method == method


@pytest.mark.parametrize("name", NOT_THE_MODELS)
def test_headers_that_are_not_the_models_are_refused(name):
    with pytest.raises(RequestError, match="not yours to set"):
        ask(headers={name: "x"})


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nCookie: b"},
        {"X-A": "a\nb"},
        {"X-A": "a\x00"},
        {"X-A": " a"},
        {"X-A": "caf\u00e9"},
        {"X-A": 7},
        {"X-A": "a" * 9000},
        {"X A": "a"},
        {"X-A:": "a"},
        {"X-A\r\nCookie": "a"},
        {"": "a"},
        {"X-A": "a", "x-a": "b"},
        {f"X-{i}": "a" for i in range(65)},
        ["X-A: a"],
        None,
    ],
)
def test_headers_that_could_become_others_are_refused(headers):
    with pytest.raises(RequestError, match="header"):
        ask(headers=headers)


def test_other_headers_pass_as_they_are():
    headers = {"Accept": "application/json", "X-Request-Id": "a b\tc", "X-Empty": ""}
    assert ask(headers=headers).headers == tuple(headers.items())


def test_a_body_needs_a_method_that_takes_one():
    with pytest.raises(RequestError, match="takes no body"):
        ask(body="x")
    request = ask(method="POST", body="h\u00e9")
    assert request.body == "h\u00e9".encode()
    assert request.headers == (("content-type", "text/plain; charset=utf-8"),)
    assert ask(method="POST", body="{}", headers={"Content-Type": "application/json"}).headers == (
        ("Content-Type", "application/json"),
    )
    with pytest.raises(RequestError, match="must be text"):
        ask(method="POST", body=b"x")
    with pytest.raises(RequestError, match="surrogate"):
        ask(method="POST", body="\ud800")


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(max_size=60), st.sampled_from(["https://api.example.com", "https://", "http://", ""]))
def test_no_text_reaches_a_host_that_is_not_listed(tail, head):
    try:
        request = ask(url=head + tail)
    except RequestError:
        return
    assert (request.host.scheme, request.host.name, request.host.port) in LISTED.hosts
    assert request.target.isascii()
    assert request.target.isprintable()
    assert " " not in request.target
