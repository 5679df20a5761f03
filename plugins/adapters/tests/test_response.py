"""What the model reads of an answer."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sw_adapters.response import Answer, Body, render

from safety_wrapper.model import MAX_RESULT_CHARS


def answer(data=b"", *, status=200, phrase="OK", limit=1 << 20, encoding="", **headers):
    body = Body(limit, encoding)
    body.feed(data)
    return Answer(status, phrase, tuple((k.replace("_", "-"), v) for k, v in headers.items()), body)


def test_status_chosen_headers_and_body():
    result = render(answer(b'{"a":1}', content_type="application/json", set_cookie="id=1", server="x", etag='"7"'))
    assert result.text == 'HTTP 200 OK\ncontent-type: application/json\netag: "7"\n\n{"a":1}'
    assert (result.is_error, result.truncated_bytes, result.facts) == (False, 0, {"status": 200, "bytes": 7})


def test_an_error_status_is_an_error():
    assert render(answer(b"no", status=404, phrase="Not Found")).is_error
    assert not render(answer(b"yes", status=201, phrase="Created")).is_error


def test_a_redirect_is_reported_not_followed():
    result = render(answer(status=302, phrase="Found", location="https://evil.example/"))
    assert "location: https://evil.example/" in result.text
    assert "redirects are not followed" in result.text


def test_a_long_body_is_cut_and_the_cut_is_said():
    result = render(answer(b"x" * 20_000, content_type="text/plain"))
    assert len(result.text) <= MAX_RESULT_CHARS
    assert "[cut here: the body has" in result.text
    shown = result.text.count("x") - result.text.count("text")
    assert result.truncated_bytes == 20_000 - shown
    short = render(answer(b"x" * 1000, content_type="text/plain"))
    assert (short.truncated_bytes, "cut here" in short.text) == (0, False)


@pytest.mark.parametrize(
    ("data", "content_type"),
    [(b"\x89PNG\r\n\x1a\n\x00", "image/png"), (b"\xff\xfe\x00", ""), (b"a\x00b", "application/octet-stream")],
)
def test_a_binary_body_is_described(data, content_type):
    result = render(answer(data, content_type=content_type))
    assert "[binary body" in result.text
    assert "\x00" not in result.text


def test_text_without_a_type_is_shown():
    assert render(answer("h\u00e9".encode())).text.endswith("h\u00e9")
    assert render(answer("h\u00e9".encode()[:2], limit=1)).text.endswith("h")


def test_charsets_are_those_of_text():
    assert render(answer(b"h\xe9", content_type="text/plain; charset=latin-1")).text.endswith("h\u00e9")
    for name in ("rot13", "zlib", "idna", "no-such", "punycode"):
        assert render(answer(b"abc", content_type=f"text/plain; charset={name}")).text.endswith("abc")


def test_a_bomb_is_cut_at_the_limit():
    bomb = gzip.compress(b"\x00" * 50_000_000)
    body = Body(1000, "gzip")
    assert not body.feed(bomb)
    assert (len(body.data), body.full) == (1000, True)
    harmless = Body(1000, "gzip")
    assert harmless.feed(gzip.compress(b"a" * 1000))
    assert (bytes(harmless.data), harmless.full) == (b"a" * 1000, False)


def test_unpacking_that_gives_nothing_is_bounded_too():
    body = Body(1000, "deflate")
    packer = zlib.compressobj()
    while body.feed(packer.compress(b"") + packer.flush(zlib.Z_SYNC_FLUSH)):
        pass
    assert body.full
    assert len(body.data) == 0


def test_damaged_and_unknown_encodings_are_said():
    damaged = answer(b"not gzip", encoding="gzip")
    assert "compression is damaged" in render(damaged).text
    unknown = answer(b"\x1b\x00", encoding="br", content_type="text/html")
    assert "encoded as br" in render(unknown).text


def test_odd_headers_can_not_add_lines():
    result = render(answer(b"", phrase="OK\r\nevil: 1", content_type="a\nb", location="x" * 5000, status=301))
    assert "\nevil" not in result.text
    assert "content-type: a?b" in result.text
    assert all(len(line) < 600 for line in result.text.splitlines())


@settings(max_examples=200, deadline=None, database=None)
@given(st.binary(max_size=3000), st.text(max_size=80), st.sampled_from(["", "gzip", "deflate", "br", "gzip, gzip"]))
def test_every_answer_has_a_bounded_text(data, content_type, encoding):
    result = render(answer(data, content_type=content_type, encoding=encoding, limit=1000))
    assert len(result.text) <= MAX_RESULT_CHARS
    result.text.encode("utf-8")
