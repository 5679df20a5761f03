"""What the large chat-completions providers refuse, as one pure function: a request body in, an error or None out.

The rules are the ones that real providers answer 400 to: names of functions, the dialect of their schemas, tool-call
ids answered exactly once and in order, the roles of messages. A gateway that passes here passes there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
CALL_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,40}")
MAX_TOOLS: Final = 128
MAX_DESCRIPTION: Final = 8192
PARAMETERS: Final = frozenset(
    "model messages tools tool_choice parallel_tool_calls stream stream_options temperature top_p max_tokens"
    " max_completion_tokens stop n presence_penalty frequency_penalty user store metadata response_format"
    " reasoning_effort seed prompt_cache_key".split()
)
#: Keywords of JSON Schema that providers take in a function's parameters.
KEYWORDS: Final = frozenset(
    "type properties required items enum const description title default format pattern minLength maxLength minimum"
    " maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems uniqueItems additionalProperties anyOf"
    " nullable minProperties maxProperties examples".split()
)
TYPES: Final = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


@dataclass(frozen=True, slots=True)
class ApiError:
    """One refusal in the provider's error shape. ``status`` is the HTTP status."""

    message: str
    param: str
    code: str = "invalid_value"
    status: int = 400

    def body(self) -> dict[str, Any]:
        """The JSON that a provider sends."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def check_request(body: Any, models: frozenset[str]) -> ApiError | None:
    """The first fault of a request, or None."""
    if not isinstance(body, dict):
        return ApiError("The body must be a JSON object.", "body")
    for key in body:
        if key not in PARAMETERS:
            return ApiError(f"Unrecognized request argument supplied: {key}", key, "unknown_parameter")
    if body.get("model") not in models:
        return ApiError("The model does not exist.", "model", "model_not_found", 404)
    return check_tools(body.get("tools")) or check_messages(body.get("messages"))


def check_tools(tools: Any) -> ApiError | None:
    """Functions only, each with a legal name of its own and an object schema."""
    if tools is None:
        return None
    if not isinstance(tools, list) or not 1 <= len(tools) <= MAX_TOOLS:
        return ApiError(f"Expected 1 to {MAX_TOOLS} tools.", "tools")
    seen = set()
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict):
            return ApiError("Only tools of type function are supported.", f"{where}.type")
        name = function.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            return ApiError(f"Expected a string that matches '^{NAME.pattern}$'.", f"{where}.function.name")
        if name in seen:
            return ApiError(f"Duplicate function name {name}.", f"{where}.function.name")
        seen.add(name)
        if len(str(function.get("description") or "")) > MAX_DESCRIPTION:
            return ApiError("The description is too long.", f"{where}.function.description")
        schema = function.get("parameters", {"type": "object", "properties": {}})
        error = _check_root(schema, f"{where}.function.parameters")
        if error:
            return error
    return None


def _check_root(schema: Any, where: str) -> ApiError | None:
    if not isinstance(schema, dict) or schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        return ApiError('schema must have type "object" and properties', where, "invalid_function_parameters")
    for keyword in ("anyOf", "oneOf", "allOf", "not", "enum"):
        if keyword in schema:
            return ApiError(f"schema must not have '{keyword}' at the top", where, "invalid_function_parameters")
    return _check_schema(schema, where)


def _check_schema(schema: Any, where: str) -> ApiError | None:
    def fault(message: str) -> ApiError:
        return ApiError(f"In {where}: {message}", where, "invalid_function_parameters")

    if isinstance(schema, bool):
        return None
    if not isinstance(schema, dict):
        return fault("a schema must be an object")
    for keyword in schema:
        if keyword not in KEYWORDS:
            return fault(f"'{keyword}' is not permitted")
    kinds = schema.get("type")
    if kinds is not None and not set(kinds if isinstance(kinds, list) else [kinds]) <= TYPES:
        return fault("unknown type")
    if kinds == "array" and "items" not in schema:
        return fault("array schema missing items")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        return fault("properties must be an object")
    if not set(schema.get("required", [])) <= set(properties):
        return fault("'required' names a property that is not there")
    inner = [*properties.values(), *schema.get("anyOf", [])]
    inner += [schema[key] for key in ("items", "additionalProperties") if key in schema]
    for index, part in enumerate(inner):
        error = _check_schema(part, f"{where}[{index}]")
        if error:
            return error
    return None


def check_messages(messages: Any) -> ApiError | None:
    """System first; every tool call answered exactly once, in order, right after it; the model's turn at the end."""
    if not isinstance(messages, list) or not messages:
        return ApiError("Expected a list of messages.", "messages")
    waiting: list[str] = []
    known: set[str] = set()
    begun = False
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in {"system", "developer", "user", "assistant", "tool"}:
            return ApiError("Unknown role.", f"{where}.role")
        if role == "tool":
            if not waiting or message.get("tool_call_id") != waiting[0]:
                return ApiError(
                    "messages with role 'tool' must answer the preceding 'tool_calls', once and in order.", where
                )
            waiting.pop(0)
        elif waiting:
            return ApiError("An assistant message with 'tool_calls' must be followed by its tool messages.", where)
        if role in {"system", "developer"} and begun:
            return ApiError("A system message must come first.", where)
        begun = begun or role not in {"system", "developer"}
        error = _check_content(message, role, where)
        if role == "assistant" and not error:
            error = _check_calls(message, known, waiting, where)
        if error:
            return error
    if waiting:
        return ApiError("A tool call has no answer.", "messages")
    if messages[-1]["role"] not in {"user", "tool"}:
        return ApiError("The last message must be of role user or tool.", "messages")
    return None


def _check_calls(message: dict[str, Any], known: set[str], waiting: list[str], where: str) -> ApiError | None:
    calls = message.get("tool_calls", [])
    if not isinstance(calls, list) or ("tool_calls" in message and not calls):
        return ApiError("'tool_calls' must be a list with at least one call.", f"{where}.tool_calls")
    for call in calls:
        function = call.get("function", {})
        if not CALL_ID.fullmatch(str(call.get("id"))) or call["id"] in known:
            return ApiError("A tool call needs an id of its own.", f"{where}.tool_calls")
        if not NAME.fullmatch(str(function.get("name"))):
            return ApiError("Bad function name.", f"{where}.tool_calls")
        try:
            json.loads(function.get("arguments"))
        except (TypeError, ValueError):
            return ApiError("'arguments' must be JSON text.", f"{where}.tool_calls")
        known.add(call["id"])
        waiting.append(call["id"])
    return None


def _check_content(message: dict[str, Any], role: str, where: str) -> ApiError | None:
    content = message.get("content")
    if isinstance(content, str):
        return None
    if content is None and role == "assistant" and message.get("tool_calls"):
        return None
    if isinstance(content, list) and content:
        kinds = {"text", "image_url"} if role == "user" else {"text"}
        if all(isinstance(part, dict) and part.get("type") in kinds for part in content):
            return None
    return ApiError("Invalid content.", f"{where}.content")
