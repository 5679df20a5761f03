"""Settings: one JSON file written by ``safety-wrapper config apply``, overridden by the environment, strictly checked.

Level, gate, unlocks, tenant facts and secret scopes are not settings: they are the owner's statements, in the ledger.
Daemons read JSON only; YAML is for people and the command line.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from safety_wrapper.canonical import parse_strict
from safety_wrapper.errors import CanonicalError, ConfigError

ENV_PREFIX: Final = "SAFETY_WRAPPER_"
#: Names the command line uses for itself, which are no settings.
ENV_OTHER: Final = frozenset({"SAFETY_WRAPPER_CONFIG"})
DEFAULT_PATH: Final = Path("/etc/safety-wrapper/config.json")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: A login name or a numeric uid.
User = Annotated[str | int, Field(union_mode="left_to_right")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False, hide_input_in_errors=True)


class Paths(_Section):
    state: Path = Path("/var/lib/safety-wrapper")
    run: Path = Path("/run/safety-wrapper")
    bundle: Path = Path("/etc/safety-wrapper/bundle")

    @field_validator("state", "run", "bundle")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be absolute")
        return path

    def socket(self, process: str, name: str) -> Path:
        """The socket ``name`` of ``process``; each process makes its own folder below ``run``."""
        return self.run / process / name

    @property
    def agent_socket(self) -> Path:
        return self.socket("agent", "agent.sock")

    @property
    def admin_socket(self) -> Path:
        return self.socket("admin", "admin.sock")

    @property
    def runner_socket(self) -> Path:
        return self.socket("runner", "runner.sock")

    @property
    def ledger(self) -> Path:
        return self.state / "core" / "ledger.db"

    @property
    def ledger_key(self) -> Path:
        return self.state / "core" / "ledger.key"

    @property
    def stop_file(self) -> Path:
        """The stop button: while this file exists, nothing runs. Needs neither ledger nor Hub."""
        return self.state / "stop" / "stopped"


class Users(_Section):
    """Whom each process runs as. All ``None`` = everything runs as one user, which is weaker and said so."""

    core: User | None = None
    vault: User | None = None
    runner: User | None = None
    firewall: User | None = None
    gateway: User | None = None
    admin_group: User | None = None


class PluginEntry(_Section):
    name: Name
    version: str
    sha256: Sha256
    settings: dict[str, Any] = {}


class BundleKey(_Section):
    kid: Name
    ed25519: str = Field(
        pattern=r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$", description="raw public key, base64url without padding"
    )


class Trust(_Section):
    bundle_keys: list[BundleKey] = []
    threshold: int = Field(default=1, ge=1)


class Agent(_Section):
    workspace: Name


class Spawn(_Section):
    """What children an agent may have in the built-in profile. 0 means none."""

    max_depth: int = Field(default=0, ge=0, le=8)
    child_calls: int = Field(default=0, ge=0)


class Gateway(_Section):
    profile: Literal["recommended", "builtin"] = "recommended"
    home: Path | None = None
    config: Path | None = None
    url: str | None = None
    token_file: Path | None = None
    agents: dict[Name, Agent] = {}
    owner_senders: list[str] = []
    spawn: Spawn = Spawn()


class Bind(_Section):
    source: Path = Field(alias="from")
    to: Path
    mode: Literal["ro", "rw"] = "ro"

    @field_validator("source", "to")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be absolute")
        return path


class RunnerLimits(_Section):
    wall_s: int = Field(default=60, ge=1, le=24 * 3600)
    cpu_s: int = Field(default=60, ge=1)
    memory_bytes: int = Field(default=512 * 1024**2, ge=16 * 1024**2)
    total_memory_bytes: int = Field(default=1024 * 1024**2, ge=16 * 1024**2)
    processes: int = Field(default=64, ge=1, le=4096)
    output_bytes: int = Field(default=1024**2, ge=1024)
    file_bytes: int = Field(default=256 * 1024**2, ge=1024)
    open_files: int = Field(default=256, ge=16)
    concurrent: int = Field(default=8, ge=1, le=64)


class RunnerProfile(_Section):
    name: Name
    binds: list[Bind] = []
    network: Literal[False] = False
    tmp_bytes: int = Field(default=64 * 1024**2, ge=1024**2)


class Runner(_Section):
    profiles: list[RunnerProfile] = []
    limits: RunnerLimits = RunnerLimits()
    cgroup: Path | None = Field(default=None, description="a delegated cgroup; found by itself when None")


class Limits(_Section):
    calls_per_s: float = Field(default=20, gt=0)
    burst: int = Field(default=60, ge=1)
    pending_per_agent: int = Field(default=10, ge=1)
    retention_days: int = Field(default=400, ge=1)
    execute_s: float = Field(default=60.0, gt=0)


class Config(_Section):
    """The whole configuration. Unknown keys are refused everywhere."""

    version: Literal[1] = 1
    tenant: str = Field("ten_local", pattern=r"^ten_[0-9A-Za-z]{1,40}$")
    paths: Paths = Paths()
    users: Users = Users()
    plugins: list[PluginEntry] = []
    dev_plugins: bool = Field(default=False, description="admit editable installs; for development only")
    trust: Trust = Trust()
    gateway: Gateway = Gateway()
    runner: Runner = Runner()
    limits: Limits = Limits()


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration. Raises ConfigError naming the key at fault, never its value."""
    path = path or Path(environ.get("SAFETY_WRAPPER_CONFIG", DEFAULT_PATH))
    try:
        data = parse_strict(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}", do="run `safety-wrapper config apply`, or give --config") from exc
    except CanonicalError as exc:
        raise ConfigError(f"{path}: {exc.message}", do="run `safety-wrapper config apply` again") from None
    return parse(data, environ, origin=str(path))


def parse(data: Any, environ: Mapping[str, str] = os.environ, *, origin: str = "configuration") -> Config:
    """Check configuration data with the environment on top: ``SAFETY_WRAPPER_<PATH>__<KEY>``, values as JSON or text.

    ``data`` stays as it is. Raises ConfigError naming the key at fault; neither its text nor its cause holds a value.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{origin}: must be one object")
    data = copy.deepcopy(data)
    for variable, text in sorted(environ.items()):
        if variable.startswith(ENV_PREFIX) and variable not in ENV_OTHER:
            _overlay(data, variable[len(ENV_PREFIX) :].lower().split("__"), text, variable)
    try:
        config = Config.model_validate(data)
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in exc.errors(include_input=False)[:5]
        )
        raise ConfigError(
            f"{origin}: {faults}", do="correct these keys, then run `safety-wrapper config apply`"
        ) from None
    _cross_check(config, origin)
    return config


def dump(config: Config) -> str:
    """The JSON that daemons read."""
    return json.dumps(config.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True) + "\n"


def _overlay(data: dict[str, Any], keys: list[str], text: str, variable: str) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{variable}: {key} is no section")
    try:
        data[keys[-1]] = parse_strict(text.encode("utf-8", "surrogateescape"))
    except CanonicalError:
        data[keys[-1]] = text


def _cross_check(config: Config, origin: str) -> None:
    names = [profile.name for profile in config.runner.profiles]
    if len(set(names)) != len(names):
        raise ConfigError(f"{origin}: runner.profiles: two profiles of one name")
    for agent, settings in config.gateway.agents.items():
        if settings.workspace not in names:
            raise ConfigError(f"{origin}: gateway.agents.{agent}.workspace: no such runner profile")
    plugins = [plugin.name for plugin in config.plugins]
    if len(set(plugins)) != len(plugins):
        raise ConfigError(f"{origin}: plugins: two entries of one name")
    # else one key under two names could be counted as two signers
    keys = config.trust.bundle_keys
    if len({key.kid for key in keys}) != len(keys) or len({key.ed25519 for key in keys}) != len(keys):
        raise ConfigError(f"{origin}: trust.bundle_keys: a key or its name stands there twice")
    if config.trust.threshold > max(1, len(keys)):
        raise ConfigError(f"{origin}: trust.threshold: more than there are keys")
