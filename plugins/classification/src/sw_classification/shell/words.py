"""What a word of a command becomes: quotes removed, known variables put in, everything unknown as a marker."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import brush_parser as brush

from sw_classification.shell.parse import NotUnderstoodError
from sw_classification.symbolic import ONE, STAR, UNKNOWN

MAX_FIELDS: Final = 256
_BRACE: Final = re.compile(r"\{([^{}]*,[^{}]*|[^{}]+\.\.[^{}]+)\}")
_CLASS: Final = re.compile(r"\[[^\]/]+\]")
_RANGE: Final = re.compile(r"(-?\d{1,4})\.\.(-?\d{1,4})|([a-zA-Z])\.\.([a-zA-Z])")


@dataclass(slots=True)
class Expansion:
    """The fields that a word becomes and the commands that run while it does. ``unsplit``: text of a variable that
    may be several words stands in it unquoted."""

    fields: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    unsplit: bool = False


def expand(word: str, variables: dict[str, str], home: str) -> Expansion:
    """Expand one word. Raises NotUnderstoodError."""
    found = Expansion()
    texts: list[str] = []
    for one in _braces(word):
        text = _Text(variables, home, found)
        text.pieces(_pieces(one), quoted=False)
        texts.append("".join(text.out))
    if len(texts) > MAX_FIELDS:
        raise NotUnderstoodError("the command expands to too many words")
    found.fields = texts
    return found


@lru_cache(maxsize=4096)
def _pieces(word: str) -> tuple[Any, ...]:
    try:
        return brush.parse_word(word)
    except (brush.WordParseError, brush.ParseError, ValueError, RecursionError) as exc:
        raise NotUnderstoodError("a word of the command can't be read with certainty") from exc


def _braces(word: str) -> list[str]:
    """Brace expansion of the unquoted kind; a word with quotes and braces is left to the marker of a glob."""
    if "{" not in word or any(char in word for char in "'\"\\$`"):
        return [word]
    match = _BRACE.search(word)
    if match is None:
        return [word]
    inner = match[1]
    if "," in inner:
        options = inner.split(",")
    else:
        span = _RANGE.fullmatch(inner)
        if span is None:
            return [word]
        low, high = (int(span[1]), int(span[2])) if span[1] else (ord(span[3]), ord(span[4]))
        if abs(high - low) > MAX_FIELDS:
            raise NotUnderstoodError("the command expands to too many words")
        steps = range(low, high + 1) if low <= high else range(low, high - 1, -1)
        options = [str(n) if span[1] else chr(n) for n in steps]
    found: list[str] = []
    for option in options:
        found.extend(_braces(word[: match.start()] + option + word[match.end() :]))
        if len(found) > MAX_FIELDS:
            raise NotUnderstoodError("the command expands to too many words")
    return found


class _Text:
    """Collects the text of one word."""

    def __init__(self, variables: dict[str, str], home: str, found: Expansion) -> None:
        self.out: list[str] = []
        self._variables = variables
        self._home = home
        self._found = found

    def pieces(self, pieces: tuple[Any, ...], *, quoted: bool) -> None:
        for each in pieces:
            self._piece(each.piece, quoted=quoted)

    def _piece(self, piece: Any, *, quoted: bool) -> None:
        kind = type(piece).__name__.rpartition(".")[2]
        take: Callable[[Any, bool], None] | None = getattr(self, f"_{kind}", None)
        if take is None:
            self._unknown(quoted)
        else:
            take(piece, quoted)

    def _unknown(self, quoted: bool) -> None:
        self.out.append(UNKNOWN)
        if not quoted:
            self._found.unsplit = True

    def _Text(self, piece: Any, quoted: bool) -> None:  # noqa: N802 - named after brush's own class
        self.out.append(piece.text if quoted else _globs(piece.text))

    def _SingleQuotedText(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        self.out.append(piece.text)

    def _AnsiCQuotedText(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        self.out.append(ansi_c(piece.text))

    def _DoubleQuotedSequence(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        self.pieces(piece.pieces, quoted=True)

    def _GettextDoubleQuotedSequence(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        self.pieces(piece.pieces, quoted=True)

    def _EscapeSequence(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        text = piece.text[1:]
        if text == "\n":
            return
        self.out.append(text if not quoted or text in {"$", "`", '"', "\\"} else piece.text)

    def _TildeExpansion(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        home = type(piece.expr).__name__.rpartition(".")[2] == "Home"
        self.out.append(self._home if home else UNKNOWN)

    def _ParameterExpansion(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        expr = piece.expr
        parameter = getattr(expr, "parameter", None)
        name = getattr(parameter, "name", None)
        if "Transform" in type(expr).__name__:
            raise NotUnderstoodError("a variable's text is transformed, which may run it")
        plain = type(expr).__name__.rpartition(".")[2] == "Parameter" and not expr.indirect
        value = self._variables.get(name) if isinstance(name, str) else None
        for text in (getattr(expr, attribute, None) for attribute in getattr(expr, "__match_args__", ())):
            if isinstance(text, str) and ("$(" in text or "`" in text or "<(" in text):
                raise NotUnderstoodError("a command runs inside the expansion of a variable")
        if not plain or value is None:
            return self._unknown(quoted)
        if not quoted and (UNKNOWN in value or any(char in value for char in " \t\n*?[")):
            self._found.unsplit = True
        self.out.append(value)
        return None

    def _CommandSubstitution(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        self._found.commands.append(piece.command)
        self._unknown(quoted)

    def _BackquotedCommandSubstitution(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        self._found.commands.append(re.sub(r"\\([\\`$])", r"\1", piece.command))
        self._unknown(quoted)

    def _ArithmeticExpression(self, piece: Any, quoted: bool) -> None:  # noqa: N802
        if any(_runs(value) for value in self._variables.values()):
            raise NotUnderstoodError("arithmetic may run what a variable holds")
        if "$(" in piece.expr.value or "`" in piece.expr.value or "[" in piece.expr.value:
            raise NotUnderstoodError("a command may run inside arithmetic")
        self._unknown(quoted)


def _runs(text: str) -> bool:
    """Whether a text would run something where it is evaluated again."""
    return "$(" in text or "`" in text or "<(" in text


def ansi_c(text: str) -> str:
    r"""The text of ``$'…'``: ``\x72`` is an ``r``."""
    try:
        return codecs.decode(text.replace("\\e", "\\x1b").replace("\\'", "'"), "unicode_escape")
    except (UnicodeDecodeError, ValueError):
        return UNKNOWN


def _globs(text: str) -> str:
    if not any(char in text for char in "*?["):
        return text
    return _CLASS.sub(ONE, text).replace("*", STAR).replace("?", ONE)
