"""admin.sock: what the owner and root may do. Approvals, statements, bundles, the stop button, the audit log."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from safety_wrapper import __version__
from safety_wrapper.bridge import wire
from safety_wrapper.bridge.core import Core
from safety_wrapper.bridge.report import checks, request_body, status
from safety_wrapper.errors import RefusedError, WireError
from safety_wrapper.frames import MESSAGES, Connection, Handler, Limits, Peer, Request, Server, to_memfd
from safety_wrapper.ledger import approvals, export, floor, owner
from safety_wrapper.ledger.transaction import write_checkpoint
from safety_wrapper.policy import Bundle

LIMITS: Final = Limits(max_frame_bytes=1024 * 1024, hello_s=2.0)
#: A page of a list, well below what a frame takes.
PAGE_BYTES: Final = 768 * 1024
MAX_EXPORT_BYTES: Final = 256 * 1024 * 1024


class Admin:
    """The verbs of admin.sock. ``activate(path)`` takes a bundle into force or raises a BundleError."""

    def __init__(self, core: Core, activate: Callable[[Path], Any], stop_all: Callable[[], None]) -> None:
        self._core = core
        self._activate = activate
        self._stop_all = stop_all
        self._approval_watchers: set[Connection] = set()
        self._wake_watchers: set[Connection] = set()

    def server(self, admit: Callable[[Peer], bool]) -> Server:
        """The server of admin.sock; the caller makes it listen."""
        verbs: dict[str, Handler] = {
            "hello": self._hello,
            "status": self._status,
            "stop": self._stop,
            "start_agents": self._start_agents,
            "approvals.list": self._approvals_list,
            "approvals.get": self._approvals_get,
            "approvals.decide": self._approvals_decide,
            "approvals.watch": self._approvals_watch,
            "wake.watch": self._wake_watch,
            "wake.done": self._wake_done,
            "own.list": self._own_list,
            "own.set": self._own_set,
            "audit.tail": self._audit_tail,
            "audit.search": self._audit_search,
            "audit.export": self._audit_export,
            "bundle.activate": self._bundle_activate,
            "bundle.state": self._bundle_state,
            "health": self._health,
        }
        return Server(verbs, admit=admit, limits=LIMITS, on_fault=self._core.report_fault)

    async def _hello(self, request: Request) -> dict[str, Any]:
        wire.read(wire.Nothing, request.body)
        return {"core_version": __version__, "nonce": os.urandom(16).hex()}

    async def _status(self, request: Request) -> dict[str, Any]:
        wire.read(wire.Nothing, request.body)
        return await status(self._core)

    async def _health(self, request: Request) -> dict[str, Any]:
        wire.read(wire.Nothing, request.body)
        return {"checks": await checks(self._core)}

    # ── the stop button ──────────────────────────────────────────────────────────────────────────────────────

    async def _stop(self, request: Request) -> dict[str, Any]:
        wire.read(wire.Stop, request.body)
        path = self._core.config.paths.stop_file
        try:
            path.touch(mode=0o644)
        finally:
            self._stop_all()  # also where the button can't be written: what runs is killed at least
        await self._note("stop", request, {"what": "agents stopped"})
        return {}

    async def _start_agents(self, request: Request) -> dict[str, Any]:
        wire.read(wire.Nothing, request.body)
        await self._note("start", request, {"what": "agents started"})  # without a record nothing starts
        self._core.config.paths.stop_file.unlink(missing_ok=True)
        return {}

    async def _note(self, kind: str, request: Request, body: dict[str, Any]) -> None:
        uid = request.connection.peer.uid
        finish = kind == "stop"
        await self._core.engine.ledger.write(lambda txn: txn.audit(kind, body={**body, "by_uid": uid}), finish=finish)

    # ── approvals ────────────────────────────────────────────────────────────────────────────────────────────

    async def _approvals_list(self, request: Request) -> dict[str, Any]:
        body = wire.read(wire.ApprovalsList, request.body)
        await self._sweep()
        with self._core.engine.ledger.read() as reader:
            rows = approvals.list_requests(reader, state=body.state, after=body.after, limit=body.limit)
            return {"items": _listed([request_body(row) for row in rows])}

    async def _approvals_get(self, request: Request) -> dict[str, Any]:
        body = wire.read(wire.ById, request.body)
        await self._sweep()
        with self._core.engine.ledger.read() as reader:
            row = approvals.get(reader, body.id)
            if row is None:
                raise WireError("bad_request", MESSAGES["bad_request"])
            return {"request": request_body(row, approvals.params_of(reader, body.id))}

    async def _approvals_decide(self, request: Request) -> dict[str, Any]:
        body = wire.read(wire.ApprovalsDecide, request.body)
        if body.decision == "approve" and self._core.engine.standing.stopped:
            return _refused(RefusedError("all agents are stopped", do="run `safety-wrapper start-agents` first"))
        try:
            state, changed = await self._core.held.decide(
                body.id,
                decision=body.decision,
                by="local_root",
                shown_digest=body.shown_digest,
                comment=body.comment,
            )
        except RefusedError as exc:
            return _refused(exc)
        if changed:
            await self._note("owner", request, {"what": body.decision, "request": body.id})
        return {"state": state, "changed": changed}

    async def _approvals_watch(self, request: Request) -> dict[str, Any]:
        wire.read(wire.Nothing, request.body)
        self._approval_watchers.add(request.connection)
        return {}

    async def _wake_watch(self, request: Request) -> dict[str, Any]:
        wire.read(wire.Nothing, request.body)
        self._wake_watchers.add(request.connection)
        self.push_wakes()
        return {}

    async def _wake_done(self, request: Request) -> dict[str, Any]:
        body = wire.read(wire.ById, request.body)
        await self._core.engine.ledger.write(lambda txn: approvals.mark_woken(txn, body.id))
        return {}

    def on_request(self, request_id: str) -> None:
        """A request was opened or closed: tell who watches."""
        self._approval_watchers = {c for c in self._approval_watchers if not c.closed}
        if not self._approval_watchers:
            return
        with self._core.engine.ledger.read() as reader:
            row = approvals.get(reader, request_id)
            if row is None:
                return
            event: dict[str, Any] = {"event": "approval", "request": request_body(row)}
        if row.state != "pending":
            event = {"event": "approval_closed", "id": row.id, "state": row.state}
        for connection in self._approval_watchers:
            connection.push(event)

    def push_wakes(self) -> None:
        """Tell the waker which sessions have something to read; repeated until it says done."""
        self._wake_watchers = {c for c in self._wake_watchers if not c.closed}
        if not self._wake_watchers:
            return
        with self._core.engine.ledger.read() as reader:
            rows = approvals.to_wake(reader)
        for row in rows:
            text = f"Request {row.id} has an answer. Call sw_resume with this id."
            event = {"event": "wake", "id": row.id, "agent": row.agent, "session": row.session, "text": text}
            for connection in self._wake_watchers:
                connection.push(event)

    async def _sweep(self) -> None:
        await self._core.engine.ledger.write(approvals.sweep)

    # ── owner's statements ───────────────────────────────────────────────────────────────────────────────────

    async def _own_list(self, request: Request) -> dict[str, Any]:
        wire.read(wire.Nothing, request.body)
        with self._core.engine.ledger.read() as reader:
            view = owner.view(reader)
            return {
                "items": [dataclasses.asdict(statement) for statement in owner.statements(reader)],
                "effective": {
                    "levels": {agent: int(level) for agent, level in view.levels.items()},
                    "gates": {agent: gate.value for agent, gate in view.gates.items()},
                    "domains": list(view.domains),
                    "internal_services": [dataclasses.asdict(service) for service in view.internal_services],
                },
            }

    async def _own_set(self, request: Request) -> dict[str, Any]:
        body = wire.read(wire.OwnSet, request.body).statement
        try:
            own_id = await self._core.engine.ledger.write(
                lambda txn: owner.set_statement(
                    txn, kind=body.kind, body=body.body, by="local_root", reason=body.reason, ends_at=body.ends_at
                )
            )
        except RefusedError as exc:
            return _refused(exc)
        self._core.engine.standing.forget_owner()
        return {"id": own_id}

    # ── audit ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _audit_tail(self, request: Request) -> dict[str, Any]:
        body = wire.read(wire.AuditTail, request.body)
        with self._core.engine.ledger.read() as reader:
            return {"records": _fitting(export.records(reader, after_seq=body.after_seq, limit=body.limit))}

    async def _audit_search(self, request: Request) -> dict[str, Any]:
        body = wire.read(wire.AuditSearch, request.body)
        where = body.where.model_dump(exclude_none=True)
        with self._core.engine.ledger.read() as reader:
            found = export.search(reader, where=where, limit=body.limit, before_seq=body.before_seq)
            return {"records": _fitting(found[::-1])[::-1]}  # the newest

    async def _audit_export(self, request: Request) -> dict[str, Any]:
        body = wire.read(wire.AuditExport, request.body)
        ledger = self._core.engine.ledger
        await ledger.write(write_checkpoint)
        try:
            data, count = self._exported(body)
        except RefusedError as exc:
            return _refused(exc)
        await self._note("export", request, {"from_seq": body.from_seq, "to_seq": body.to_seq})
        return {"records": count - 1, "_descriptors": [to_memfd(data)]}

    def _exported(self, body: wire.AuditExport) -> tuple[bytes, int]:
        """The lines and how many there are. Raises RefusedError for a range that is not there or too long."""
        data = bytearray()
        count = 0
        with self._core.engine.ledger.read() as reader:
            to_seq = body.to_seq or export.last_seq(reader)
            for line in export.export_records(reader, body.from_seq, to_seq):
                data += line
                count += 1
                if len(data) > MAX_EXPORT_BYTES:
                    raise RefusedError("the range is too long for one export", do="export it in parts: --from, --to")
        return bytes(data), count

    # ── bundle ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _bundle_activate(self, request: Request) -> dict[str, Any]:
        body = wire.read(wire.BundleActivate, request.body)
        try:
            bundle: Bundle = await self._activate(Path(body.path))
        except RefusedError as exc:
            return _refused(exc)
        await self._note("owner", request, {"what": "bundle activated", "bundle_sha256": bundle.sha256})
        return {"bundle": bundle_body(bundle)}

    async def _bundle_state(self, request: Request) -> dict[str, Any]:
        wire.read(wire.Nothing, request.body)
        bundle = self._core.engine.standing.bundle
        with self._core.engine.ledger.read() as reader:
            known = floor.get(reader)
        return {
            "bundle": bundle_body(bundle) if bundle else None,
            "floor": {"version": known.version, "sha256": known.sha256} if known else None,
        }


def bundle_body(bundle: Bundle) -> dict[str, Any]:
    """What people are told of a bundle."""
    return {
        "name": bundle.name,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "expires_at": bundle.expires_at,
        "tools": len(bundle.tools),
        "rules": len(bundle.rules),
    }


def _listed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All of them, whatever agents put into them: where that is too much for a frame, the longest go without their
    lines, which ``approvals.get`` has."""
    sizes = [len(json.dumps(item)) for item in items]
    total = sum(sizes)
    for index in sorted(range(len(items)), key=lambda index: -sizes[index]):
        if total <= PAGE_BYTES:
            break
        items[index] = {**items[index], "lines": []}
        total -= sizes[index] - len(json.dumps(items[index]))
    return items


def _fitting(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first records that fit into a frame, at least one: who pages on gets the rest."""
    total = 0
    for index, record in enumerate(records):
        total += len(json.dumps(record))
        if total > PAGE_BYTES and index:
            return records[:index]
    return records


def _refused(exc: RefusedError) -> dict[str, Any]:
    """A refusal that an administrator may read in full: the text is ours, never the call's."""
    return {"refused": exc.message, "do": exc.do}
