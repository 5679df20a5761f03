"""Parameter schemas of tools are closed and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from safety_wrapper.policy.params import MAX_TEXT, param_faults


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


FREE_KEYS: dict[str, Any] = {
    "type": "object",
    "maxProperties": 5,
    "propertyNames": {"maxLength": 10},
    "additionalProperties": {"type": "string", "maxLength": 10},
}

ADMITTED: list[dict[str, Any]] = [
    schema(),
    {"type": "object", "additionalProperties": False},
    schema(a={"type": "string", "maxLength": 1, "minLength": 1, "pattern": "^a$", "description": "x", "title": "y"}),
    schema(a={"type": "string", "enum": ["a", "b"]}),
    schema(a={"type": "string", "const": "a"}),
    schema(a={"type": ["string", "null"], "maxLength": 3}),
    schema(a={"type": "integer", "minimum": 1, "maximum": 3600}, b={"type": "number"}, c={"type": "boolean"}),
    schema(a={"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 3}}),
    schema(a=FREE_KEYS),
    schema(a=schema(b={"type": "string", "maxLength": MAX_TEXT})),
    {**schema(a={"type": "integer"}), "required": ["a"]},
]

REFUSED: list[dict[str, Any]] = [
    {},
    {"type": "object"},
    {"type": "array", "maxItems": 1, "items": {"type": "integer"}},
    {"type": "object", "additionalProperties": True},
    FREE_KEYS,  # at the top every parameter has its name
    schema(a={}),
    schema(a=True),
    schema(a={"maxLength": 3}),
    schema(a={"type": "string"}),
    schema(a={"type": "string", "maxLength": MAX_TEXT + 1}),
    schema(a={"type": "string", "maxLength": -1}),
    schema(a={"type": "string", "maxLength": True}),
    schema(a={"type": "string", "maxLength": "3"}),
    schema(a={"type": ["integer", "string"]}),
    schema(a={"type": []}),
    schema(a={"type": "text", "maxLength": 3}),
    schema(a={"type": [["string"]], "maxLength": 3}),
    schema(a={"type": "array", "items": {"type": "integer"}}),
    schema(a={"type": "array", "maxItems": 3}),
    schema(a={"type": "array", "maxItems": 3, "items": {"type": "string"}}),
    schema(a={"type": "object"}),
    schema(a={"type": "object", "additionalProperties": True}),
    schema(a={key: value for key, value in FREE_KEYS.items() if key != "maxProperties"}),
    schema(a={key: value for key, value in FREE_KEYS.items() if key != "propertyNames"}),
    schema(a={**FREE_KEYS, "propertyNames": {"pattern": "^a"}}),
    schema(a={**FREE_KEYS, "propertyNames": {"type": "integer"}}),
    schema(a={**FREE_KEYS, "additionalProperties": {"type": "string"}}),
    schema(a=schema(b={"type": "string"})),
    schema(**{"a b": {"type": "integer"}}),
    schema(a={"$ref": "#"}),
    schema(a={"type": "integer", "$ref": "https://example.com/schema"}),
    schema(a={"anyOf": [{"type": "integer"}]}),
    schema(a={"type": "integer", "maxLength": 3}),
    schema(a={"type": "integer", "default": 3}),
    schema(a={"type": "string", "maxLength": 3, "pattern": "("}),
    schema(a={"type": "string", "maxLength": 3, "pattern": "(?=a)"}),
    schema(a={"type": "string", "maxLength": 3, "pattern": "(a)\\1"}),
    schema(a={"type": "integer", "minimum": "1"}),
    {**schema(a={"type": "integer"}), "required": ["b"]},
    {**schema(a={"type": "integer"}), "required": "a"},
    {**schema(), "properties": []},
    {**schema(), "$defs": {}},
    {**schema(), "allOf": []},
]  # fmt: skip


@pytest.mark.parametrize("given", ADMITTED, ids=range(len(ADMITTED)))
def test_a_closed_and_bounded_schema_is_admitted(given: dict[str, Any]) -> None:
    assert list(param_faults(given)) == []


@pytest.mark.parametrize("given", REFUSED, ids=range(len(REFUSED)))
def test_an_open_or_unbounded_schema_is_refused(given: dict[str, Any]) -> None:
    assert list(param_faults(given))
