"""How the gateway's process is started: its environment and its systemd unit. Pure text, written by the installer.

The gateway loads a ``.env`` that its own user can write; a variable that is set already wins, even an empty one. So
every variable that matters is set here, and the working folder, where it looks for another one, belongs to root.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safety_wrapper.errors import ConfigError

#: Set to nothing: a value from elsewhere would move files, send traffic another way or load foreign code.
EMPTY: Final = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("NODE_OPTIONS", "NODE_PATH", "NODE_EXTRA_CA_CERTS", "NODE_TLS_REJECT_UNAUTHORIZED", "NODE_REPL_EXTERNAL_MODULE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "ENV", "PYTHONPATH"),
    *("OPENCLAW_PROFILE", "OPENCLAW_INCLUDE_ROOTS", "OPENCLAW_WORKSPACE_DIR", "OPENCLAW_AGENT_DIR", "OPENCLAW_GIT_DIR"),
    *("OPENCLAW_SQLITE_LIBRARY", "OPENCLAW_BUNDLED_PLUGINS_DIR", "OPENCLAW_DISABLE_BUNDLED_PLUGINS"),
    *("OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD", "OPENCLAW_GATEWAY_URL", "OPENCLAW_GATEWAY_PORT"),
    *("OPENCLAW_ALLOW_INSECURE_PRIVATE_WS", "OPENCLAW_ALLOW_MULTI_GATEWAY", "OPENCLAW_SKIP_CHANNELS"),
    *("OPENCLAW_LOG_LEVEL", "OPENCLAW_DEBUG_MODEL_TRANSPORT", "OPENCLAW_DEBUG_MODEL_PAYLOAD", "OPENCLAW_DEBUG_SSE"),
    *("OPENCLAW_DEBUG_PROXY_ENABLED", "OPENCLAW_DEBUG_PROXY_URL", "OPENCLAW_DEBUG_PROXY_CERT_DIR"),
    *("OPENCLAW_DIAGNOSTICS", "OPENCLAW_DIAGNOSTICS_TIMELINE_PATH", "OPENCLAW_NIX_MODE", "OPENCLAW_CONTAINER"),
    *("OPENCLAW_EXPERIMENTAL_CLAWS", "OPENCLAW_PROXY_ACTIVE", "OPENCLAW_PROXY_LOOPBACK_MODE"),
)
FIXED: Final = {
    "OPENCLAW_CONFIG_READONLY": "1",
    "OPENCLAW_NO_AUTO_UPDATE": "1",
    "OPENCLAW_OFFLINE": "1",
    "OPENCLAW_DISABLE_BONJOUR": "1",
    "OPENCLAW_LOAD_SHELL_ENV": "0",
    "OPENCLAW_EXEC_SHELL_SNAPSHOT": "0",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "SHELL": "/bin/sh",
    "LANG": "C.UTF-8",
}
UNIT_NAME: Final = "safety-wrapper-gateway.service"


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """Where the gateway's program and files are. ``home`` is the only place that it may write."""

    node: Path
    program: Path
    home: Path
    config: Path
    folder: Path
    environment_file: Path
    user: str | int
    run: Path
    state: Path


def environment(home: Path, config: Path) -> dict[str, str]:
    """Every variable that the gateway's process is given; nothing else may be in its environment."""
    return {
        **dict.fromkeys(EMPTY, ""),
        **FIXED,
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "OPENCLAW_HOME": str(home),
        "OPENCLAW_STATE_DIR": str(home / "state"),
        "OPENCLAW_CONFIG_PATH": str(config),
    }


def environment_file(values: dict[str, str]) -> str:
    """``NAME="value"`` lines for systemd. Raises ConfigError for a value that such a line can't hold."""
    lines = []
    for name, value in sorted(values.items()):
        if any(char in value for char in '"\\\n\r$`'):
            raise ConfigError(f"{name}: a path with quotes, dollars or line ends can't be used")
        lines.append(f'{name}="{value}"\n')
    return "".join(lines)


def unit(process: GatewayProcess) -> str:
    """The gateway's unit. Code of its user is the adversary: it gets its home, the network and agent.sock."""
    for path in (process.node, process.program, process.home, process.folder):
        if any(char.isspace() or char in '"\\%$' for char in str(path)):
            raise ConfigError(f"{path}: a path with spaces or special characters can't be used in a unit")
    return f"""\
[Unit]
Description=OpenClaw gateway, guarded by safety-wrapper
After=network-online.target safety-wrapper-core.service
Wants=network-online.target

[Service]
User={process.user}
WorkingDirectory={process.folder}
EnvironmentFile={process.environment_file}
ExecStart={process.node} {process.program} gateway run
Restart=on-failure
RestartSec=5
# A stop drains running turns for minutes otherwise.
TimeoutStopSec=30
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ReadWritePaths={process.home}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateIPC=yes
ProtectProc=invisible
ProcSubset=pid
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @debug
SystemCallErrorNumber=EPERM
InaccessiblePaths=-{process.run}/admin -{process.run}/runner -{process.run}/vault -{process.state}
TasksMax=256
MemoryMax=4G

[Install]
WantedBy=multi-user.target
"""
