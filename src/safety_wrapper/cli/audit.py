"""``safety-wrapper audit``: the log of what was asked, decided and done, and the proof that nobody changed it."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from safety_wrapper.cli import admin, failures
from safety_wrapper.cli.escape import exact, prose

if TYPE_CHECKING:
    from safety_wrapper.frames import Client

MAX_EXPORT_BYTES: Final = 1 << 30
PAGE: Final = 500
_AGO: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Moment(click.ParamType[int]):
    """``2026-11-25``, ``2026-11-25T12:00`` (UTC), seconds since the epoch, or ``30m``, ``2h``, ``7d`` ago."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if ago := _AGO.fullmatch(value):
            return int(time.time()) - int(ago[1]) * _UNITS[ago[2]]
        if value.isascii() and value.isdigit() and len(value) <= 12:
            return int(value)
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            self.fail("not a moment: give 2026-11-25, 2026-11-25T12:00 or 2h", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp())


@click.group()
def audit() -> None:
    """Read, search, check and export the audit log."""


@audit.command()
@click.option("-n", "--lines", type=click.IntRange(1, PAGE), default=20, help="How many of the newest.")
@click.option("--after", type=click.IntRange(min=0), help="Those after this number instead of the newest.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing new ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (with --follow: one a line).")
def tail(*, lines: int, after: int | None, follow: bool, as_json: bool) -> None:
    """Print the newest records.

    \b
    Example:
      safety-wrapper audit tail -n 5
    """
    with admin.connect() as client:
        start = after if after is not None else max(0, client.call("status")["ledger"]["seq"] - lines)
        records = client.call("audit.tail", after_seq=start, limit=lines)["records"]
        if as_json and not follow:
            admin.print_json({"records": records})
            return
        while True:
            for record in records:
                click.echo(json.dumps(record, sort_keys=True) if as_json else _line(record))
                start = record["seq"]
            if not follow:
                return
            time.sleep(1)
            records = client.call("audit.tail", after_seq=start, limit=PAGE)["records"]


@audit.command()
@click.option("--kind", help="decision, execution, result, approval, owner, alarm …")
@click.option("--agent", help="Records of this agent.")
@click.option("--session", help="Records of this session.")
@click.option("--ref", help="Records about this id.")
@click.option("--since", type=Moment(), help="From this moment on: 2026-11-25, 2026-11-25T12:00, 2h, 7d.")
@click.option("--until", type=Moment(), help="Up to this moment.")
@click.option("--outcome", type=click.Choice(["allow", "require_approval", "block"]), help="Decisions of this outcome.")
@click.option("--text", help="Records that hold this text.")
@click.option("--limit", type=click.IntRange(1, PAGE), default=100, help="At most so many.")
@admin.json_option
def search(*, limit: int, as_json: bool, **where: str | int | None) -> None:
    """Find records; the newest of them, oldest first.

    \b
    Example:
      safety-wrapper audit search --outcome block --since 1d
    """
    given = {key: value for key, value in where.items() if value is not None}
    records = sorted(admin.ask("audit.search", where=given, limit=limit)["records"], key=lambda record: record["seq"])
    if as_json:
        admin.print_json({"records": records})
        return
    for record in records:
        click.echo(_line(record))
    if not records:
        click.echo("None.")
    elif len(records) == limit:
        click.echo(f"(the newest {limit}: narrow the search, or raise --limit)")


@audit.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", help="The public key that the checkpoints must be signed with: see `audit keys`.")
@admin.json_option
@click.pass_context
def verify(ctx: click.Context, *, file: Path | None, key: str | None, as_json: bool) -> None:
    """Check the chain and its signed checkpoints: of an exported FILE, or of the running core's log.

    A file is checked by itself: neither core nor secret is needed. What the signature is worth hangs on the key: give
    the one that you noted from `audit keys`, or compare the one that is printed.

    \b
    Example:
      safety-wrapper audit verify
      safety-wrapper audit verify audit.jsonl
    """
    from safety_wrapper.ledger import export

    if file is None:
        with admin.connect() as client:
            report = export.verify_export(_exported(client, 1, None).splitlines(keepends=True))
    else:
        with file.open("rb") as stream:
            report = export.verify_export(stream)
    fault = report.fault
    if fault is None and key is not None and key not in {public for _, public in report.public_keys}:
        fault = "signed with another key than the one given"
    if as_json:
        admin.print_json({**admin.plain(report), "ok": fault is None, "fault": fault})
    elif fault is None:
        click.echo(f"The chain holds: records {report.from_seq} to {report.to_seq}, {report.checkpoints} checkpoints.")
        if report.covered_to < report.to_seq:
            click.echo(f"Signed up to record {report.covered_to}; what follows is only chained.")
        for kid, public in report.public_keys:
            click.echo(f"Signed with {exact(kid)}: {exact(public)}")
    else:
        click.echo(f"DAMAGED: {prose(fault)}")
    ctx.exit(failures.OK if fault is None else failures.DAMAGED)


@audit.command()
@admin.json_option
def keys(*, as_json: bool) -> None:
    """Show the public key that signs the checkpoints; note it somewhere else than on this machine.

    \b
    Example:
      safety-wrapper audit keys
    """
    from safety_wrapper.canonical import parse_strict

    with admin.connect() as client:
        last = client.call("status")["ledger"]["seq"]
        header = parse_strict(_exported(client, last, last).partition(b"\n")[0])
    if as_json:
        admin.print_json({"public_keys": header["public_keys"]})
    else:
        for kid, public in header["public_keys"].items():
            click.echo(f"{exact(kid)}: {exact(public)}")


@audit.command(name="export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--from", "from_seq", type=click.IntRange(min=1), default=1, help="First record.")
@click.option("--to", "to_seq", type=click.IntRange(min=1), help="Last record. Default: the newest.")
@admin.json_option
def export_(*, file: Path, from_seq: int, to_seq: int | None, as_json: bool) -> None:
    """Write records to FILE as JSON lines that `audit verify` can check anywhere. Never overwrites.

    \b
    Example:
      safety-wrapper audit export audit.jsonl
    """
    with admin.connect() as client:
        data = _exported(client, from_seq, to_seq)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as exc:
        raise click.BadParameter("there is such a file already", param_hint="FILE") from exc
    except FileNotFoundError as exc:
        raise click.BadParameter("there is no such folder", param_hint="FILE") from exc
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    records = max(0, data.count(b"\n") - 1)
    if as_json:
        admin.print_json({"file": str(file), "records": records, "bytes": len(data)})
    else:
        click.echo(f"{records} records, {len(data)} bytes.")


@audit.command()
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="The day, in UTC. Default: today.")
@admin.json_option
def report(*, day: dt.datetime | None, as_json: bool) -> None:
    """Tell one day: what agents did, what was held, refused and decided.

    \b
    Example:
      safety-wrapper audit report
      safety-wrapper audit report --day 2026-11-25
    """
    from safety_wrapper.cli import report as day_report

    date = (day or dt.datetime.now(dt.UTC)).date()
    start = int(dt.datetime(date.year, date.month, date.day, tzinfo=dt.UTC).timestamp())
    with admin.connect() as client:
        told = day_report.tell(date.isoformat(), records_between(client, start, start + 86400))
    if as_json:
        admin.print_json(day_report.as_json(told))
    else:
        click.echo("\n".join(day_report.lines(told)))


def records_between(client: Client, start: int, end: int) -> Iterator[dict[str, Any]]:
    """The records with ``start <= at < end``. The ledger's time never goes back, so the first is found by halving."""
    last = client.call("status")["ledger"]["seq"]
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        found = client.call("audit.tail", after_seq=middle, limit=1)["records"]
        if found and found[0]["at"] < start:
            low = middle + 1
        else:
            high = middle
    while low < last:
        page = client.call("audit.tail", after_seq=low, limit=PAGE)["records"]
        if not page:
            return
        for record in page:
            if record["at"] >= end:
                return
            yield record
        low = page[-1]["seq"]


def _exported(client: Client, from_seq: int, to_seq: int | None) -> bytes:
    from safety_wrapper import frames

    upper: dict[str, Any] = {} if to_seq is None else {"to_seq": to_seq}
    answer = client.call("audit.export", from_seq=from_seq, **upper)
    admin.own_keys(answer)
    descriptors: list[int] = answer.get("_descriptors", [])
    try:
        if len(descriptors) != 1:
            raise failures.Failure("the core gave no export", do="look at `safety-wrapper doctor`")
        return frames.from_memfd(descriptors[0], max_bytes=MAX_EXPORT_BYTES)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _line(record: dict[str, Any]) -> str:
    """One record on one line."""
    from safety_wrapper.cli import output

    body = record["body"]
    words = [str(record["seq"]), output.clock(record["at"]), record["kind"]]
    if record.get("agent"):
        words.append(exact(record["agent"]))
    words += [prose(str(body[key])) for key in ("event", "outcome", "class", "tool") if body.get(key)]
    if record.get("ref"):
        words.append(exact(record["ref"]))
    if body.get("reason"):
        words.append(prose(str(body["reason"])))
    return "  ".join(words)
