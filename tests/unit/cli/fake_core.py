"""A core's admin socket with fixed contents, on a real Unix socket, for the command line's own tests.

``start(folder)`` gives a ``Served``; a real installation can stand in for it by giving the same four attributes.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safety_wrapper.errors import WireError
from safety_wrapper.frames import MESSAGES, Request, Server, to_memfd
from safety_wrapper.ledger import Ledger, LedgerKeys
from safety_wrapper.ledger.clock import SystemClock
from safety_wrapper.ledger.export import export_records, last_seq

REQUEST_ID = "apr_01JD000000000000000000000A"
DIGEST = "9f" * 32
NOW = 1_795_449_600

VERBS = """hello status stop start_agents approvals.list approvals.get approvals.decide own.list own.set audit.tail
audit.search audit.export bundle.activate bundle.state health"""

CONFIG_YAML = """\
version: 1
tenant: ten_test
paths: {{state: {folder}/state, run: {folder}/run, bundle: {folder}/bundle}}
# the allow list
plugins: []

gateway: {{profile: recommended}}
"""


def request_row(**changes: Any) -> dict[str, Any]:
    """One approval request as approvals.get gives it."""
    row = {
        "id": REQUEST_ID,
        "state": "pending",
        "agent": "main",
        "session": "agent:main:g1",
        "tool": "mail.send",
        "class": "YELLOW_EXTERNAL",
        "external": True,
        "title": "Send one mail outside the company",
        "lines": [{"label": "recipient", "value": "jo@example.com"}, {"label": "amount", "value": "1200.00 EUR"}],
        "reason": "this sends mail outside the company",
        "rules": ["mail.send.outside"],
        "digest": DIGEST,
        "created_at": NOW,
        "expires_in_s": 86_340,
        "count": 1,
        "decided_by": None,
        "decided_at": None,
        "comment": None,
        "params": {"to": "jo@example.com", "subject": "Invoice", "body": "Dear Jo,\nplease pay."},
    }
    return {**row, **changes}


def record(seq: int, kind: str, body: dict[str, Any], *, at: int = NOW, **changes: Any) -> dict[str, Any]:
    """One audit record; its hashes are not what these tests look at."""
    fixed = {"agent": "main", "session": "agent:main:g1", "ref": None, "prev_sha256": "0" * 64}
    return {"seq": seq, "at": at, "kind": kind, "body": body, "sha256": "1" * 64, "mac": "2" * 64, **fixed, **changes}


def exported_log(folder: Path) -> bytes:
    """The export of a real ledger: some records and the checkpoint of a close."""
    keys = LedgerKeys.create(folder / "log.key")
    for _ in range(2):
        ledger = Ledger.open(folder / "log.db", keys, tenant="ten_test", clock=SystemClock())
        for number in range(3):
            ledger.write_blocking(lambda txn, n=number: txn.audit("alarm", body={"n": n}))
        with ledger.read() as look:
            data = b"".join(export_records(look, 1, last_seq(look)))
        ledger.close()
    return data


@dataclass
class FakeCore:
    """What the fake answers from; tests change it before they run a command."""

    protected: bool = True
    stopped: bool = False
    request: dict[str, Any] = field(default_factory=request_row)
    refuse: dict[str, str] | None = None
    error: str | None = None
    effective: dict[str, Any] = field(
        default_factory=lambda: {
            "levels": {"*": 2},
            "gates": {"*": "locked"},
            "domains": ["example.com"],
            "internal_services": [{"host": "wiki.example.com", "port": 443, "address": "10.0.0.7"}],
        }
    )
    records: list[dict[str, Any]] = field(default_factory=list)
    export: bytes = b""
    checks: list[dict[str, Any]] = field(
        default_factory=lambda: [{"name": "ledger", "ok": True, "detail": "writes are durable", "weaker": False}]
    )
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def answer(self, request: Request) -> dict[str, Any]:
        self.asked.append((request.verb, request.body))
        if self.error and request.verb != "hello":
            raise WireError(self.error, MESSAGES[self.error])
        answers = {
            "hello": lambda body: {"core_version": "0.1.0", "nonce": "00"},
            "status": lambda body: self._status(),
            "stop": lambda body: {},
            "start_agents": lambda body: {},
            "approvals.list": lambda body: {"items": self._listed(body)},
            "approvals.get": self._got,
            "approvals.decide": self._decided,
            "own.list": lambda body: {"items": [], "effective": self.effective},
            "own.set": lambda body: self._set(body["statement"]),
            "audit.tail": lambda body: {"records": self._tail(body)},
            "audit.search": lambda body: {"records": list(reversed(self.records))[: body["limit"]]},
            "audit.export": lambda body: {"records": len(self.records), "_descriptors": [to_memfd(self.export)]},
            "bundle.activate": lambda body: {"bundle": self._bundle()},
            "bundle.state": lambda body: {"bundle": self._bundle(), "at": NOW},
            "health": lambda body: {"checks": self.checks},
        }
        return answers[request.verb](request.body)

    async def watch(self, request: Request) -> dict[str, Any]:
        def events() -> None:
            request.connection.push({"event": "approval", "request": self.request})
            request.connection.push({"event": "approval_closed", "id": self.request["id"], "state": "denied"})

        asyncio.get_running_loop().call_soon(events)
        return {}

    def _bundle(self) -> dict[str, Any]:
        known = {"name": "base", "version": 3, "sha256": "ab" * 32, "expires_at": NOW}
        return {**known, "tools": 9, "rules": 24}

    def _status(self) -> dict[str, Any]:
        return {
            "protected": self.protected,
            "stopped": self.stopped,
            "layers": [{"layer": 1, "name": "sandbox", "ok": self.protected, "detail": "bubblewrap"}],
            "weaker": ["users: all processes share one user"],
            "waiting": {"approvals": 1},
            "bundle": {"name": "base", "version": 3, "sha256": "ab" * 32, "expires_at": NOW, "degraded": None},
            "plan_sha256": "cd" * 32,
            "core_version": "0.1.0",
            "uptime_s": 90_061,
            "ledger": {"seq": len(self.records), "ok": True},
            "gateway": {"connected": True, "ready": True, "version": "2026.9.6", "profile": "recommended"},
        }

    def _listed(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        row = {key: value for key, value in self.request.items() if key != "params"}
        return [row] if body.get("state") in {None, row["state"]} else []

    def _got(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["id"] != self.request["id"]:
            raise WireError("bad_request", MESSAGES["bad_request"])
        return {"request": self.request}

    def _decided(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.refuse or body["shown_digest"] != self.request["digest"]:
            return self.refuse or {"refused": "another digest was shown", "do": "look again"}
        if self.request["state"] != "pending":
            return {"state": self.request["state"], "changed": False}
        self.request["state"] = "approved" if body["decision"] == "approve" else "denied"
        return {"state": self.request["state"], "changed": True}

    def _set(self, statement: dict[str, Any]) -> dict[str, Any]:
        body = statement["body"]
        match statement["kind"]:
            case "level":
                self.effective["levels"][body["agent"]] = body["level"]
            case "gate":
                self.effective["gates"][body["agent"]] = body["state"]
            case "tenant":
                self.effective.update(body)
        return {"id": "own_01JD000000000000000000000A"}

    def _tail(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        return [row for row in self.records if row["seq"] > body["after_seq"]][: body["limit"]]


@dataclass
class Served:
    """A folder with config.yaml and config.json, and the core that answers there."""

    folder: Path
    config: Path
    core: FakeCore
    _loop: asyncio.AbstractEventLoop
    _server: Server
    _thread: threading.Thread

    def stop(self) -> None:
        """End the core, as a crash would: its socket file stays."""

        def end() -> None:
            self._server.close()
            self._loop.stop()

        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(end)
            self._thread.join()
            self._loop.close()


def write_config(folder: Path) -> Path:
    """config.yaml and config.json of an installation below ``folder``."""
    for name in ("state", "run/admin", "bundle"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG_YAML.format(folder=folder))
    paths = {name: str(folder / name) for name in ("state", "run", "bundle")}
    config = folder / "config.json"
    config.write_text(json.dumps({"version": 1, "tenant": "ten_test", "paths": paths}))
    return config


def start(folder: Path) -> Served:
    """Serve a fake core below ``folder``."""
    config, core, loop, ready = write_config(folder), FakeCore(), asyncio.new_event_loop(), threading.Event()
    verbs = dict.fromkeys(VERBS.split(), core.answer)
    server = Server({**verbs, "approvals.watch": core.watch}, admit=lambda peer: peer.uid == os.getuid())

    async def listen() -> None:
        server.listen(folder / "run" / "admin" / "admin.sock")
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(listen())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the fake core did not start")
    time.sleep(0)
    return Served(folder, config, core, loop, server, thread)
