"""What the large chat-completions providers refuse, as one pure function: a request body in, an error or None out.

The rules are the ones that real providers answer 400 to: names of functions, the dialect of their schemas, tool-call
ids answered exactly once and in order, the roles of messages. A gateway that passes here passes there.

Each part yields its faults; only the first is ever asked for, so what comes after a ``yield`` may rely on the check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
CALL_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,40}")
MAX_TOOLS: Final = 128
MAX_DESCRIPTION: Final = 8192
PARAMETERS: Final = frozenset({
    *("model", "messages", "tools", "tool_choice", "parallel_tool_calls", "stream", "stream_options", "temperature"),
    *("top_p", "max_tokens", "max_completion_tokens", "stop", "n", "presence_penalty", "frequency_penalty", "user"),
    *("store", "metadata", "response_format", "reasoning_effort", "seed", "prompt_cache_key"),
})  # fmt: skip
#: Keywords of JSON Schema that providers take in a function's parameters.
KEYWORDS: Final = frozenset({
    *("type", "properties", "required", "items", "enum", "const", "description", "title", "default", "format"),
    *("pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems", "uniqueItems", "additionalProperties", "anyOf", "nullable", "minProperties"),
    *("maxProperties", "examples"),
})  # fmt: skip
#: Keywords that one large provider takes and another refuses; only a lenient check lets them pass.
DOUBTFUL: Final = frozenset({"patternProperties", "propertyNames", "oneOf", "allOf", "not"})
#: Marks of schema libraries, which providers look past.
EXTENSIONS: Final = ("~", "x-")
TYPES: Final = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool"})


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


def check_request(body: Any, models: frozenset[str], *, lenient: bool = False) -> ApiError | None:
    """The first fault of a request, or None. ``lenient`` lets the doubtful keywords of schemas pass."""
    return next(_request(body, models, KEYWORDS | DOUBTFUL if lenient else KEYWORDS), None)


def _request(body: Any, models: frozenset[str], keywords: frozenset[str]) -> Iterator[ApiError]:
    if not isinstance(body, dict):
        yield ApiError("The body must be a JSON object.", "body")
    for key in body:
        if key not in PARAMETERS:
            yield ApiError(f"Unrecognized request argument supplied: {key}", key, "unknown_parameter")
    if body.get("model") not in models:
        yield ApiError("The model does not exist.", "model", "model_not_found", 404)
    if body.get("tools") is not None:
        yield from _tools(body["tools"], keywords)
    yield from _messages(body.get("messages"))


def _tools(tools: Any, keywords: frozenset[str]) -> Iterator[ApiError]:
    """Functions only, each with a legal name of its own and an object schema."""
    if not isinstance(tools, list) or not 1 <= len(tools) <= MAX_TOOLS:
        yield ApiError(f"Expected 1 to {MAX_TOOLS} tools.", "tools")
    seen = set()
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict):
            yield ApiError("Only tools of type function are supported.", f"{where}.type")
            return
        name = function.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            yield ApiError(f"Expected a string that matches '^{NAME.pattern}$'.", f"{where}.function.name")
        if name in seen:
            yield ApiError(f"Duplicate function name {name}.", f"{where}.function.name")
        seen.add(name)
        if len(str(function.get("description") or "")) > MAX_DESCRIPTION:
            yield ApiError("The description is too long.", f"{where}.function.description")
        schema = function.get("parameters", {"type": "object", "properties": {}})
        yield from _root(schema, f"{where}.function.parameters", keywords)


def _root(schema: Any, where: str, keywords: frozenset[str]) -> Iterator[ApiError]:
    def fault(message: str) -> ApiError:
        return ApiError(f"In {where}: {message}", where, "invalid_function_parameters")

    if not isinstance(schema, dict) or schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        yield fault('a schema must have type "object" and properties')
    for keyword in ("anyOf", "oneOf", "allOf", "not", "enum"):
        if keyword in schema:
            yield fault(f"'{keyword}' is not permitted at the top")
    for message in _schema(schema, keywords):
        yield fault(message)


def _schema(schema: Any, keywords: frozenset[str]) -> Iterator[str]:
    """Faults of one schema and those inside it."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield "a schema must be an object"
    for keyword in schema:
        if keyword not in keywords and not keyword.startswith(EXTENSIONS):
            yield f"'{keyword}' is not permitted"
    kinds = schema.get("type", [])
    if not set(kinds if isinstance(kinds, list) else [kinds]) <= TYPES:
        yield "unknown type"
    if kinds == "array" and "items" not in schema:
        yield "array schema missing items"
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        yield "properties must be an object"
    if not set(schema.get("required", [])) <= set(properties):
        yield "'required' names a property that is not there"
    inner = [schema[key] for key in ("items", "additionalProperties") if key in schema]
    for part in (*properties.values(), *schema.get("anyOf", []), *inner):
        yield from _schema(part, keywords)


def _messages(messages: Any) -> Iterator[ApiError]:
    """System first; every tool call answered exactly once, in order, right after it; the model's turn at the end."""
    if not isinstance(messages, list) or not messages:
        yield ApiError("Expected a list of messages.", "messages")
    waiting: list[str] = []
    known: set[str] = set()
    begun = False
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            yield ApiError("Unknown role.", f"{where}.role")
        if role in {"system", "developer"} and begun:
            yield ApiError("A system message must come first.", where)
        begun = begun or role not in {"system", "developer"}
        yield from _answers(message, waiting, where)
        yield from _content(message, role, where)
        if role == "assistant":
            yield from _calls(message, known, waiting, where)
    if waiting:
        yield ApiError("A tool call has no answer.", "messages")
    if messages[-1]["role"] not in {"user", "tool"}:
        yield ApiError("The last message must be of role user or tool.", "messages")


def _answers(message: dict[str, Any], waiting: list[str], where: str) -> Iterator[ApiError]:
    """``waiting``: ids of the calls that must be answered now, oldest first."""
    if message["role"] != "tool":
        if waiting:
            yield ApiError("An assistant message with 'tool_calls' must be followed by its tool messages.", where)
    elif not waiting or message.get("tool_call_id") != waiting[0]:
        yield ApiError("Messages of role 'tool' must answer the preceding 'tool_calls', once and in order.", where)
    else:
        waiting.pop(0)


def _calls(message: dict[str, Any], known: set[str], waiting: list[str], where: str) -> Iterator[ApiError]:
    calls = message.get("tool_calls", [])
    if not isinstance(calls, list) or ("tool_calls" in message and not calls):
        yield ApiError("'tool_calls' must be a list with at least one call.", f"{where}.tool_calls")
    for call in calls:
        function = call.get("function", {})
        if not CALL_ID.fullmatch(str(call.get("id"))) or call["id"] in known:
            yield ApiError("A tool call needs an id of its own.", f"{where}.tool_calls")
        if not NAME.fullmatch(str(function.get("name"))):
            yield ApiError("Bad function name.", f"{where}.tool_calls")
        if not _is_json(function.get("arguments")):
            yield ApiError("'arguments' must be JSON text.", f"{where}.tool_calls")
        known.add(call["id"])
        waiting.append(call["id"])


def _is_json(text: Any) -> bool:
    try:
        json.loads(text)
    except (TypeError, ValueError):
        return False
    return True


def _content(message: dict[str, Any], role: str | None, where: str) -> Iterator[ApiError]:
    content = message.get("content")
    kinds = {"text", "image_url"} if role == "user" else {"text"}
    listed = (
        isinstance(content, list) and content and all(isinstance(p, dict) and p.get("type") in kinds for p in content)
    )
    silent = content is None and role == "assistant" and message.get("tool_calls")
    if not (isinstance(content, str) or listed or silent):
        yield ApiError("Invalid content.", f"{where}.content")
