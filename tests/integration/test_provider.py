"""The stand-in provider refuses what large providers refuse: each fault has a twin without it that passes."""

from __future__ import annotations

import copy
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from integration.gateway import KEY, PROVIDER, Provider

sys.path.insert(0, str(PROVIDER.parent))
from validate import check_request

CALL = {"id": "call_1", "type": "function", "function": {"name": "sw_exec", "arguments": "{}"}}
GOOD: dict[str, Any] = {
    "model": "stand-in-1",
    "messages": [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "one"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "two"}]},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "sw_exec",
                "description": "Run.",
                "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            },
        }
    ],
}


def schema(change: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["tools"][0]["function"]["parameters"].update(change)


def function(change: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["tools"][0]["function"].update(change)


def message(index: int, change: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["messages"][index].update(change)


FAULTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unknown argument": lambda body: body.update(made_up=1),
    "unknown model": lambda body: body.update(model="other"),
    "dotted name": function({"name": "sw.exec"}),
    "long name": function({"name": "a" * 65}),
    "no functions": lambda body: body["tools"][0].update(type="retrieval"),
    "two of one name": lambda body: body["tools"].append(body["tools"][0]),
    "no tools": lambda body: body.update(tools=[]),
    "schema of no object": schema({"type": "string"}),
    "union at the top": schema({"anyOf": [{"type": "object"}]}),
    "unknown keyword": schema({"properties": {"a": {"type": "string", "patternProperties": {}}}}),
    "array of nothing": schema({"properties": {"a": {"type": "array"}}}),
    "required but missing": schema({"required": ["b"]}),
    "wrong type name": schema({"properties": {"a": {"type": "str"}}}),
    "unanswered call": lambda body: body["messages"].pop(),
    "answered twice": lambda body: body["messages"].append(body["messages"][-1]),
    "answered out of order": lambda body: (
        body["messages"].reverse() or body["messages"].sort(key=lambda m: len(m) == 3)
    ),
    "answer to nobody": message(3, {"tool_call_id": "call_9"}),
    "user between call and answer": lambda body: body["messages"].insert(3, {"role": "user", "content": "?"}),
    "id used twice": lambda body: body["messages"][2]["tool_calls"][1].update(id="call_1"),
    "arguments no JSON": lambda body: body["messages"][2]["tool_calls"][0]["function"].update(arguments="{"),
    "unknown role": message(1, {"role": "root"}),
    "late system": lambda body: body["messages"].insert(2, {"role": "system", "content": "x"}),
    "empty content": message(1, {"content": None}),
    "assistant last": lambda body: body["messages"].append({"role": "assistant", "content": "x"}),
    "no messages": lambda body: body.update(messages=[]),
}


def test_a_good_request_passes() -> None:
    assert check_request(GOOD, frozenset({"stand-in-1"})) is None


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS)
def test_one_fault_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    body = copy.deepcopy(GOOD)
    change(body)
    error = check_request(body, frozenset({"stand-in-1"}))
    assert error is not None
    assert 400 <= error.status < 500
    assert set(error.body()["error"]) == {"message", "type", "param", "code"}


def test_a_lenient_check_takes_the_doubtful_keywords_and_no_more() -> None:
    doubtful = {"properties": {"a": {"type": "object", "patternProperties": {}}}, "required": []}
    body = copy.deepcopy(GOOD)
    schema(doubtful)(body)
    assert check_request(body, frozenset({"stand-in-1"})) is not None
    assert check_request(body, frozenset({"stand-in-1"}), lenient=True) is None
    schema({"$dynamicRef": "#"})(body)
    assert check_request(body, frozenset({"stand-in-1"}), lenient=True) is not None


@pytest.mark.parametrize("body", [None, [], "x", {}, {"model": "stand-in-1"}, {"model": "stand-in-1", "messages": [5]}])
def test_odd_bodies_are_refused_in_the_same_shape(body: Any) -> None:
    assert check_request(body, frozenset({"stand-in-1"})) is not None


def ask(provider: Provider, body: Any, key: str = KEY) -> tuple[int, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{provider.port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def scripted(steps: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    user = {"role": "user", "content": f"SCRIPT:{json.dumps(steps)}"}
    return {"model": "stand-in-1", "messages": [user], **changes}


def test_it_follows_the_script_and_keeps_a_log(provider: Provider) -> None:
    body = scripted([{"tools": [{"name": "sw_exec", "args": {"command": "id"}}]}, {"text": "done"}])
    status, text = ask(provider, body)
    assert status == 200
    (call,) = json.loads(text)["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"command": "id"}
    body["messages"] += [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "x"},
    ]
    assert json.loads(ask(provider, body)[1])["choices"][0]["message"]["content"] == "done"
    assert provider.requests()[-1]["body"] == body


def test_it_streams_the_same(provider: Provider) -> None:
    body = scripted([{"text": "one two"}], stream=True, stream_options={"include_usage": True})
    status, text = ask(provider, body)
    assert status == 200
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    said = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert said == "one two"
    assert chunks[-1]["usage"]["total_tokens"] == 1050
    assert text.rstrip().endswith("data: [DONE]")


def test_a_script_can_use_what_a_tool_said(provider: Provider) -> None:
    resume = {"from": r"(apr_\w+)", "tools": [{"name": "sw_resume", "args": {"id": "{{1}}"}}]}
    body = scripted([{"tools": [{"name": "sw_exec"}]}, resume])
    body["messages"] += [
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Held: apr_01XY. Do not repeat."},
    ]
    (call,) = json.loads(ask(provider, body)[1])["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"id": "apr_01XY"}


def test_a_wrong_key_and_a_fault_get_the_providers_error_shape(provider: Provider) -> None:
    assert ask(provider, scripted([]), key="sk-other")[0] == 401
    status, text = ask(provider, {**scripted([]), "made_up": 1})
    assert status == 400
    assert json.loads(text)["error"]["code"] == "unknown_parameter"
    assert provider.requests()[-1]["error"] is not None
