"""``level``, ``gate``, ``tenant``: what only the owner may set. Each change is an owner's statement in the ledger."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

import click

from safety_wrapper.cli import admin
from safety_wrapper.cli.escape import exact

LEVELS: Final = {1: "Training Wheels", 2: "Trusted Assistant", 3: "Full Autonomy"}
_DOMAIN: Final = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_agent_option = click.option("--agent", default="*", help="One agent; it can only be stricter than all. Default: all.")
_reason_option = click.option("--reason", default="", help="Why, for the audit log (at most 200 characters).")


@click.group()
def level() -> None:
    """See and set how far an agent may go without asking."""


@level.command(name="show")
@admin.json_option
def level_show(*, as_json: bool) -> None:
    """Show the level of each agent.

    \b
    Example:
      safety-wrapper level show
    """
    levels = _effective()["levels"]
    if as_json:
        admin.print_json({"levels": levels})
        return
    for agent, value in {"*": 2, **levels}.items():
        click.echo(f"{_agent(agent)}: {value} ({LEVELS.get(value, 'unknown')})")


@level.command(name="set")
@click.argument("value", metavar="1|2|3", type=click.IntRange(1, 3))
@_agent_option
@_reason_option
@admin.json_option
def level_set(*, value: int, agent: str, reason: str, as_json: bool) -> None:
    """Set the level: 1 asks for nearly everything, 3 only for the worst.

    \b
    Example:
      safety-wrapper level set 1 --reason "new agent"
      safety-wrapper level set 1 --agent main
    """
    answer = _state("level", {"agent": agent, "level": value}, reason)
    every = {"*": 2, **_effective()["levels"]}["*"]
    if as_json:
        admin.print_json({**answer, "agent": agent, "level": value})
        return
    click.echo(f"{_agent(agent)}: level {value} ({LEVELS[value]}).")
    if agent != "*" and value > every:
        click.echo(f"It has no effect now: all agents are at {every}, and one agent can only be stricter.")


@click.group()
def gate() -> None:
    """See and set what may leave the tenant unasked."""


@gate.command(name="show")
@admin.json_option
def gate_show(*, as_json: bool) -> None:
    """Show the state of the gate to the outside.

    \b
    Example:
      safety-wrapper gate show
    """
    gates = _effective()["gates"]
    if as_json:
        admin.print_json({"gates": gates})
        return
    for agent, state in {"*": "locked", **gates}.items():
        click.echo(f"{_agent(agent)}: {state}")


@gate.command(name="set")
@click.argument("state", type=click.Choice(["locked", "named"]))
@_agent_option
@_reason_option
@admin.json_option
def gate_set(*, state: str, agent: str, reason: str, as_json: bool) -> None:
    """Set the gate: locked asks for all that leaves, named passes what the user named.

    \b
    Example:
      safety-wrapper gate set locked
    """
    answer = _state("gate", {"agent": agent, "state": state}, reason)
    if as_json:
        admin.print_json({**answer, "agent": agent, "state": state})
    else:
        click.echo(f"{_agent(agent)}: gate {state}.")


@click.group()
def tenant() -> None:
    """See and set what belongs to the tenant."""


@tenant.command(name="show")
@admin.json_option
def tenant_show(*, as_json: bool) -> None:
    """Show the tenant's own domains and internal services.

    \b
    Example:
      safety-wrapper tenant show
    """
    facts = _tenant()
    if as_json:
        admin.print_json(facts)
        return
    click.echo("domains: " + (", ".join(map(exact, facts["domains"])) or "none"))
    for service in facts["internal_services"]:
        click.echo(f"service: {exact(service['host'])} port {service['port']} at {exact(service['address'])}")


@tenant.command(name="set-domains")
@click.argument("domains", nargs=-1)
@_reason_option
@admin.json_option
def tenant_set_domains(*, domains: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Set the tenant's own mail domains, all of them; without any: none.

    Mail to these counts as inside.

    \b
    Example:
      safety-wrapper tenant set-domains example.com example.org
    """
    facts = _tenant()
    facts["domains"] = sorted({_domain(domain) for domain in domains})
    _save_tenant(facts, reason, as_json=as_json)


@tenant.command(name="add-service")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.argument("address")
@_reason_option
@admin.json_option
def tenant_add_service(*, host: str, port: int, address: str, reason: str, as_json: bool) -> None:
    """Add one internal service: an exact host, port and address.

    \b
    Example:
      safety-wrapper tenant add-service wiki.example.com 443 10.0.0.7
    """
    try:
        address = str(ipaddress.ip_address(address))
    except ValueError as exc:
        raise click.BadParameter("not an IP address", param_hint="ADDRESS") from exc
    facts = _tenant()
    host = _domain(host)
    added = {"host": host, "port": port, "address": address}
    facts["internal_services"] = [*_without(facts["internal_services"], host, port), added]
    _save_tenant(facts, reason, as_json=as_json)


@tenant.command(name="remove-service")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@_reason_option
@admin.json_option
def tenant_remove_service(*, host: str, port: int, reason: str, as_json: bool) -> None:
    """Remove one internal service.

    \b
    Example:
      safety-wrapper tenant remove-service wiki.example.com 443
    """
    facts = _tenant()
    facts["internal_services"] = _without(facts["internal_services"], _domain(host), port)
    _save_tenant(facts, reason, as_json=as_json)


def _effective() -> dict[str, Any]:
    effective: dict[str, Any] = admin.ask("own.list")["effective"]
    return effective


def _tenant() -> dict[str, Any]:
    effective = _effective()
    return {"domains": effective["domains"], "internal_services": effective["internal_services"]}


def _save_tenant(facts: dict[str, Any], reason: str, *, as_json: bool) -> None:
    answer = _state("tenant", facts, reason)
    if as_json:
        admin.print_json({**answer, **facts})
    else:
        domains = ", ".join(facts["domains"]) or "none"
        click.echo(f"domains: {domains}; internal services: {len(facts['internal_services'])}")


def _state(kind: str, body: dict[str, Any], reason: str) -> dict[str, Any]:
    if len(reason) > 200:
        raise click.BadParameter("at most 200 characters", param_hint="--reason")
    return admin.ask("own.set", statement={"kind": kind, "body": body, "reason": reason, "ends_at": None})


def _without(services: list[dict[str, Any]], host: str, port: int) -> list[dict[str, Any]]:
    return [service for service in services if (service["host"], service["port"]) != (host, port)]


def _domain(text: str) -> str:
    """A domain in the form that rules compare: lower case, ASCII (an international one as ``xn--…``)."""
    name = text.lower()
    if not _DOMAIN.fullmatch(name):
        raise click.BadParameter("not a domain name in ASCII form (international names as xn--…)", param_hint="DOMAIN")
    return name


def _agent(agent: str) -> str:
    return "all agents" if agent == "*" else exact(agent)
