"""Calls that go on in the background: the agent reads the result by the job's id. Interrupted ones end ``unknown``."""

from __future__ import annotations

import hashlib

from safety_wrapper.errors import RefusedError
from safety_wrapper.ledger.ids import new_id
from safety_wrapper.ledger.seals import seal, unseal
from safety_wrapper.ledger.transaction import Look, Txn


def open_job(txn: Txn, *, agent: str | None, session: str | None, call_digest: str) -> str:
    """A new job in state ``running``; its id. The decision that allowed the call is recorded by the caller."""
    job = new_id("job")
    txn.db.execute(
        "INSERT INTO job(id, agent, session, call_digest, state, opened_at) VALUES (?, ?, ?, ?, 'running', ?)",
        (job, agent or "", session or "", call_digest, txn.now),
    )
    return job


def finish_job(txn: Txn, job: str, *, ok: bool, text: str) -> None:
    """running → done | error, the text sealed. Raises RefusedError if the job is not running."""
    data = text.encode("utf-8", "surrogatepass")
    changed = txn.db.execute(
        "UPDATE job SET state = ?, finished_at = ?, result = ? WHERE id = ? AND state = 'running'",
        ("done" if ok else "error", txn.now, seal(txn.keys, data, f"job/{job}"), job),
    )
    if changed.rowcount != 1:
        raise RefusedError("this job is not running")
    agent, session = txn.db.execute("SELECT agent, session FROM job WHERE id = ?", (job,)).fetchone()
    body = {"ok": ok, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    txn.audit("result", agent=agent or None, session=session or None, ref=job, body=body)


def result_for(look: Look, job: str, *, agent: str | None, session: str | None) -> tuple[str, str | None] | None:
    """(state, text or None), or None where there is no such job of this agent and session."""
    row = look.db.execute(
        "SELECT state, result FROM job WHERE id = ? AND agent = ? AND session = ?", (job, agent or "", session or "")
    ).fetchone()
    if row is None:
        return None
    text = None if row[1] is None else unseal(look.keys, row[1], f"job/{job}").decode("utf-8", "surrogatepass")
    return row[0], text


def interrupt_all(txn: Txn) -> int:
    """After a start: running → unknown, each with its record; how many."""
    rows = txn.db.execute("SELECT id, agent, session FROM job WHERE state = 'running' ORDER BY id").fetchall()
    for job, agent, session in rows:
        txn.db.execute("UPDATE job SET state = 'unknown', finished_at = ? WHERE id = ?", (txn.now, job))
        txn.audit("result", agent=agent or None, session=session or None, ref=job, body={"ok": None, "why": "restart"})
    return len(rows)
