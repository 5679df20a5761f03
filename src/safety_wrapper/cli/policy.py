"""``safety-wrapper policy``: authors build, lint, test and explain; who releases makes keys, signs and verifies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from safety_wrapper.cli import admin, failures
from safety_wrapper.model import ToolKind

if TYPE_CHECKING:
    from safety_wrapper.policy import Bundle
    from safety_wrapper.policy.signing import Trust

BUNDLE_FILE: Final = "bundle.json"
SIGNATURE_FILE: Final = "bundle.sig"

_folder = click.Path(exists=True, file_okay=False, path_type=Path)
_new_file = click.Path(dir_okay=False, path_type=Path)
_new_folder = click.Path(file_okay=False, path_type=Path)
_kinds = click.Choice([kind.value for kind in ToolKind])
_source_argument = click.argument("source", type=_folder)
_bundle_argument = click.argument("folder", type=_folder)


@click.group()
def policy() -> None:
    """Write, check, sign and install policy bundles."""


@policy.command()
@_source_argument
@click.option("--output", "-o", "target", type=_new_folder, required=True, help="Folder to write.")
@admin.json_option
def build(*, source: Path, target: Path, as_json: bool) -> None:
    """Compile a folder of YAML into bundle.json.

    The same source always gives the same bytes. Signatures of other bytes that lie in the folder are removed.

    \b
    Example:
      safety-wrapper policy build policy_bundles/base --output out
    """
    from safety_wrapper.cli import policy_report
    from safety_wrapper.policy import parse

    data = _compile(source)
    target.mkdir(parents=True, exist_ok=True)
    file = target / BUNDLE_FILE
    if not file.exists() or file.read_bytes() != data:
        (target / SIGNATURE_FILE).unlink(missing_ok=True)
        file.write_bytes(data)
    facts = policy_report.facts_of(parse(data))
    if as_json:
        admin.print_json({"bundle": facts, "file": str(file), "bytes": len(data)})
    else:
        policy_report.show_bundle(facts)
        click.echo(f"{file}: {len(data)} bytes. Next: safety-wrapper policy sign {target} --key KEYFILE")


@policy.command()
@_bundle_argument
@click.option("--key", type=_new_file, required=True, help="Private key file, as `policy keys new` makes it.")
@click.option("--kid", help="Id of the key in trust.bundle_keys; default: made from the public key.")
@admin.json_option
def sign(*, folder: Path, key: Path, kid: str | None, as_json: bool) -> None:
    """Add a signature to a built bundle.

    Signatures by other keys stay; one by the same key id is replaced.

    \b
    Example:
      safety-wrapper policy sign out --key release.key
    """
    from safety_wrapper.policy import parse, signing

    private = signing.load_private(key)
    name = kid or signing.key_id(private)
    data, present = _compiled(folder), _signatures(folder)
    parse(data)
    entries = signing.read_signatures(present) if present else []
    (folder / SIGNATURE_FILE).write_bytes(signing.signatures_json([*entries, signing.sign(data, name, private)]))
    if as_json:
        admin.print_json({"kid": name, "file": str(folder / SIGNATURE_FILE)})
    else:
        click.echo(f"{folder / SIGNATURE_FILE}: signed by {name}")


@policy.command()
@_bundle_argument
@click.option("--trust", "trusted", multiple=True, metavar="KID=KEY", help="Trust this key instead of the configured.")
@click.option(
    "--threshold", type=click.IntRange(min=1), default=1, show_default=True, help="With --trust: keys needed."
)
@admin.json_option
@click.pass_context
def verify(ctx: click.Context, *, folder: Path, trusted: tuple[str, ...], threshold: int, as_json: bool) -> None:
    """Check a signed bundle as the core would.

    Uses the keys of the configuration, or those given. What was in force here before is known to the core only. Exit
    code 5: not to be trusted; 1: expired, but within its grace.

    \b
    Example:
      safety-wrapper policy verify out --trust release-1=PUBLIC_KEY
    """
    import time

    from safety_wrapper.cli import policy_report
    from safety_wrapper.policy import activation, signing

    trust = _trust(trusted, threshold)
    bundle = activation.judge_folder(folder, trust, None, int(time.time()))
    kids = signing.verify(_compiled(folder), _signatures(folder) or b"", trust)
    degraded = activation.freshness(bundle, int(time.time()))
    if as_json:
        admin.print_json({"bundle": policy_report.facts_of(bundle), "signed_by": list(kids), "degraded": degraded})
    else:
        policy_report.show_bundle(policy_report.facts_of(bundle))
        click.echo(f"signed by {', '.join(kids)}" + (f"; {degraded}" if degraded else ""))
    ctx.exit(failures.FINDING if degraded else failures.OK)


@policy.group()
def keys() -> None:
    """Make and show the keys that sign bundles."""


@keys.command(name="new")
@click.argument("file", type=_new_file)
@click.option("--kid", help="Id to trust the key under; default: made from the public key.")
@admin.json_option
def keys_new(*, file: Path, kid: str | None, as_json: bool) -> None:
    """Make a signing key in a new file that only you can read.

    Prints the public half as it goes into trust.bundle_keys. The file is not encrypted: keep it off the tenant.

    \b
    Example:
      safety-wrapper policy keys new release.key
    """
    from safety_wrapper.policy import signing

    _print_key(signing.generate_key(file), kid, as_json=as_json)


@keys.command(name="show")
@click.argument("file", type=_new_file)
@click.option("--kid", help="Id to trust the key under; default: made from the public key.")
@admin.json_option
def keys_show(*, file: Path, kid: str | None, as_json: bool) -> None:
    """Print the public half of a signing key.

    \b
    Example:
      safety-wrapper policy keys show release.key
    """
    from safety_wrapper.policy import signing

    _print_key(signing.load_private(file), kid, as_json=as_json)


@policy.command()
@_source_argument
@admin.json_option
@click.pass_context
def lint(ctx: click.Context, *, source: Path, as_json: bool) -> None:
    """Name everything that is wrong or missing in a bundle's source.

    Exit code 1: there is something. Runs no plugin; `policy test` does.

    \b
    Example:
      safety-wrapper policy lint policy_bundles/base
    """
    from safety_wrapper.cli import output, policy_report
    from safety_wrapper.cli.policy_source import SourceError, compile_source
    from safety_wrapper.policy import parse

    try:
        findings = policy_report.gaps_of(parse(compile_source(source)))
    except SourceError as exc:
        findings = [
            {"file": p.file, "line": p.line, "rule": p.rule or None, "message": p.message} for p in exc.problems
        ]
    if as_json:
        admin.print_json({"findings": findings})
    else:
        for found in findings:
            place = f"{found['file']}:{found['line']}: " if found["file"] else ""
            output.sentence(place + (f"{found['rule']}: " if found["rule"] else "") + str(found["message"]))
        click.echo(f"{len(findings)} findings" if findings else "nothing found")
    ctx.exit(failures.FINDING if findings else failures.OK)


@policy.command()
@_source_argument
@admin.json_option
@click.pass_context
def test(ctx: click.Context, *, source: Path, as_json: bool) -> None:
    """Run a bundle's examples and suite on the path that real calls take.

    SOURCE is a folder of YAML or a built one. All installed plugins take part. Exit code 1: a case fails.

    \b
    Example:
      safety-wrapper policy test policy_bundles/base
    """
    from safety_wrapper.cli import output, policy_report
    from safety_wrapper.policy import suite
    from safety_wrapper.trial import Trial

    bundle = _bundle_of(source)
    plan, used = policy_report.installed_plan(quiet=as_json)
    failed = suite.check(bundle, Trial(plan, bundle).verdict)
    bad = {failure.id for failure in failed}
    if as_json:
        rows = [{"id": failure.id, "message": failure.message} for failure in failed]
        admin.print_json({"cases": len(bundle.suite), "failed": len(bad), "failures": rows, "plugins": used})
    else:
        for failure in failed:
            output.sentence(f"{failure.id}: {failure.message}")
        click.echo(f"{len(bundle.suite)} cases, {len(bad)} failed")
    ctx.exit(failures.FINDING if failed or not bundle.suite else failures.OK)


@policy.command()
@_source_argument
@click.option("--tool", required=True, help="Name of the tool, as in the registry.")
@click.option(
    "--kind", type=_kinds, help="Kind of the tool; default: the own tool of that name, else the only other one."
)
@click.option("--params", default="{}", show_default=True, help="Its parameters, as JSON.")
@click.option("--context", "context_text", default="{}", show_default=True, help="Test context, as in a suite's case.")
@admin.json_option
def explain(*, source: Path, tool: str, kind: str | None, params: str, context_text: str, as_json: bool) -> None:
    """Say how a bundle judges one call, and why.

    Nothing is run or recorded. All installed plugins take part.

    \b
    Example:
      safety-wrapper policy explain policy_bundles/base --tool exec --params '{"command":"rm -r /srv/x"}'
    """
    from safety_wrapper.cli import policy_report
    from safety_wrapper.errors import BundleFormatError
    from safety_wrapper.policy import suite
    from safety_wrapper.policy.shape import check_context
    from safety_wrapper.trial import Trial, context_of

    values, context = _object(params, "--params"), _object(context_text, "--context")
    try:
        check_context(context)
    except BundleFormatError as exc:
        raise click.UsageError(f"--context: {exc.message}") from exc
    bundle = _bundle_of(source)
    key = suite.case_key(bundle, tool, kind)
    plan, used = policy_report.installed_plan(quiet=as_json)
    judged = Trial(plan, bundle).judge(key, values, context_of(context))
    facts = policy_report.explanation(key, judged, used)
    if as_json:
        admin.print_json(facts)
    else:
        policy_report.show_explanation(facts)


@policy.command()
@_bundle_argument
@admin.json_option
def activate(*, folder: Path, as_json: bool) -> None:
    """Take a signed bundle into force.

    The core reads the folder itself, judges it and runs its suite. If it refuses, the bundle in force stays: exit
    code 1.

    \b
    Example:
      safety-wrapper policy activate out
    """
    from safety_wrapper.cli import policy_report

    answer = admin.ask("bundle.activate", path=str(folder.resolve()))
    if as_json:
        admin.print_json(answer)
    else:
        policy_report.show_bundle(answer["bundle"])
        click.echo("in force")


@policy.command()
@admin.json_option
@click.pass_context
def state(ctx: click.Context, *, as_json: bool) -> None:
    """Show the bundle in force.

    Exit code 1: there is none, so everything is blocked.

    \b
    Example:
      safety-wrapper policy state
    """
    from safety_wrapper.cli import policy_report

    answer = admin.ask("bundle.state")
    bundle = answer.get("bundle")
    if as_json:
        admin.print_json(answer)
    elif bundle:
        policy_report.show_bundle(bundle)
    else:
        click.echo("no bundle is in force: every call is blocked")
    ctx.exit(failures.OK if bundle else failures.FINDING)


def _print_key(key: Any, kid: str | None, *, as_json: bool) -> None:
    from safety_wrapper.policy import signing

    entry = {"kid": kid or signing.key_id(key), "ed25519": signing.public_text(key)}
    admin.print_json(entry) if as_json else click.echo(json.dumps(entry))


def _compiled(folder: Path) -> bytes:
    from safety_wrapper.policy.bundle import MAX_BUNDLE_BYTES

    path = folder / BUNDLE_FILE
    if not path.is_file():
        raise click.UsageError(f"{folder} holds no {BUNDLE_FILE}; build it with `safety-wrapper policy build`")
    with path.open("rb") as file:
        return file.read(MAX_BUNDLE_BYTES + 1)


def _signatures(folder: Path) -> bytes | None:
    from safety_wrapper.policy.signing import MAX_SIGNATURE_BYTES

    path = folder / SIGNATURE_FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(MAX_SIGNATURE_BYTES + 1)


def _bundle_of(folder: Path) -> Bundle:
    """The bundle of a source folder, or of a built one (whose signature plays no part here)."""
    from safety_wrapper.policy import parse

    return parse(_compiled(folder) if (folder / BUNDLE_FILE).is_file() else _compile(folder))


def _compile(source: Path) -> bytes:
    """A source that does not compile is a finding about the author's work, not damaged data."""
    from safety_wrapper.cli.policy_source import SourceError, compile_source

    try:
        return compile_source(source)
    except SourceError as exc:
        raise failures.Failure(exc.message, do=exc.do, code=exc.code) from exc


def _trust(given: tuple[str, ...], threshold: int) -> Trust:
    from safety_wrapper.policy import signing

    if not given:
        return admin.settings().trust
    pairs = [text.partition("=") for text in given]
    if any(not kid or not key for kid, _, key in pairs):
        raise click.UsageError("--trust wants KID=KEY, as `policy keys new` prints them")
    return signing.Keys(tuple(signing.Key(kid, key) for kid, _, key in pairs), threshold)


def _object(text: str, option: str) -> dict[str, Any]:
    from safety_wrapper.canonical import parse_strict
    from safety_wrapper.errors import CanonicalError

    try:
        value = parse_strict(text.encode("utf-8", "surrogatepass"))
    except CanonicalError as exc:
        raise click.UsageError(f"{option}: {exc.message}") from exc
    if not isinstance(value, dict):
        raise click.UsageError(f"{option}: must be one JSON object")
    return value
