"""``safety-wrapper approvals``: what waits for an owner, shown whole, and the owner's answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from safety_wrapper.cli import admin, failures
from safety_wrapper.cli.escape import exact, prose

if TYPE_CHECKING:
    from safety_wrapper.frames import Client

STATES: Final = (
    "pending",
    "approved",
    "executing",
    "done",
    "error",
    "denied",
    "revoked",
    "expired",
    "cancelled",
    "unknown",
)
#: States in which an earlier yes stands: saying yes again changes nothing and is no fault.
_YES: Final = frozenset({"approved", "executing", "done", "error", "unknown"})


@click.group()
def approvals() -> None:
    """See and decide the calls that wait for an owner's yes."""


@approvals.command(name="list")
@click.option("--state", type=click.Choice((*STATES, "all")), default="pending", help="Only these. Default: pending.")
@click.option("--limit", type=click.IntRange(1, 500), default=100, help="At most so many.")
@admin.json_option
def list_(*, state: str, limit: int, as_json: bool) -> None:
    """List requests, oldest first.

    \b
    Example:
      safety-wrapper approvals list
      safety-wrapper approvals list --state denied
    """
    wanted = {} if state == "all" else {"state": state}
    answer = admin.ask("approvals.list", limit=limit, **wanted)
    if as_json:
        admin.print_json(answer)
        return
    from safety_wrapper.cli import output

    if not answer["items"]:
        click.echo("Nothing waits." if state == "pending" else "None.")
        return
    output.table(
        ("id", "state", "class", "agent", "tool", "what", "left"),
        [
            (
                item["id"],
                item["state"],
                item["class"] + (" → outside" if item["external"] else ""),
                exact(item["agent"] or "unknown"),
                item["tool"],
                item["title"],
                output.span(item["expires_in_s"]) if item["state"] == "pending" else "",
            )
            for item in answer["items"]
        ],
    )


@approvals.command()
@click.argument("request_id", metavar="ID")
@admin.json_option
def show(*, request_id: str, as_json: bool) -> None:
    """Show one request whole: what would happen, to whom, and the very parameters.

    \b
    Example:
      safety-wrapper approvals show apr_01JD000000000000000000000A
    """
    request = _get(request_id)
    if as_json:
        admin.print_json({"request": request})
    else:
        click.echo("\n".join(render(request)))


@approvals.command()
@click.argument("request_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask again.")
@click.option("--comment", default="", help="A word for the audit log.")
@admin.json_option
@click.pass_context
def approve(ctx: click.Context, *, request_id: str, yes: bool, comment: str, as_json: bool) -> None:
    """Say yes to one request: its stored call runs once.

    Shows the request first; the yes is bound to exactly what was shown.

    \b
    Example:
      safety-wrapper approvals approve apr_01JD000000000000000000000A --yes
    """
    if not yes and (as_json or not _can_ask()):
        raise click.UsageError("there is nobody to ask: look at the request with `approvals show`, then give --yes")
    request = _get(request_id)
    if not as_json:
        click.echo("\n".join(render(request)))
    if request["state"] == "pending" and not yes:
        click.confirm("Approve exactly this call?", abort=True)
    _decide(ctx, request, "approve", comment, as_json=as_json)


@approvals.command()
@click.argument("request_id", metavar="ID")
@click.option("--comment", default="", help="A word for the audit log.")
@admin.json_option
@click.pass_context
def deny(ctx: click.Context, *, request_id: str, comment: str, as_json: bool) -> None:
    """Say no to one request; takes back a yes whose call has not run yet.

    \b
    Example:
      safety-wrapper approvals deny apr_01JD000000000000000000000A
    """
    _decide(ctx, _get(request_id), "deny", comment, as_json=as_json)


@approvals.command()
@click.option("--count", type=click.IntRange(min=1), help="End after so many events. Default: never.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def watch(*, count: int | None, as_json: bool) -> None:
    """Print requests as they come and as they are closed.

    \b
    Example:
      safety-wrapper approvals watch --count 1
    """
    left = count
    with admin.connect() as client:
        client.call("approvals.watch")
        for event in _events(client):
            if as_json:
                admin.print_json(event)
            else:
                _print_event(event)
            sys.stdout.flush()
            if left is not None:
                left -= 1
                if left == 0:
                    return


def _events(client: Client) -> Iterator[dict[str, Any]]:
    while True:
        try:
            event = client.receive()
        except TimeoutError:
            continue  # nothing happened for a while
        if event.get("event") in {"approval", "approval_closed"}:
            yield event


def _print_event(event: dict[str, Any]) -> None:
    if event["event"] == "approval":
        request = event["request"]
        click.echo(f"{request['id']} waits: {prose(request['title'])} ({request['class']}, {exact(request['tool'])})")
    else:
        click.echo(f"{event['id']} {prose(event['state'])}")


def _can_ask() -> bool:
    return sys.stdin.isatty()


def _get(request_id: str) -> dict[str, Any]:
    answer = admin.ask("approvals.get", id=request_id)
    request = answer["request"]
    if type(request) is not dict:
        raise failures.Failure("there is no such request", do="look at `safety-wrapper approvals list --state all`")
    return request


def _decide(ctx: click.Context, request: dict[str, Any], decision: str, comment: str, *, as_json: bool) -> None:
    extra = {"comment": comment} if comment else {}
    answer = admin.ask("approvals.decide", id=request["id"], decision=decision, shown_digest=request["digest"], **extra)
    state, changed = answer["state"], answer["changed"]
    stands = state in _YES if decision == "approve" else changed or state in {"denied", "revoked"}
    if as_json:
        admin.print_json({"id": request["id"], "digest": request["digest"], "state": state, "changed": changed})
    elif changed:
        click.echo(f"{request['id']} is now {prose(state)}.")
    else:
        click.echo(f"{request['id']} was {prose(state)} already: nothing changed.")
    ctx.exit(failures.OK if stands else failures.FINDING)


def render(request: dict[str, Any]) -> list[str]:
    """A request as lines for an owner: our own words first, each value whole and unambiguous, the model's words
    last and fenced. No line can be mistaken for one of ours: the fence stands before each of theirs."""
    from safety_wrapper.cli import output

    pending = request["state"] == "pending"
    lines = [
        f"Request   {request['id']}  ({prose(request['state'])}"
        + (f", {output.span(request['expires_in_s'])} left)" if pending else ")"),
        f"What      {prose(request['title'])}",
        f"Why       {prose(request['reason'])}",
        f"Class     {request['class']}" + ("  LEAVES THE TENANT" if request["external"] else ""),
        f"Tool      {exact(request['tool'])}",
        f"Agent     {exact(request['agent'] or 'unknown')}",
        f"Session   {exact(request['session'] or 'unknown')}",
        f"Rules     {', '.join(request['rules']) or 'none'}",
        f"Asked     {output.clock(request['created_at'])} UTC, {request['count']} time(s)",
    ]
    if request["decided_at"]:
        by, at = prose(request["decided_by"] or "unknown"), output.clock(request["decided_at"])
        lines.append(f"Decided   by {by}, {at} UTC")
    if request["comment"]:
        lines.append(f"Comment   {prose(request['comment'])}")
    lines += ["", "It would do"]
    for line in request["lines"]:
        lines += _value_lines(line["label"], line["value"])
    lines += ["", f"Digest    {request['digest']}", ""]
    return lines + _fenced(request.get("params"))


def _value_lines(label: str, value: str) -> list[str]:
    shown = exact(value)
    lines = [f"  {prose(label):<12}{shown}"]
    if shown != value and prose(value) == value:
        lines.append(f"  {'':<12}(has letters outside ASCII; as written: {value})")
    return lines


def _fenced(params: object) -> list[str]:
    """The parameters as the model wrote them, every character accounted for."""
    lines = ["The model's own words, which nobody has checked:", "┌──"]
    if isinstance(params, dict):
        for key, value in params.items():
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            first, *more = text.split("\n")
            lines.append(f"│ {exact(key)}: {exact(first)}")
            lines += [f"│ {' ' * 4}{exact(line)}" for line in more]
    else:
        lines.append("│ (not stored)")
    return [*lines, "└──"]
