"""What the owner is told: am I protected now, by which layers, what is weaker, what waits for me."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from safety_wrapper import __version__, dispatch
from safety_wrapper.bridge.core import Core
from safety_wrapper.errors import SafetyError
from safety_wrapper.ledger import approvals, export
from safety_wrapper.ledger.approvals import RequestRow


async def status(core: Core) -> dict[str, Any]:
    """The whole answer of ``safety-wrapper status``."""
    standing = core.engine.standing
    found = await checks(core)
    by_name = {check["name"]: check for check in found}
    bundle = standing.bundle
    layers = [
        _layer(1, "sandbox", by_name["runner"]),
        _layer(2, "tool policy of the gateway", by_name["gateway"]),
        _layer(3, "command gating", by_name["policy"]),
        {"layer": 4, "name": "secrets redaction", "ok": core.engine.redact is not None,
         "detail": "on" if core.engine.redact else "not installed: results are not searched for secrets"},
    ]  # fmt: skip
    weaker = [f"{check['name']}: {check['detail']}" for check in found if check["weaker"]]
    if core.engine.redact is None:
        weaker.append("secrets: no vault is installed; calls that carry a SECRET_REF are refused")
    return {
        # a gateway that is away or refused has no tools: that is no lack of protection
        "protected": all(check["ok"] for check in found if check["name"] != "gateway") and not standing.stopped,
        "stopped": standing.stopped,
        "layers": layers,
        "weaker": weaker,
        "waiting": {"approvals": _pending(core)},
        "bundle": None
        if bundle is None
        else {
            "name": bundle.name,
            "version": bundle.version,
            "sha256": bundle.sha256,
            "expires_at": bundle.expires_at,
            "degraded": standing.degraded,
        },
        "plan_sha256": core.engine.plan.digest,
        "core_version": __version__,
        "uptime_s": int(time.monotonic() - core.started_s),
        "ledger": {"seq": _last_seq(core), "ok": by_name["ledger"]["ok"]},
        "gateway": {
            "connected": core.gateway.connections() > 0,
            "ready": core.gateway.connections() > 0 and core.gateway.complaint is None,
            "version": core.gateway.version,
            "profile": core.config.gateway.profile,
        },
    }


async def checks(core: Core) -> list[dict[str, Any]]:
    """Each part's health, asked now."""
    return [
        await _ledger_check(core),
        _policy_check(core),
        _plugins_check(core),
        await _runner_check(core),
        _gateway_check(core),
        _users_check(core),
        *(
            {"name": h.name, "ok": h.ok, "detail": h.detail, "weaker": h.weaker}
            for h in dispatch.health(core.engine.plan)
        ),
    ]


async def _ledger_check(core: Core) -> dict[str, Any]:
    try:
        await core.engine.ledger.write(approvals.sweep)
    except SafetyError as exc:
        return _check("ledger", ok=False, detail=exc.message)
    return _check("ledger", ok=True, detail="writes are durable")


def _policy_check(core: Core) -> dict[str, Any]:
    standing = core.engine.standing
    if standing.bundle is None:
        return _check("policy", ok=False, detail="no bundle is in force: everything is blocked")
    detail = f"{standing.bundle.name} version {standing.bundle.version}"
    return _check("policy", ok=True, detail=standing.degraded or detail, weaker=standing.degraded is not None)


def _plugins_check(core: Core) -> dict[str, Any]:
    count = len(core.engine.plan.classifiers)
    if not count:
        return _check("plugins", ok=False, detail="no classifier is loaded: everything is blocked")
    if core.config.dev_plugins:
        return _check("plugins", ok=True, detail="editable plugins are admitted", weaker=True)
    return _check("plugins", ok=True, detail=f"{count} classifier(s)")


async def _runner_check(core: Core) -> dict[str, Any]:
    try:
        health = await core.engine.execution.health()
    except (SafetyError, OSError):
        return _check("runner", ok=False, detail="the runner is away: commands and files are refused")
    bad = [each.detail for each in health if not each.ok]
    weaker = [each.detail for each in health if each.weaker]
    return _check("runner", ok=not bad, detail="; ".join(bad or weaker) or "sandboxes work", weaker=bool(weaker))


def _gateway_check(core: Core) -> dict[str, Any]:
    if core.gateway.connections() == 0:
        return _check("gateway", ok=True, detail="no gateway is connected: nobody has tools of ours", weaker=True)
    if core.gateway.complaint:
        return _check("gateway", ok=False, detail=core.gateway.complaint)
    builtin = core.config.gateway.profile == "builtin"
    detail = "built-in tools run outside our sandbox" if builtin else "only our tools are offered"
    return _check("gateway", ok=True, detail=detail, weaker=builtin)


def _users_check(core: Core) -> dict[str, Any]:
    users = core.config.users
    if users.gateway is None or users.runner is None or users.core is None:
        return _check(
            "users", ok=True, detail="all processes share one user: they can read each other's files", weaker=True
        )
    return _check("users", ok=True, detail=f"core runs as uid {os.getuid()}")


def request_body(row: RequestRow, params: bytes | None = None) -> dict[str, Any]:
    """An approval request as the administrator's tools get it."""
    body: dict[str, Any] = {
        "id": row.id,
        "state": row.state,
        "agent": row.agent,
        "session": row.session,
        "tool": row.tool,
        "class": row.safety_class,
        "external": row.external,
        "title": row.title,
        "lines": [{"label": label, "value": value} for label, value in row.lines],
        "reason": row.reason,
        "rules": list(row.rules),
        "digest": row.call_digest,
        "created_at": row.created_at,
        "expires_in_s": row.expires_in_s,
        "repeats": row.repeats,
        "why": row.closed_why,
        "count": row.count,
        "decided_by": row.decided_by,
        "decided_at": row.decided_at,
        "comment": row.comment,
    }
    if params is not None:
        body["params"] = json.loads(params)["params"]
    return body


def _pending(core: Core) -> int:
    with core.engine.ledger.read() as reader:
        return approvals.count_pending(reader)


def _last_seq(core: Core) -> int:
    with core.engine.ledger.read() as reader:
        return export.last_seq(reader)


def _layer(number: int, name: str, check: dict[str, Any]) -> dict[str, Any]:
    return {"layer": number, "name": name, "ok": check["ok"], "detail": check["detail"]}


def _check(name: str, *, ok: bool, detail: str, weaker: bool = False) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "weaker": weaker}
