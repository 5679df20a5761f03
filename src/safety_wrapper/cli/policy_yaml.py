"""YAML for authors, made strict: one reading only, with the line of everything.

Parsing is PyYAML's C parser; only its events are used. What it would expand, guess or merge is refused: anchors,
aliases, tags, directives, merge keys, more than one document, duplicate keys, keys that are no text. Plain scalars
follow YAML 1.2 where that is what people mean, and are refused where 1.1 and 1.2 disagree: quote them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
_MAX_INT: Final = 2**53 - 1
_INT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]+)?")
#: What YAML 1.1 takes for a number or a truth value and 1.2 does not, or the other way round.
_AMBIGUOUS: Final = re.compile(
    r"(?i:y|n|yes|no|on|off|true|false|null)|=|<<|"
    r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|"  # sixty-based numbers, times
    r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[oO]?[0-9_]+|0[bB][01_]+)|"
    r"[-+]?[0-9][0-9_]*|[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|"
    r"[-+]?\.(?i:inf|nan)"
)


class YamlRefusedError(Exception):
    """The text is not YAML as we take it. ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(slots=True)
class Document:
    """One parsed file: its value, and the line on which each part of it stands, by its path from the top."""

    value: Any
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)


def parse_yaml(data: bytes) -> Document:
    """Read one file. Raises YamlRefusedError with the line. O(len(data))."""
    if len(data) > MAX_FILE_BYTES:
        raise YamlRefusedError(1, "the file is longer than 1 MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise YamlRefusedError(data.count(b"\n", 0, exc.start) + 1, "not UTF-8") from exc
    _refuse_hidden(text)
    document = Document(None)
    events = yaml.parse(text, Loader=yaml.CSafeLoader)
    try:
        _document(events, document)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise YamlRefusedError(line, f"not YAML: {exc.problem}") from exc
    except yaml.YAMLError as exc:
        raise YamlRefusedError(1, "not YAML") from exc
    return document


def _refuse_hidden(text: str) -> None:
    """Characters that hide or reorder what a reviewer sees; in a quoted text they can be written as escapes."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.isascii() or not line.isprintable():
            for char in line.removesuffix("\r"):
                if char != "\t" and unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}:
                    raise YamlRefusedError(number, f"a hidden character; write it as \\u{ord(char):04x} in quotes")


def _document(events: Iterator[Any], document: Document) -> None:
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if event.version or event.tags:
                raise YamlRefusedError(_line(event), "directives are not admitted")
            break
    else:
        raise YamlRefusedError(1, "the file is empty")
    document.value = _node(events, next(events), (), document.lines)
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            raise YamlRefusedError(_line(event), "a second document")


def _node(events: Iterator[Any], event: Any, path: tuple[str | int, ...], lines: dict[Any, int]) -> Any:
    line = lines[path] = _line(event)
    if len(path) >= MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
        raise YamlRefusedError(line, f"nested deeper than {MAX_DEPTH}")
    if isinstance(event, yaml.AliasEvent):
        raise YamlRefusedError(line, "aliases are not admitted")
    if event.anchor is not None:
        raise YamlRefusedError(line, "anchors are not admitted")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event, line)
    if event.tag is not None:
        raise YamlRefusedError(line, "tags are not admitted")
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(events, event, (*path, len(items)), lines))
        return items
    mapping: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _key(event)
        if key in mapping:
            raise YamlRefusedError(_line(event), f"{key!r} stands here twice")
        value_event = next(events)
        mapping[key] = _node(events, value_event, (*path, key), lines)
        lines[(*path, key)] = _line(event)
    return mapping


def _key(event: Any) -> str:
    line = _line(event)
    if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
        raise YamlRefusedError(line, "a key must be plain text, without anchor or alias")
    key = _scalar(event, line)
    if not isinstance(key, str):
        raise YamlRefusedError(line, "a key must be text; quote it")
    return key


def _scalar(event: Any, line: int) -> Any:
    # libyaml says "!" or a full name for an explicit tag; implicit[0] is True for plain scalars without one
    if event.tag is not None:
        raise YamlRefusedError(line, "tags are not admitted")
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in {"", "~", "null"}:
        return None
    if text in {"true", "false"}:
        return text == "true"
    if _INT.fullmatch(text):
        if len(text) > 17 or abs(int(text)) > _MAX_INT:
            raise YamlRefusedError(line, "an integer of 2^53 or more")
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise YamlRefusedError(line, "a number that is not finite")
        return number
    if _AMBIGUOUS.fullmatch(text):
        raise YamlRefusedError(line, f"{text!r} means different things to different parsers; quote it")
    return text


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
