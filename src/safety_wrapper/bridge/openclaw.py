"""Put the shim and the gateway's configuration in place, and take them away.

An installation is a handful of files in one root-owned folder. ``plan`` says what would be written, ``apply`` writes
it; ``openclaw_doctor`` compares what lies there with what was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safety_wrapper import identity
from safety_wrapper.bridge import openclaw_config, openclaw_unit
from safety_wrapper.bridge.openclaw_config import PLUGIN_ID, GatewaySettings
from safety_wrapper.canonical import canonical_json
from safety_wrapper.config import Config
from safety_wrapper.errors import ConfigError
from safety_wrapper.naming import dotted_name, offered_name
from safety_wrapper.policy import Bundle
from safety_wrapper.policy.bundle import thaw

GATEWAY_VERSION: Final = "2026.9.6"
DEFAULT_FOLDER: Final = Path("/etc/safety-wrapper/openclaw")
DEFAULT_HOME: Final = Path("/var/lib/openclaw")
DEFAULT_PORT: Final = 18789
RECORD: Final = "installed.json"
SHIM: Final = Path(__file__).parent / "shim"
_PROVIDERS_TAKE: Final = frozenset({
    *("type", "properties", "required", "items", "enum", "description", "default", "anyOf", "additionalProperties"),
    *("pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"),
})  # fmt: skip
_MANIFEST: Final = "openclaw.plugin.json"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an installation lies."""

    folder: Path
    home: Path

    @property
    def plugin(self) -> Path:
        return self.folder / "plugin" / PLUGIN_ID

    @property
    def config(self) -> Path:
        return self.folder / "openclaw.json"

    @property
    def environment(self) -> Path:
        return self.folder / "gateway.env"

    @property
    def record(self) -> Path:
        return self.folder / RECORD

    @property
    def backup(self) -> Path:
        return self.folder / "before-install.json"

    @property
    def unit(self) -> Path:
        return self.folder / openclaw_unit.UNIT_NAME


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file to write. ``for_gateway``: its group is the gateway's, so that it may read and nobody else may."""

    path: Path
    data: bytes
    for_gateway: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What an installation would write, and how the gateway's configuration would change (values hidden)."""

    layout: Layout
    files: tuple[PlannedFile, ...]
    difference: str
    digests: Mapping[str, str]


# ── what is shipped ──────────────────────────────────────────────────────────────────────────────────────────────


def _shipped() -> Mapping[str, bytes]:
    names = sorted(path for path in SHIM.iterdir() if path.suffix == ".js" or path.name in {"package.json", _MANIFEST})
    return {path.name: path.read_bytes() for path in names}


#: Read when this module is imported: the core imports it before it gives up root, and may not reach it afterwards.
_SHIPPED: Final = _shipped()


def shim_files() -> dict[str, bytes]:
    """The shim's code as shipped in this package: name → bytes, without the manifest."""
    return {name: data for name, data in _SHIPPED.items() if name != _MANIFEST}


def digest_of_files(files: Mapping[str, bytes]) -> str:
    """The digest that the shim says of itself in ``hello``: over lines ``<sha256>  <name>``, sorted by name."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def shim_sha256() -> str:
    """What an unaltered shim of this package says in ``hello``."""
    return digest_of_files(shim_files())


def offered_tools(bundle: Bundle) -> list[dict[str, Any]]:
    """The tools that a bundle offers to models, as the shim registers them.

    Their schemas are cut down to what providers take; the core checks each call against the whole schema.
    """
    return [
        {"name": offered_name(entry.name), "description": entry.summary, "parameters": _dialect(thaw(entry.params))}
        for entry in bundle.tools.values()
        if entry.offer
    ]


def _dialect(schema: Any) -> Any:
    """A JSON schema without the keywords that a provider would refuse the whole request for."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key in _PROVIDERS_TAKE}
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = _dialect(kept[key])
    if "anyOf" in kept:
        kept["anyOf"] = [_dialect(part) for part in kept["anyOf"]]
    if "properties" in kept:
        kept["properties"] = {name: _dialect(part) for name, part in kept["properties"].items()}
    return kept


def tools_json(tools: Iterable[Mapping[str, Any]]) -> bytes:
    """The bytes of tools.json: canonical, sorted by name. Raises ConfigError for a list that can't be offered."""
    listed = sorted((dict(tool) for tool in tools), key=lambda tool: str(tool.get("name")))
    for tool in listed:
        if set(tool) != {"name", "description", "parameters"} or not isinstance(tool["parameters"], dict):
            raise ConfigError("the list of tools: each needs name, description and parameters, and nothing else")
        if dotted_name(str(tool["name"])) is None:
            raise ConfigError("the list of tools: a name is not of the offered form sw_…")
    if not listed or len({tool["name"] for tool in listed}) != len(listed):
        raise ConfigError("the list of tools is empty or names a tool twice")
    return canonical_json(listed)


def tools_sha256(tools: Iterable[Mapping[str, Any]]) -> str:
    """What a shim with these tools says in ``hello``."""
    return hashlib.sha256(tools_json(tools)).hexdigest()


def manifest(tools: bytes) -> bytes:
    """The plugin's manifest, which must declare each tool: the gateway drops an undeclared one."""
    data = json.loads(_SHIPPED[_MANIFEST])
    data["contracts"]["tools"] = [tool["name"] for tool in json.loads(tools)]
    return json.dumps(data, indent=2, sort_keys=True).encode() + b"\n"


# ── install ──────────────────────────────────────────────────────────────────────────────────────────────────────


def layout_of(config: Config) -> Layout:
    """Where the configuration wants the installation."""
    gateway = config.gateway
    return Layout(gateway.config.parent if gateway.config else DEFAULT_FOLDER, gateway.home or DEFAULT_HOME)


def plan(
    config: Config,
    tools: Iterable[Mapping[str, Any]],
    *,
    existing: Mapping[str, Any],
    node: Path,
    program: Path,
    port: int = DEFAULT_PORT,
) -> Plan:
    """What would be written. ``existing`` is the owner's present gateway configuration, ``{}`` for none.

    The gateway's token is kept when there is one of 32 characters or more, else made. Raises ConfigError.
    """
    layout = layout_of(config)
    listed = tools_json(tools)
    settings = GatewaySettings(
        profile=config.gateway.profile,
        socket=config.paths.agent_socket,
        plugin=layout.plugin,
        workspace=layout.home / "workspace",
        token=_token(existing, layout),
        port=port,
        owner_senders=config.gateway.owner_senders,
        execute_deadline_ms=int((config.limits.execute_s + 15) * 1000),
    )
    if len(str(settings.socket)) > 107:
        raise ConfigError(f"{settings.socket}: too long for a socket; choose a shorter paths.run")
    gateway = openclaw_config.build(settings, existing)
    process = openclaw_unit.GatewayProcess(
        node, program, layout.home, layout.config, layout.folder, layout.environment,
        config.users.gateway or "openclaw", config.paths.run, config.paths.state,
    )  # fmt: skip
    environment = openclaw_unit.environment(layout.home, layout.config)
    plugin = {**shim_files(), "tools.json": listed, _MANIFEST: manifest(listed)}
    files = [PlannedFile(layout.plugin / name, data) for name, data in plugin.items()]
    files += [
        PlannedFile(layout.config, openclaw_config.text_of(gateway).encode()),
        PlannedFile(layout.environment, openclaw_unit.environment_file(environment).encode()),
        PlannedFile(layout.unit, openclaw_unit.unit(process).encode()),
    ]
    digests = {str(f.path.relative_to(layout.folder)): hashlib.sha256(f.data).hexdigest() for f in files}
    record = {
        "version": 1, "gateway_version": GATEWAY_VERSION, "profile": config.gateway.profile,
        "shim_sha256": shim_sha256(), "tools_sha256": hashlib.sha256(listed).hexdigest(), "files": digests,
        "program": str(program),
    }  # fmt: skip
    files.append(PlannedFile(layout.record, json.dumps(record, indent=1, sort_keys=True).encode() + b"\n"))
    return Plan(layout, tuple(files), openclaw_config.difference(existing, gateway), digests)


def apply(plan: Plan, config: Config, *, existing: bytes | None = None) -> None:
    """Write the files, owned by whoever installs (root), readable by the gateway, writable by nobody.

    ``existing`` is kept beside them for ``uninstall``. Raises ConfigError when a folder belongs to somebody else.
    """
    who = identity.resolve(config.users)
    layout = plan.layout
    for folder in (layout.folder, layout.plugin.parent, layout.plugin):
        folder.mkdir(parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise ConfigError(f"{folder}: belongs to another user", do="remove it, then install again")
        folder.chmod(0o755)
    wanted = {file.path.name for file in plan.files if file.path.parent == layout.plugin}
    for stale in layout.plugin.iterdir():
        if stale.name not in wanted:
            shutil.rmtree(stale) if stale.is_dir() and not stale.is_symlink() else stale.unlink()
    for file in plan.files:
        _write(file.path, file.data, who.gateway.gid if file.for_gateway else -1)
    if existing is not None and not layout.backup.exists():
        _write(layout.backup, existing, -1)
    _make_home(layout.home, who.gateway)
    token_file = config.gateway.token_file
    if token_file is not None:
        token = json.loads(layout.config.read_bytes())["gateway"]["auth"]["token"]
        _write(token_file, token.encode() + b"\n", -1, mode=0o400)


def uninstall(layout: Layout, restore: Path | None = None) -> bool:
    """Remove everything that ``apply`` wrote, but not the gateway's home.

    The configuration of before goes to ``restore``; without it, it stays where it was kept. True when there is one.
    """
    kept = layout.backup.exists()
    if kept and restore is not None:
        shutil.copyfile(layout.backup, restore)
        layout.backup.unlink()
    shutil.rmtree(layout.folder / "plugin", ignore_errors=True)
    for path in (layout.config, layout.environment, layout.unit, layout.record):
        path.unlink(missing_ok=True)
    return kept


def _token(existing: Mapping[str, Any], layout: Layout) -> str:
    """The token in force, else the owner's own, else a fresh one."""
    candidates: list[Any] = [existing]
    if layout.config.exists():
        candidates.insert(0, json.loads(layout.config.read_bytes()))
    for candidate in candidates:
        gateway = candidate.get("gateway", {})
        token = gateway.get("auth", {}).get("token") if isinstance(gateway, Mapping) else None
        if isinstance(token, str) and len(token) >= 32 and "$" not in token:
            return token
    return secrets.token_urlsafe(32)


def _write(path: Path, data: bytes, gid: int, *, mode: int = 0o440) -> None:
    """Replace ``path`` in one step: a gateway that starts meanwhile reads the old file or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    if os.getuid() == 0 and gid >= 0:
        os.chown(fresh, 0, gid)
    fresh.chmod(mode)
    fresh.replace(path)


def _make_home(home: Path, owner: identity.Identity) -> None:
    for folder in (home, home / "state", home / "tmp", home / "workspace"):
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(folder, owner.uid, owner.gid)
        folder.chmod(0o700)
