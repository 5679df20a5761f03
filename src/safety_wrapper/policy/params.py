"""Whether a tool's parameter schema is closed and bounded, so that "what it does not admit is malformed" means much.

A small part of JSON Schema 2020-12, without references and alternatives: each object says all its keys, each text
and list says how long it may be. Providers of models take this part too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema_rs

type ParamFault = tuple[tuple[str | int, ...], str]

MAX_TEXT: Final = 1_048_576
_KEYWORDS: Final = {
    "object": {"properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"},
    "array": {"items", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set(),
    "null": set(),
}
_ALWAYS: Final = {"type", "enum", "const", "title", "description"}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def param_faults(schema: dict[str, Any]) -> Iterator[ParamFault]:
    """What is wrong with the schema of all parameters of a tool: it must be one closed object. O(size)."""
    if schema.get("type") != "object" or schema.get("additionalProperties") is not False:
        yield (), "must be a closed object: type object, additionalProperties false"
        return
    faults = list(_faults((), schema))
    yield from faults
    if not faults:
        try:
            # the linear-time engine: no look-around, no back reference, so no text can make it slow
            jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions())
        except ValueError:
            yield (), "not a valid JSON Schema (a pattern, perhaps)"


def _faults(at: tuple[str | int, ...], schema: Any) -> Iterator[ParamFault]:
    if not isinstance(schema, dict):
        yield at, "must be a schema object"
        return
    types = schema.get("type")
    names = [name for name in (types if isinstance(types, list) else [types]) if isinstance(name, str)]
    if not names or not all(name in _KEYWORDS for name in names) or (isinstance(types, list) and names != types):
        yield (*at, "type"), "each schema names its type"
        return
    for keyword in schema:
        if keyword not in _ALWAYS and not any(keyword in _KEYWORDS[name] for name in names):
            yield (*at, keyword), "a keyword that is not admitted here"
    for name in names:
        if name == "object":
            yield from _object_faults(at, schema)
        elif name == "array":
            yield from _array_faults(at, schema)
        elif name == "string" and not ({"enum", "const"} & schema.keys()):
            yield from _limit_faults(at, schema, "maxLength", "every string has a maxLength")


def _object_faults(at: tuple[str | int, ...], schema: Mapping[str, Any]) -> Iterator[ParamFault]:
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        yield (*at, "properties"), "must be an object"
        return
    for name, inner in properties.items():
        if not _NAME.fullmatch(name):
            yield (*at, "properties"), "a parameter's name must be [A-Za-z_][A-Za-z0-9_.-]*, at most 64 characters"
        yield from _faults((*at, "properties", name), inner)
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) and name in properties for name in required):
        yield (*at, "required"), "names a parameter that is not there"
    rest = schema.get("additionalProperties")
    if rest is False:
        return
    if not isinstance(rest, dict):
        yield (*at, "additionalProperties"), "every object is closed: false, or a schema with bounds"
        return
    yield from _faults((*at, "additionalProperties"), rest)
    yield from _limit_faults(at, schema, "maxProperties", "an object with free keys has maxProperties")
    names = schema.get("propertyNames")
    if not isinstance(names, dict) or names.get("type", "string") != "string":
        yield (*at, "propertyNames"), "an object with free keys bounds their names"
    else:
        yield from _faults((*at, "propertyNames"), {"type": "string", **names})


def _array_faults(at: tuple[str | int, ...], schema: Mapping[str, Any]) -> Iterator[ParamFault]:
    yield from _limit_faults(at, schema, "maxItems", "every list has maxItems")
    yield from _faults((*at, "items"), schema.get("items"))


def _limit_faults(
    at: tuple[str | int, ...], schema: Mapping[str, Any], keyword: str, message: str
) -> Iterator[ParamFault]:
    limit = schema.get(keyword)
    if type(limit) is not int or not 0 <= limit <= MAX_TEXT:
        yield (*at, keyword), f"{message} between 0 and {MAX_TEXT}"
