"""A shell text read by two independent parsers. What only one of them understands is not understood."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import brush_parser as brush
import tree_sitter_bash
from tree_sitter import Language, Node, Parser

MAX_BYTES: Final = 64 * 1024
#: Deeper nesting than people write; both parsers recurse.
MAX_NESTING: Final = 20
_LANGUAGE: Final = Language(tree_sitter_bash.language())


class NotUnderstoodError(Exception):
    """The text can't be bounded; the message is a fixed sentence."""


@lru_cache(maxsize=512)
def parse(text: str) -> brush.Program:
    """The program, as both parsers see it. Raises NotUnderstoodError where they refuse or disagree. O(length)."""
    if len(text) > MAX_BYTES:
        raise NotUnderstoodError("the command is too long to be judged")
    if _nesting(text) > MAX_NESTING:
        raise NotUnderstoodError("the command is nested too deeply to be judged")
    data = text.encode()
    tree = Parser(_LANGUAGE).parse(data)
    if tree.root_node.has_error:
        raise NotUnderstoodError("the command is not shell that can be read with certainty")
    try:
        program = brush.parse_program(text)
    except (brush.ParseError, ValueError, RecursionError) as exc:
        raise NotUnderstoodError("the command is not shell that can be read with certainty") from exc
    if sorted(_names_of_tree(tree.root_node)) != sorted(_names_of_program(program)):
        raise NotUnderstoodError("two readings of the command differ")
    return program


def _nesting(text: str) -> int:
    """An upper bound of the nesting of brackets; quotes are not looked at, so text may count too."""
    depth = deepest = 0
    for char in text:
        if char in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")}]":
            depth -= 1
    return max(deepest, text.count("`") // 2)


def _names_of_tree(root: Node) -> list[str]:
    """The first word of every simple command outside substitutions, as written."""
    names: list[str] = []
    todo = [root]
    while todo:
        node = todo.pop()
        if node.type in {"command_substitution", "process_substitution"}:
            continue  # read again, by both, when its text is
        if node.type == "test_command" and node.children and node.children[0].type == "[":
            names.append("[")
        if node.type == "command_name" and node.text is not None:
            names.append(node.text.decode())
            continue
        todo.extend(node.children)
    return names


def _names_of_program(program: brush.Program) -> list[str]:
    names: list[str] = []
    todo: list[Any] = [program]
    while todo:
        value = todo.pop()
        if isinstance(value, tuple):
            todo.extend(value)
        elif isinstance(value, brush.SimpleCommand):
            if value.word_or_name is not None:
                names.append(value.word_or_name.value)
        elif not isinstance(value, _LEAVES) and hasattr(value, "__match_args__"):
            todo.extend(getattr(value, name) for name in value.__match_args__)
    return names


_LEAVES: Final = (str, int, brush.Word, brush.SourceSpan)
