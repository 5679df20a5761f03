"""``safety-wrapper demo``: a guarded agent in a temporary folder. Real processes, real sockets, nothing to set up."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from safety_wrapper.cli import admin

if TYPE_CHECKING:
    from safety_wrapper.bridge.peer import Peer
    from safety_wrapper.cli.demo_origin import Origin
    from safety_wrapper.installation import Installation
    from safety_wrapper.supervisor import Supervisor

SESSION: Final = "agent:main:demo"
WAIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What happened in one scene, and whether it is what the guard promises."""

    name: str
    does: str
    outcome: str
    detail: str
    ok: bool


@click.command()
@click.option("--openclaw", "through_gateway", is_flag=True, help="The same through a real OpenClaw gateway.")
@admin.json_option
def demo(*, through_gateway: bool, as_json: bool) -> None:
    """Show a guarded agent in a temporary folder, with nothing to set up.

    A scripted agent speaks to the engine as the gateway would. Exit code 1 when a scene ends otherwise than promised.

    \b
    Example:
      safety-wrapper demo --json
    """
    show = (lambda scene: None) if as_json else _show
    if through_gateway:
        from safety_wrapper.cli import demo_openclaw

        scenes = demo_openclaw.play(show)
    else:
        scenes = play(show)
    ok = bool(scenes) and all(scene.ok for scene in scenes)
    if as_json:
        shown = [{name: getattr(scene, name) for name in Scene.__slots__} for scene in scenes]
        admin.print_json({"ok": ok, "scenes": shown})
    elif ok:
        click.echo(f"\nAll {len(scenes)} scenes ended as promised.")
    click.get_current_context().exit(0 if ok else 1)


def play(show: Callable[[Scene], None]) -> list[Scene]:
    """Play every scene in a fresh installation; each is shown as it ends."""
    with tempfile.TemporaryDirectory(prefix="safety-wrapper-demo-") as folder, running(Path(folder)) as stage:
        scenes = []
        for scene in SCENES:
            played = scene(stage)
            show(played)
            scenes.append(played)
        return scenes


@dataclass(slots=True)
class Stage:
    """The running installation, the scripted agent's connection, and what scenes tell each other."""

    made: Installation
    supervisor: Supervisor
    origin: Origin
    agent: Peer
    order: dict[str, Any] = field(default_factory=dict)
    request: str = ""
    calls: int = 0

    def call(self, tool: str, **params: Any) -> dict[str, Any]:
        """One tool call of the agent."""
        self.calls += 1
        context = {"agent": "main", "session": SESSION, "run": "demo-run"}
        return self.agent.call("execute", tool_call_id=f"call_{self.calls}", tool=tool, params=params, context=context)

    def owner(self, verb: str, **body: Any) -> dict[str, Any]:
        """One step of the owner, on the admin socket."""
        from safety_wrapper.frames import Client

        with Client(self.made.config.paths.admin_socket) as client:
            return client.call(verb, **body)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Stage]:
    """A whole installation below ``folder``, an origin that stands for somebody else's service, a connected agent."""
    from safety_wrapper import identity, installation
    from safety_wrapper.bridge import openclaw
    from safety_wrapper.bridge.peer import Peer
    from safety_wrapper.cli import base_policy, demo_origin
    from safety_wrapper.supervisor import Supervisor

    folder.chmod(0o755)
    origin = demo_origin.start(folder)
    try:
        made = installation.create(folder, base_policy.compiled(), changes=changes_for(origin))
        (made.workspace / "notes.txt").write_text("Monday: order 20 boxes of paper\n")
        supervisor = Supervisor(made.config)
        supervisor.start()
        try:
            hello = {
                "gateway_version": openclaw.GATEWAY_VERSION,
                "shim_sha256": openclaw.shim_sha256(),
                "tools_sha256": openclaw.tools_sha256(openclaw.offered_tools(made.bundle)),
                "mode": "full",
            }
            who = identity.resolve(made.config.users).gateway
            with Peer(made.config.paths.agent_socket, who, hello) as agent:
                yield Stage(made, supervisor, origin, agent)
        finally:
            supervisor.stop()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(origin.pid, signal.SIGKILL)
        os.waitpid(origin.pid, 0)


def changes_for(origin: Origin) -> dict[str, Any]:
    """The configuration that lets ``http.request`` reach the origin, and nothing else."""
    from safety_wrapper import installation
    from safety_wrapper.cli.demo_origin import HOST

    settings = {
        "hosts": [f"{HOST}:443"],
        "resolve": {f"{HOST}:443": f"127.0.0.1:{origin.port}"},
        "ca_file": str(origin.ca_file),
    }
    plugins = [
        {**entry, "settings": settings if entry["name"] == "adapters" else {}} for entry in installation.allow_list()
    ]
    return {"plugins": plugins}


# ── the scenes ───────────────────────────────────────────────────────────────────────────────────────────────────


def green(stage: Stage) -> Scene:
    """A call that only reads runs at once."""
    answer = stage.call("sw_exec", command="cat notes.txt")
    return _scene("Green", "reads a note: cat notes.txt", answer, "allow", "order 20 boxes" in _text(answer))


def external_held(stage: Stage) -> Scene:
    """Something that leaves the company waits for the owner."""
    from safety_wrapper.cli.demo_origin import HOST

    stage.order = {
        "method": "POST",
        "url": f"https://{HOST}/orders",
        "headers": {"content-type": "application/json"},
        "body": '{"item": "paper", "boxes": 20}',
    }
    answer = stage.call("sw_http__request", **stage.order)
    stage.request = str(answer["decision"].get("request", ""))
    nothing_left = stage.origin.arrived() == []
    return _scene(
        "External, held", "orders 20 boxes at another company", answer, "require_approval",
        nothing_left and stage.request.startswith("apr_"),
    )  # fmt: skip


def approved_once(stage: Stage) -> Scene:
    """On the owner's yes the stored call runs once; the agent reads its result by the id."""
    shown = stage.owner("approvals.get", id=stage.request)["request"]
    stage.owner("approvals.decide", id=stage.request, decision="approve", shown_digest=shown["digest"])
    _wait(lambda: stage.owner("approvals.get", id=stage.request)["request"]["state"] == "done")
    answer = stage.call("sw_resume", id=stage.request)
    once = len(stage.origin.arrived()) == 1
    return _scene(
        "Approved, run once", "reads the result with sw_resume", answer, "allow", once and "1001" in _text(answer)
    )


def repeated(stage: Stage) -> Scene:
    """The same call again is a new request: the yes was spent."""
    answer = stage.call("sw_http__request", **stage.order)
    fresh = answer["decision"].get("request") not in (None, stage.request)
    once = len(stage.origin.arrived()) == 1
    return _scene("Repeated", "makes the same order again", answer, "require_approval", fresh and once)


def critical_red(stage: Stage) -> Scene:
    """Level 3 runs Red by itself, and never Critical Red."""
    stage.owner("own.set", statement={"kind": "level", "body": {"agent": "*", "level": 3}, "reason": "demo"})
    answer = stage.call("sw_exec", command="cat /etc/safety-wrapper/config.json")
    stage.owner("own.set", statement={"kind": "level", "body": {"agent": "*", "level": 2}, "reason": "demo"})
    critical = answer["decision"]["class"] == "CRITICAL_RED" and answer["decision"]["level"] == 3
    return _scene("Critical Red at level 3", "looks into the guard's own files", answer, "require_approval", critical)


def unlisted(stage: Stage) -> Scene:
    """A tool that the signed policy does not list does not exist."""
    answer = stage.call("sw_teleport", to="anywhere")
    listed = "sw.unlisted" in answer["decision"]["rules"]
    return _scene("Unlisted tool", "calls a tool that nobody registered", answer, "block", listed)


def approves_itself(stage: Stage) -> Scene:
    """The agent tries the owner's command, then the owner's socket."""
    answer = stage.call("sw_exec", command=f"safety-wrapper approvals approve {stage.request} --yes")
    held = answer["decision"]["outcome"] != "allow" and answer["decision"]["class"] == "CRITICAL_RED"
    barred, how = _socket_is_barred(stage)
    outcome = str(answer["decision"]["outcome"])
    detail = f"{answer['decision']['reason']} Its own connection to admin.sock: {how}"
    return Scene(
        "Approves itself", "runs the owner's command, then opens the owner's socket", outcome, detail, held and barred
    )


def core_killed(stage: Stage) -> Scene:
    """Without the core nothing runs."""
    core = next(child for child in stage.supervisor.children if child.name == "core")
    os.kill(core.pid, signal.SIGKILL)
    os.waitpid(core.pid, 0)
    try:
        answer = stage.call("sw_exec", command="cat notes.txt")
    except ConnectionError:
        return Scene(
            "Core killed", "reads the note again", "refused", "the core is gone: nothing answers, nothing runs", ok=True
        )
    return _scene("Core killed", "reads the note again", answer, "refused", holds=False)


def chain_verified(stage: Stage) -> Scene:
    """After a restart the whole history is there, and provably so."""
    from safety_wrapper.frames import Client, from_memfd
    from safety_wrapper.ledger.export import verify_export

    def back() -> bool:
        stage.supervisor.tend()
        with contextlib.suppress(OSError):
            Client(stage.made.config.paths.admin_socket).close()
            return True
        return False

    _wait(back)
    answer = stage.owner("audit.export", from_seq=1)
    (descriptor,) = answer["_descriptors"]
    lines = from_memfd(descriptor, max_bytes=2**26).splitlines(keepends=True)
    os.close(descriptor)
    report = verify_export(lines)
    detail = f"{report.records} records, {report.checkpoints} signed checkpoints, fault: {report.fault or 'none'}"
    return Scene(
        "Chain verified", "the owner checks the audit log", "verified" if report.ok else "broken", detail, report.ok
    )


SCENES: Final = (
    green, external_held, approved_once, repeated, critical_red, unlisted, approves_itself, core_killed, chain_verified,
)  # fmt: skip


def _socket_is_barred(stage: Stage) -> tuple[bool, str]:
    from safety_wrapper import identity
    from safety_wrapper.bridge.peer import Peer
    from safety_wrapper.errors import WireError

    who = identity.resolve(stage.made.config.users)
    if not who.apart:
        return True, "not tried, since all processes are one user here (`status` says so)."
    with Peer(stage.made.config.paths.admin_socket, who.gateway, {}) as peer:
        try:
            peer.call("approvals.list")
        except (ConnectionError, WireError) as exc:
            return True, f"refused ({type(exc).__name__})."
    return False, "admitted!"


def _scene(name: str, does: str, answer: dict[str, Any], expected: str, holds: bool) -> Scene:  # noqa: FBT001
    outcome = str(answer["decision"]["outcome"])
    detail = _text(answer) or str(answer["decision"]["reason"])
    return Scene(name, does, outcome, detail, outcome == expected and holds)


def _text(answer: dict[str, Any]) -> str:
    return "".join(part["text"] for part in answer.get("result", {}).get("content", []))


def _wait(until: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not until() and time.monotonic() < end_s:
        time.sleep(0.05)


def _show(scene: Scene) -> None:
    from rich.console import Console
    from rich.text import Text

    from safety_wrapper.cli.escape import prose

    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    line = Text("✓ " if scene.ok else "✗ ", style="green" if scene.ok else "bold red")
    line.append(f"{scene.name:<24}", style="bold")
    line.append(f" the agent {scene.does}" if not scene.does.startswith("the owner") else f" {scene.does}")
    line.append(f"  → {scene.outcome}", style="cyan")
    console.print(line)
    console.print(Text(f"    {prose(scene.detail)[:400]}", style="dim"))
