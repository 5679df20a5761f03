"""The core process: ledger, plugins, bundle, engine, both sockets. Started by systemd or by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import socket
from pathlib import Path
from typing import Final

from safety_wrapper import dispatch, identity, reasons, registry
from safety_wrapper.bridge import agent, openclaw
from safety_wrapper.bridge.admin import Admin
from safety_wrapper.bridge.core import Core
from safety_wrapper.config import Config
from safety_wrapper.engine import Engine
from safety_wrapper.errors import SafetyError
from safety_wrapper.execution import Execution
from safety_wrapper.held import Held
from safety_wrapper.ledger import Ledger, LedgerKeys, SystemClock, approvals
from safety_wrapper.model import Decision
from safety_wrapper.policy import Bundle
from safety_wrapper.policy_in_force import PolicyInForce
from safety_wrapper.rate import Buckets
from safety_wrapper.registry import AllowedPlugin
from safety_wrapper.runner.client import RunnerClient
from safety_wrapper.settle import Judgement, Limits
from safety_wrapper.standing import Standing

HOUSEKEEPING_S: Final = 5.0


#: What the standard library and anyio import only at first use. A process that gave up root may not be able to then,
#: where the interpreter lies in a closed home folder.
_LATE_IMPORTS: Final = (
    "concurrent.futures.thread", "encodings.idna", "encodings.punycode", "encodings.utf_16_be", "encodings.utf_16_le",
    "encodings.utf_16", "encodings.utf_32", "encodings.latin_1", "encodings.ascii", "encodings.unicode_escape",
    "encodings.cp1252", "stringprep", "asyncio.taskgroups", "asyncio.timeouts", "anyio._backends._asyncio",
    "httpcore._async", "_strptime", "linecache", "traceback", "tracemalloc",
)  # fmt: skip


def preload() -> None:
    """Import what would otherwise be imported late. A module that is not installed is not needed."""
    for name in _LATE_IMPORTS:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)


def load_plugins(config: Config) -> dispatch.Plan:
    """Vet and construct the plugins. Done before the uid is given up, where the interpreter may still be read."""
    preload()
    allowed = [AllowedPlugin(p.name, p.version, p.sha256, p.settings) for p in config.plugins]
    return registry.load(allowed, dev=config.dev_plugins)


def run(config: Config, plan: dispatch.Plan | None = None) -> None:
    """Run the core until SIGTERM. Raises ConfigError or LedgerError when it can't start."""
    identity.become(identity.resolve(config.users).core)
    asyncio.run(_serve(config, plan or load_plugins(config)))


async def _serve(config: Config, plan: dispatch.Plan) -> None:
    dispatch.install_time_limits()
    who = identity.resolve(config.users)
    ledger = Ledger.open(
        config.paths.ledger, LedgerKeys.load(config.paths.ledger_key), tenant=config.tenant, clock=SystemClock()
    )
    try:
        core, policy = _assemble(config, plan, ledger)
        await policy.start()
        await ledger.write(
            lambda txn: txn.audit(
                "plan", body={"plan_sha256": plan.digest, "plugins": [p.name for p in config.plugins]}
            )
        )
        await _listen_until_stopped(config, who, core, policy)
    finally:
        ledger.close()


def _assemble(config: Config, plan: dispatch.Plan, ledger: Ledger) -> tuple[Core, PolicyInForce]:
    standing = Standing(ledger, config.paths.stop_file, ledger.now)
    execution = Execution(RunnerClient(config.paths.runner_socket), ledger, plan, config.runner.limits)
    limits = Limits(config.gateway.spawn.max_depth, config.gateway.spawn.child_calls, config.limits.pending_per_agent)
    workspaces = {name: settings.workspace for name, settings in config.gateway.agents.items()}

    def asked(judged: Judgement, decision: Decision) -> None:
        """A new request waits: tell the administrator's screens and whoever else notifies."""
        request = str(decision.request)
        core.on_opened(request)
        dispatch.observe(
            plan,
            "notify_approval",
            request=request,
            title=reasons.title(judged.call, judged.classification),
            safety_class=decision.safety_class.name,
            expires_in_s=decision.expires_in_s or 0,
        )

    engine = Engine(ledger, plan, standing, execution, limits, workspaces, on_request=asked)
    held = Held(engine, config.tenant, config.limits.execute_s)
    buckets = Buckets(config.limits.calls_per_s, config.limits.burst)
    core = Core(config, engine, held, buckets, openclaw.shim_sha256())
    return core, PolicyInForce(config, plan, ledger, standing)


async def _listen_until_stopped(config: Config, who: identity.Identities, core: Core, policy: PolicyInForce) -> None:
    async def activate(path: Path) -> Bundle:
        return await policy.activate(path)

    admin = Admin(core, activate, core.held.cancel_all)
    agent_server = agent.server(core, identity.admits_gateway(who))
    core.gateway.connections = lambda: len(agent_server.connections)
    admin_server = admin.server(identity.admits_admin(who))

    def finished(request: str) -> None:
        admin.on_request(request)
        admin.push_wakes()

    core.held.on_finished = finished
    core.on_opened = admin.on_request
    agent_server.listen(config.paths.agent_socket)
    admin_server.listen(config.paths.admin_socket)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notify_systemd("READY=1")
    keeper = asyncio.create_task(_housekeeping(core, admin))
    await stop.wait()
    notify_systemd("STOPPING=1")
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    agent_server.close()
    admin_server.close()
    core.held.cancel_all()
    await core.held.drain()


async def _housekeeping(core: Core, admin: Admin) -> None:
    """Expiry, lost wakes, and the watchdog: a core whose loop stands still is restarted by systemd."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_S)
        notify_systemd("WATCHDOG=1")
        try:
            await core.engine.ledger.write(approvals.sweep)
            admin.push_wakes()
        except SafetyError:
            continue  # said by status; it is tried again
        except Exception as exc:  # noqa: BLE001 - the watchdog must go on
            core.report_fault(exc)


def notify_systemd(state: str) -> None:
    """Tell systemd how the service is, if it asked."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, contextlib.suppress(OSError):
        sock.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        sock.send(state.encode())
