"""A small sound bundle, and ways to break it by one thing at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safety_wrapper.canonical import canonical_json
from safety_wrapper.policy import signing

EXPIRES_AT = 1_900_000_000
NOW = EXPIRES_AT - 1000

RULE: dict[str, Any] = {
    "class": "RED",
    "escalate": [{"class": "CRITICAL_RED", "when": {"path": {"is": ["/", "/home", "/srv"]}}}],
    "examples": {"match": ["files.delete/m1"], "no_match": ["files.delete/n1"]},
    "id": "files.delete",
    "raise_only": False,
    "when": {"effect": ["delete"], "flags": {"any": ["recursive"]}, "path": {"under": ["/home", "/srv"]}},
}

TOOL: dict[str, Any] = {
    "base": {"class": "GREEN", "external": False},
    "caps": {"calls_per_day": 10},
    "effects": [{"kind": "execute", "resource": "process", "from": ["command"]}],
    "kind": "own_tool",
    "name": "exec",
    "offer": True,
    "params": {
        "type": "object",
        "additionalProperties": False,
        "required": ["command"],
        "properties": {
            "command": {"type": "string", "maxLength": 100},
            "rows": {"type": "array", "maxItems": 5, "items": {"type": "integer"}},
            "env": {
                "type": "object",
                "maxProperties": 5,
                "propertyNames": {"maxLength": 10},
                "additionalProperties": {"type": "string", "maxLength": 10},
            },
        },
    },
    "result": {"default": "untrusted", "fields": {"id": "system"}},
    "runs": "runner",
    "sinks": {"command": "text"},
    "slots": {"db_auth": {"sink": "runner"}},
    "summary": "Run a command.",
    "program": {"path": "/usr/bin/psql", "argv": ["-c", "{command}"], "env": {"PGPASSWORD": {"slot": "db_auth"}}},
}

BUILTIN: dict[str, Any] = {
    "base": {"class": "YELLOW", "external": False},
    "caps": {},
    "effects": [],
    "kind": "builtin",
    "name": "exec",
    "offer": False,
    "params": {"type": "object", "additionalProperties": False},
    "result": {"default": "untrusted", "fields": {}},
    "runs": "gateway",
    "sinks": {},
    "slots": {},
    "summary": "The gateway's own.",
}

MAIL: dict[str, Any] = {**BUILTIN, "kind": "own_tool", "name": "mail.send", "runs": "adapter"}

EGRESS: dict[str, Any] = {
    "id": "openai.chat",
    "caller": "runner:work",
    "host": "api.example.com",
    "port": 443,
    "method": ["GET", "POST"],
    "path": "/v1/{name}/chat",
    "query": ["a", "b"],
    "slot": {"name": "api_key", "in": "header", "key": "authorization", "form": "Bearer {value}"},
    "body": "openai_chat",
    "stream": True,
    "max_bytes": 1000,
    "address": None,
}


class FloorRow(NamedTuple):
    """As the ledger keeps it."""

    version: int
    sha256: str


def bundle_value(**changes: Any) -> dict[str, Any]:
    """A sound bundle as plain JSON."""
    value: dict[str, Any] = {
        "adapters": {"mail": {"tools": {"mail.send": {"any": ["thing"]}}}},
        "egress": [EGRESS],
        "expires_at": EXPIRES_AT,
        "format": 1,
        "min_wrapper": "0.1.0",
        "name": "sample",
        "prices": {},
        "redaction": [],
        "rules": [RULE],
        "suite": [
            {"id": "files.delete/m1", "tool": "exec", "params": {"command": "rm -r /srv/x"}},
            {"id": "files.delete/n1", "tool": "exec", "params": {"command": "echo rm -r /srv/x"}},
            {
                "id": "suite.read",
                "tool": "exec",
                "kind": "builtin",
                "params": {},
                "context": {"cwd": "/srv", "level": 3, "gate": "named", "tenant_domains": ["example.com"]},
                "expect": {"class": "RED", "external": False, "outcome": "allow", "rules": ["sw.unlisted"]},
            },
        ],
        "templates": {
            "files.delete": {"reason": "this deletes a folder ({path})", "instead": "Move it.", "approval": "Delete"},
            "sw.unlisted": {"reason": "the tool is not listed"},
        },
        "tools": {"exec": TOOL, "builtin:exec": BUILTIN, "mail.send": MAIL},
        "version": 7,
    }
    return copy.deepcopy({**value, **changes})


def compiled(change: Callable[[dict[str, Any]], object] | None = None, **changes: Any) -> bytes:
    """The canonical bytes of the sample, after ``change`` did what it likes to it."""
    value = bundle_value(**changes)
    if change is not None:
        change(value)
    return canonical_json(value)


def new_key(kid: str = "k1") -> tuple[Ed25519PrivateKey, signing.Key]:
    """A private key and what is trusted of it."""
    key = Ed25519PrivateKey.generate()
    return key, signing.Key(kid, signing.public_text(key))


def signed(data: bytes, *keys: tuple[Ed25519PrivateKey, signing.Key]) -> bytes:
    """``bundle.sig`` by these keys."""
    return signing.signatures_json([signing.sign(data, public.kid, private) for private, public in keys])
