"""tree-sitter first: it survives anything, so its tree decides whether the second parser may see the text at all.

The second parser (brush) recurses without a bound and takes exponential time on some broken nestings (measured: 22 open
brackets, 15 nested ``case``). A text that tree-sitter finds broken or nested deeply never reaches it.
"""

from __future__ import annotations

import re
from typing import Final

import tree_sitter
import tree_sitter_bash

from sw_classification.shell.nodes import Tokens

MAX_DEPTH: Final = 40
MAX_CASES: Final = 6
MAX_BRACKETS: Final = 10
#: Work that the first parser may do on broken input before it is stopped (its own steps).
_LANGUAGE: Final = tree_sitter.Language(tree_sitter_bash.language())
_PARSER: Final = tree_sitter.Parser(_LANGUAGE)
_NON_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_BRACKETS: Final = re.compile(r"(?:[({]\s*){%d}" % (MAX_BRACKETS + 1))
#: What makes the first parser slow (quadratic) on broken text.
_HEAVY: Final = re.compile(r"(?:=\s*\(\s*\w*){8}|(?:<<[^<\n]{0,40}){40}")

_EXPANSIONS: Final = {
    "command_substitution": "c",
    "process_substitution": "p",
    "expansion": "e",
    "arithmetic_expansion": "a",
    "simple_expansion": "s",
}
_COMPOUND: Final = frozenset(
    """compound_statement subshell if_statement while_statement for_statement c_style_for_statement case_statement
    function_definition do_group test_command parenthesized_expression arithmetic_expansion expansion
    command_substitution process_substitution concatenation string array""".split()
)
_WORDS: Final = frozenset(
    """word string raw_string ansi_c_string translated_string concatenation number simple_expansion expansion
    command_substitution arithmetic_expansion variable_name brace_expression extglob_pattern regex special_variable_name
    process_substitution variable_assignment subscript array""".split()
)


class Unreadable(Exception):  # noqa: N818 - not an error: an answer
    """The parsers can't read the text, or not safely. Its only argument is the reason, a fixed text."""


class Surface:
    """What tree-sitter says of one text."""

    __slots__ = ("cases", "has_dollar", "spans", "text", "tokens")

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = Tokens()
        self.spans: dict[int, tuple[int, str]] = {}
        self.cases = 0
        self.has_dollar = "$" in text or "`" in text or "<(" in text or ">(" in text


def read_surface(text: str) -> Surface:
    """Parse ``text`` with tree-sitter and collect its surface. Raises Unreadable. Offsets are characters."""
    if _BRACKETS.search(text) or _HEAVY.search(text):
        raise Unreadable("its brackets are nested too deeply")
    # a character outside ASCII is one placeholder, so that offsets count characters as the other parser does
    plain = text if text.isascii() else _NON_ASCII.sub(".", text)
    root = _PARSER.parse(plain.encode("ascii")).root_node
    if root.has_error:
        raise Unreadable("its syntax can't be read for sure")
    surface = Surface(text)
    _statements(root, surface, 0)
    if surface.cases > MAX_CASES:
        raise Unreadable("its brackets are nested too deeply")
    return surface


def _statements(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Unreadable("its brackets are nested too deeply")
    for child in node.children:
        kind = child.type
        if kind == "command":
            _command(child, surface, depth)
        elif kind in _READERS:
            _READERS[kind](child, surface, depth + 1)
        elif kind in _WORDS:
            # values of for and case; a function's name is no word
            field = node.type
            if field in {"for_statement", "case_statement"} and kind != "variable_name":
                surface.tokens.words.add((child.start_byte, child.end_byte))
            _expansions(child, surface, depth)
        elif child.child_count:
            _statements(child, surface, depth + 1)


def _command(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    tokens = surface.tokens
    words: list[tree_sitter.Node] = []
    for child in node.children:
        kind = child.type
        if kind == "command_name":
            words.append(child)
        elif kind in {"file_redirect", "herestring_redirect", "heredoc_redirect"}:
            _redirect(child, surface, depth)
            continue
        elif kind == "subshell":
            raise Unreadable("its syntax can't be read for sure")
        elif kind == "variable_assignment":
            tokens.words.add((child.start_byte, child.end_byte))
        else:
            words.append(child)
        if surface.has_dollar and child.child_count:
            _expansions(child, surface, depth)
    spans = _joined(words, surface.text)
    # `time` is a word of the grammar for one parser and a command for the other
    while spans and surface.text[spans[0][0] : spans[0][1]] == "time":
        spans.pop(0)
        while spans and surface.text[spans[0][0] : spans[0][1]] in {"-p", "!", "--"}:
            spans.pop(0)
    if spans:
        tokens.names.add(spans[0])
        tokens.words.update(spans[1:])


def _joined(nodes: list[tree_sitter.Node], text: str) -> list[tuple[int, int]]:
    """Spans of words; nodes that touch (``$"…"``, ``a$``) are one word."""
    spans: list[tuple[int, int]] = []
    for node in nodes:
        start, end = node.start_byte, node.end_byte
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _declaration(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    spans = _joined(list(node.children), surface.text)
    surface.tokens.names.add(spans[0])
    surface.tokens.words.update(spans[1:])
    for child in node.children:
        _expansions(child, surface, depth)


def _test(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    first = node.children[0]
    if first.type == "[":
        surface.tokens.names.add((first.start_byte, first.end_byte))
    _expansions(node, surface, depth)


def _assignment(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    surface.tokens.words.add((node.start_byte, node.end_byte))
    _expansions(node, surface, depth)


def _redirect(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    if node.type == "heredoc_redirect":
        surface.tokens.heredocs += 1
        for child in node.children:
            if child.type == "heredoc_body":
                _expansions(child, surface, depth)
            elif child.type in {"heredoc_start", "heredoc_end"}:
                continue
            elif child.type == "command":
                _command(child, surface, depth)
            elif child.type in _READERS:
                _READERS[child.type](child, surface, depth + 1)
            elif child.type in _WORDS:
                surface.tokens.words.add((child.start_byte, child.end_byte))
                _expansions(child, surface, depth)
            elif child.child_count:
                _statements(child, surface, depth + 1)
        return
    targets = [c for c in node.children if c.type in _WORDS]
    surface.tokens.words.update(_joined(targets, surface.text))
    for child in targets:
        _expansions(child, surface, depth)


def _function(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    for child in node.children:
        if child.type in _READERS:
            _READERS[child.type](child, surface, depth + 1)
        elif child.type not in _WORDS and child.child_count:
            _statements(child, surface, depth + 1)


def _case(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    surface.cases += 1
    _statements(node, surface, depth)


def _case_item(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    for child in node.children:
        if child.type in _WORDS:
            _expansions(child, surface, depth)
        elif child.type == "command":
            _command(child, surface, depth)
        elif child.type in _READERS:
            _READERS[child.type](child, surface, depth + 1)
        elif child.child_count:
            _statements(child, surface, depth + 1)


def _arithmetic_group(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    if node.children and node.children[0].type == "((":
        _expansions(node, surface, depth)
    else:
        _statements(node, surface, depth)


def _c_style_for(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    for child in node.children:
        if child.type in {"do_group", "compound_statement"}:
            _statements(child, surface, depth + 1)
        else:
            _expansions(child, surface, depth)


def _expansions(node: tree_sitter.Node, surface: Surface, depth: int) -> None:
    """Where expansions stand inside a word. What is inside a substitution is another unit's matter."""
    if depth > MAX_DEPTH:
        raise Unreadable("its brackets are nested too deeply")
    letter = _EXPANSIONS.get(node.type)
    if letter is not None:
        surface.spans[node.start_byte] = (node.end_byte, letter)
        if letter in "cp":
            return
    for child in node.children:
        if child.child_count or child.type in _EXPANSIONS:
            _expansions(child, surface, depth + 1)


_READERS: Final = {
    "command": _command,
    "declaration_command": _declaration,
    "unset_command": _declaration,
    "test_command": _test,
    "variable_assignment": _assignment,
    "file_redirect": _redirect,
    "herestring_redirect": _redirect,
    "heredoc_redirect": _redirect,
    "function_definition": _function,
    "case_statement": _case,
    "case_item": _case_item,
    "compound_statement": _arithmetic_group,
    "c_style_for_statement": _c_style_for,
}
