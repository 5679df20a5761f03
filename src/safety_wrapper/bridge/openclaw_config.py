"""The gateway's own configuration, as we want it: pure functions from the owner's present file to the one in force.

What the owner chose for models, channels and looks stays; everything that could run something past the engine is ours.
Each key below closes a way that was seen open on the pinned version (docs/how-to/openclaw.md says which).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safety_wrapper.errors import ConfigError

PLUGIN_ID: Final = "safety-wrapper"
#: Sections of an existing file that are the owner's: they say who talks to the agent and which model answers.
KEPT: Final = ("models", "channels", "bindings", "messages", "ui", "logging", "auth", "talk", "wizard", "meta")
#: Keys inside an agent that could widen what it may do.
_AGENT_DROPPED: Final = ("tools", "sandbox", "subagents", "elevated", "runtime", "heartbeat")
#: The gateway's own tools that the built-in profile offers; the base policy lists them, and no others.
BUILTINS: Final = ("exec", "read", "write", "message", "sessions_spawn")
#: Built-in tools that stay shut in the built-in profile too: they reach past ``before_tool_call``.
DENIED: Final = (
    "automations",
    "cron",
    "gateway",
    "nodes",
    "browser",
    "canvas",
    "tool_search",
    "tool_describe",
    "tool_call",
)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the template needs to know. ``execute_deadline_ms``: above the core's own, so that the core ends first."""

    profile: str
    socket: Path
    plugin: Path
    workspace: Path
    token: str
    port: int
    owner_senders: Sequence[str] = ()
    execute_deadline_ms: int = 75_000


def build(settings: GatewaySettings, existing: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration to install. ``existing`` is the owner's file, ``{}`` for none.

    Raises ConfigError for an existing section that is no object.
    """
    kept = {name: existing[name] for name in KEPT if name in existing}
    channels = {name: _quiet_channel(name, value) for name, value in _section(existing, "channels").items()}
    allowed = [PLUGIN_ID, *sorted(set(channels) - {PLUGIN_ID, "defaults"})]
    return {
        **kept,
        **({"channels": channels} if channels else {}),
        "gateway": {
            "mode": "local",
            "port": settings.port,
            "bind": "loopback",
            "auth": {"mode": "token", "token": settings.token},
            "terminal": {"enabled": False},
            "http": {"endpoints": {"chatCompletions": {"enabled": False}, "responses": {"enabled": False}}},
        },
        "agents": _agents(_section(existing, "agents"), settings.workspace),
        "tools": _tools(settings.profile),
        "commands": _commands(settings.owner_senders),
        "cron": {"enabled": False},
        "hooks": {"enabled": False},
        "update": {"checkOnStart": False, "auto": {"enabled": False}},
        "telemetry": {"enabled": False},
        "env": {"shellEnv": {"enabled": False}},
        "session": {"dmScope": "per-channel-peer"},
        "plugins": {
            "enabled": True,
            "allow": allowed,
            "load": {"paths": [str(settings.plugin)]},
            "slots": {"memory": "none"},
            "entries": {
                PLUGIN_ID: {
                    "enabled": True,
                    # A run is refused after our own 2 s; the gateway's limits only matter if that fails.
                    "hooks": {"allowConversationAccess": True},
                    "config": {
                        "socket": str(settings.socket),
                        "executeDeadlineMs": settings.execute_deadline_ms,
                    },
                }
            },
        },
    }


def _tools(profile: str) -> dict[str, Any]:
    shut = {
        "toolSearch": False,
        "elevated": {"enabled": False},
        "agentToAgent": {"enabled": False},
    }
    if profile == "recommended":
        # The lock: were our plugin missing, no tool would be left and the gateway would refuse every run.
        return {"allow": [PLUGIN_ID], "deny": ["automations"], **shut}
    # "full" means that the gateway does not ask by itself; before_tool_call decides.
    execute = {"mode": "full", "applyPatch": {"enabled": False}}
    return {"allow": [PLUGIN_ID, *BUILTINS], "deny": list(DENIED), "exec": execute, **shut}


def _commands(owner_senders: Sequence[str]) -> dict[str, Any]:
    commands: dict[str, Any] = dict.fromkeys(("bash", "config", "mcp", "plugins", "debug", "restart"), False)
    return {**commands, "ownerAllowFrom": list(owner_senders)} if owner_senders else commands


def _agents(existing: Mapping[str, Any], workspace: Path) -> dict[str, Any]:
    """The owner's agents without what widens their tools; the workspace is the one that the runner binds."""
    defaults = {key: value for key, value in _section(existing, "defaults").items() if key not in _AGENT_DROPPED}
    agents: dict[str, Any] = {"defaults": {**defaults, "workspace": str(workspace), "skipBootstrap": True}}
    entries = _section(existing, "entries")
    if entries:
        agents["entries"] = {name: _narrow(name, entry) for name, entry in entries.items()}
    return agents


def _narrow(name: str, entry: Any) -> dict[str, Any]:
    agent = _object(entry, f"agents.entries.{name}")
    return {key: value for key, value in agent.items() if key not in _AGENT_DROPPED}


def _quiet_channel(name: str, value: Any) -> dict[str, Any]:
    """A channel whose messages can't write the configuration."""
    channel = {**_object(value, f"channels.{name}"), "configWrites": False}
    if name == "defaults":
        del channel["configWrites"]
    accounts = channel.get("accounts")
    if accounts is not None:
        channel["accounts"] = {
            key: {**_object(account, f"channels.{name}.accounts.{key}"), "configWrites": False}
            for key, account in _object(accounts, f"channels.{name}.accounts").items()
        }
    return channel


def _section(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _object(value.get(name, {}), name)


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"the gateway's configuration: {where} is no object", do="correct it, then install again")
    return value


def text_of(config: Mapping[str, Any]) -> str:
    """The file's bytes: sorted, so that its digest depends on nothing else."""
    return json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What changes, as a unified diff with every credential's value hidden."""
    old, new = (text_of(masked(value)).splitlines() for value in (before, after))
    return "\n".join(difflib.unified_diff(old, new, "gateway configuration now", "after install", lineterm="", n=1))


_SECRET_KEYS: Final = ("token", "apikey", "password", "secret", "passphrase", "credential", "authorization")


def masked(value: Any) -> Any:
    """``value`` with the texts under telling keys replaced, for showing on a terminal."""
    if isinstance(value, Mapping):
        return {key: _hidden(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    return value


def _hidden(key: str, value: Any) -> Any:
    plain = key.lower().replace("_", "").replace("-", "")
    telling = any(word in plain for word in _SECRET_KEYS)
    return "(hidden)" if telling and isinstance(value, str) else masked(value)
