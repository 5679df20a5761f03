"""A stand-in for a model provider: speaks the chat-completions protocol on 127.0.0.1, streaming or not.

The model is a script inside the user's own message, so that a test or a demo says what the "model" wants::

    please go SCRIPT:[{"tools":[{"name":"sw_exec","args":{"command":"id"}}]},{"text":"done"}]

Each element is one model step: ``tools`` to call (in one reply), ``text`` to say, ``sleep`` seconds to wait before.
``"args"`` may hold ``{{n}}``: replaced by the n-th capture of ``"from"``, a pattern that is searched in the newest
tool result (so a script can use an id that it was told). Requests are checked by ``validate`` and refused with the
provider's error shape; every request and its outcome goes to the log as one JSON line.

    python examples/providers/chat_completions.py --key sk-local --log requests.jsonl     # prints its port
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))
from validate import ApiError, check_request

MODEL: Final = "stand-in-1"
MAX_BODY: Final = 16 * 1024 * 1024
USAGE: Final = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 600},
    "completion_tokens_details": {"reasoning_tokens": 7},
}


def text_of(content: Any) -> str:
    """The text of a message's content, whichever of its two forms it has."""
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def next_step(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What the script of the newest scripted user message says next; ``DONE`` when it is at its end."""
    start, steps = -1, []
    for index, message in enumerate(messages):
        if message["role"] != "user" or "SCRIPT:" not in text_of(message["content"]):
            continue
        try:
            steps, _ = json.JSONDecoder().raw_decode(text_of(message["content"]).split("SCRIPT:", 1)[1].strip())
            start = index
        except ValueError:
            continue  # a gateway quotes earlier messages in part
    if start < 0:
        return {"text": "OK"}
    said = sum(message["role"] == "assistant" for message in messages[start + 1 :])
    step = steps[said] if said < len(steps) else {"text": "DONE"}
    return filled(step, messages)


def filled(step: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    """``step`` with its ``{{n}}`` replaced from the tool results so far."""
    if "from" not in step:
        return step
    results = "\n".join(text_of(m["content"]) for m in reversed(messages) if m["role"] == "tool")
    found = re.search(step["from"], results)
    groups = found.groups() if found else ()
    text = json.dumps(step.get("tools", []))
    for number, value in enumerate(groups, 1):
        text = text.replace(f"{{{{{number}}}}}", json.dumps(value)[1:-1])
    return {**step, "tools": json.loads(text)}


class Provider(ThreadingHTTPServer):
    """The server. ``key`` is the only bearer token that it takes; ``log`` the file of JSON lines."""

    daemon_threads = True

    def __init__(self, port: int, key: str, log: Path, *, lenient: bool = False) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.key = key
        self.lenient = lenient
        self._log = log
        self._lock = threading.Lock()
        self._calls = 0

    def record(self, entry: dict[str, Any]) -> None:
        """Append one line to the log."""
        with self._lock, self._log.open("a") as file:
            file.write(json.dumps({"at": time.time(), **entry}) + "\n")

    def call_id(self) -> str:
        """A fresh tool-call id."""
        with self._lock:
            self._calls += 1
            return f"call_{int(time.time() * 1000)}_{self._calls}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Provider

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class names it so)
        """Nothing on the terminal: the log is a file."""

    def do_GET(self) -> None:
        """The list of models."""
        self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "stand-in"}]})

    def do_POST(self) -> None:
        """One completion."""
        body = self._body()
        error = self._refusal(body)
        self.server.record({"path": self.path, "body": body, "error": error.message if error else None})
        if error:
            self._json(error.status, error.body())
            return
        step = next_step(body["messages"])
        time.sleep(step.get("sleep", 0))
        calls = [
            {
                "id": self.server.call_id(),
                "type": "function",
                "function": {"name": tool["name"], "arguments": json.dumps(tool.get("args", {}))},
            }
            for tool in step.get("tools", [])
        ]
        if body.get("stream"):
            self._stream(step.get("text") or "", calls)
        else:
            message = {"role": "assistant", "content": step.get("text"), **({"tool_calls": calls} if calls else {})}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
            self._json(200, {**_head("chat.completion"), "choices": [choice], "usage": USAGE})

    def _refusal(self, body: Any) -> ApiError | None:
        if self.path.split("?")[0] != "/v1/chat/completions":
            return ApiError("Unknown path.", "path", "not_found", 404)
        if self.headers.get("authorization") != f"Bearer {self.server.key}":
            return ApiError("Incorrect API key provided.", "authorization", "invalid_api_key", 401)
        return check_request(body, frozenset({MODEL}), lenient=self.server.lenient)

    def _body(self) -> Any:
        length = int(self.headers.get("content-length") or 0)
        try:
            return json.loads(self.rfile.read(length)) if 0 < length <= MAX_BODY else None
        except ValueError:
            return None

    def _json(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, text: str, calls: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for delta, finish in _deltas(text, calls):
            chunk = {
                **_head("chat.completion.chunk"),
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            }
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        last = {**_head("chat.completion.chunk"), "choices": [], "usage": USAGE}
        self.wfile.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        self.close_connection = True


def _deltas(text: str, calls: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The pieces of a streamed reply; arguments come in two halves, as real providers cut them anywhere."""
    yield {"role": "assistant", "content": ""}, None
    for word in re.findall(r"\S+\s*", text):
        yield {"content": word}, None
    for index, call in enumerate(calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        half = len(arguments) // 2
        first = {"index": index, "id": call["id"], "type": "function"}
        yield {"tool_calls": [{**first, "function": {"name": name, "arguments": arguments[:half]}}]}, None
        yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[half:]}}]}, None
    yield {}, "tool_calls" if calls else "stop"


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-stand-in", "object": kind, "created": int(time.time()), "model": MODEL}


def main() -> None:
    """Serve until killed; the port is the first line on standard output."""
    parser = argparse.ArgumentParser(description="Stand-in model provider.")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--key", default="sk-local-stand-in")
    parser.add_argument("--log", type=Path, default=Path("requests.jsonl"))
    parser.add_argument("--lenient", action="store_true", help="take schema keywords that not every provider takes")
    options = parser.parse_args()
    server = Provider(options.port, options.key, options.log, lenient=options.lenient)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
