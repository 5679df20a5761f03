"""From a server's answer to the text that the model reads: bounded while it comes, bounded when it is shown. Pure."""

from __future__ import annotations

import codecs
import hashlib
import re
import zlib
from dataclasses import dataclass, field
from typing import Final

from safety_wrapper.model import MAX_RESULT_CHARS, ToolResult

#: What is worth the model's attention. Cookies are credentials and not among it.
SHOWN: Final = (
    "content-type",
    "content-length",
    "content-range",
    "location",
    "link",
    "etag",
    "last-modified",
    "retry-after",
    "allow",
    "www-authenticate",
)
_MAX_SHOWN_VALUE: Final = 500
_TEXT_TYPE: Final = re.compile(
    r"text/|application/(?:[a-z0-9.+-]+\+)?(?:json|xml|javascript|yaml|x-ndjson)\b|.*form-urlenc"
)
_CHARSET: Final = re.compile(r"charset=\"?([A-Za-z0-9._-]{1,40})", re.IGNORECASE)
#: Python knows more codecs than those of text.
_CHARSETS: Final = frozenset({"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16", "shift_jis", "euc_jp"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Body:
    """Collects a body up to ``limit`` bytes, undoing gzip or deflate within the same limit."""

    def __init__(self, limit: int, encoding: str = "") -> None:
        self._limit = limit
        self._received = 0
        self.data = bytearray()
        self.full = False
        self.damaged = False
        self.encoding = "" if encoding in {"", "identity", "gzip", "x-gzip", "deflate"} else encoding
        bits = {"gzip": 31, "x-gzip": 31, "deflate": 15}.get(encoding)
        self._unpack = zlib.decompressobj(bits) if bits else None

    def feed(self, chunk: bytes) -> bool:
        """Take what came; False when no more is wanted. Memory stays within the limit, whatever the chunk holds."""
        self._received += len(chunk)
        room = self._limit - len(self.data)
        if self._unpack is not None:
            try:
                chunk = self._unpack.decompress(chunk, room + 1)
            except zlib.error:
                self.damaged = True
                return False
        self.data += chunk[:room]
        self.full = len(chunk) > room or self._received > self._limit
        return not self.full


@dataclass(slots=True)
class Answer:
    """A server's answer as far as it came. ``cut`` says why it did not come to its end; empty = it did."""

    status: int
    phrase: str
    headers: tuple[tuple[str, str], ...]
    body: Body
    cut: str = ""
    notes: list[str] = field(default_factory=list)


def render(answer: Answer) -> ToolResult:
    """The result: status line, chosen headers, body; at most MAX_RESULT_CHARS characters, cuts said in the text."""
    headers = {name.lower(): value for name, value in reversed(answer.headers)}
    lines = [f"HTTP {answer.status} {_printable(answer.phrase, 60)}".rstrip()]
    lines += [f"{name}: {_printable(headers[name], _MAX_SHOWN_VALUE)}" for name in SHOWN if name in headers]
    notes = list(answer.notes)
    if answer.status in _REDIRECTS:
        notes.append("redirects are not followed; ask for the location yourself, if its host is listed")
    if answer.body.damaged:
        notes.append("the body's compression is damaged; this is what could be read")
    if answer.body.full:
        notes.append(f"the answer is longer than {len(answer.body.data)} bytes; the rest was not read")
    if answer.cut:
        notes.append(answer.cut)
    head = "\n".join([*lines, *(f"[{note}]" for note in notes)]) + "\n\n"
    text = _text(headers.get("content-type", ""), answer.body)
    room = MAX_RESULT_CHARS - len(head)
    dropped = ""
    if len(text) > room:
        mark = "\n[cut here: the body has {} more characters]"
        kept = room - len(mark) - 8
        text, dropped = text[:kept] + mark.format(len(text) - kept), text[kept:]
    failed = bool(answer.cut) or answer.body.damaged or answer.status >= 400
    return ToolResult(
        (head + text).rstrip("\n"),
        is_error=failed,
        truncated_bytes=len(dropped.encode("utf-8")),
        facts={"status": answer.status, "bytes": len(answer.body.data)},
    )


def _text(content_type: str, body: Body) -> str:
    data = bytes(body.data)
    if not data:
        return ""
    if body.encoding:
        return _described(f"encoded as {_printable(body.encoding, 40)}", data)
    if not _TEXT_TYPE.match(content_type.lower()) and not _looks_like_text(data, cut=body.full):
        return _described(_printable(content_type, 100) or "of no stated type", data)
    named = _CHARSET.search(content_type)
    return data.decode(_charset(named[1] if named else "utf-8"), errors="replace")


def _described(what: str, data: bytes) -> str:
    return f"[binary body, {what}, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}; not shown]"


def _looks_like_text(data: bytes, *, cut: bool) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=not cut)
    except UnicodeDecodeError:
        return False
    return "\x00" not in text


def _charset(name: str) -> str:
    try:
        known = codecs.lookup(name).name
    except LookupError:
        return "utf-8"
    return known if known in _CHARSETS else "utf-8"


def _printable(text: str, longest: int) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
