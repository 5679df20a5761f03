"""Every failure is one line, one exit code, and under --json one object."""

from __future__ import annotations

import click
import pytest

from safety_wrapper import errors
from safety_wrapper.cli import failures
from unit.cli.conftest import Run
from unit.cli.fake_core import Served


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (ConnectionRefusedError(111, "refused"), 3),
        (FileNotFoundError(2, "no such file"), 3),
        (ConnectionResetError("closed"), 3),
        (PermissionError(13, "denied"), 4),
        (TimeoutError(), 124),
        (OSError(28, "no space"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("no such option"), 2),
        (click.ClickException("failed"), 1),
        (errors.WireError("not_permitted", "not permitted"), 4),
        (errors.WireError("unavailable", "away"), 3),
        (errors.WireError("deadline", "late"), 124),
        (errors.WireError("internal", "internal error"), 1),
        (errors.ConfigError("wrong"), 2),
        (errors.NotAllowListedError("not listed"), 5),
        (errors.BundleSignatureError("altered"), 5),
        (errors.LedgerCorruptError("chain"), 5),
        (errors.LedgerFullError("full"), 1),
        (errors.RefusedError("already decided"), 1),
        (errors.RunnerError("away"), 3),
        (failures.Failure("no", do="yes", exit_code=6), 6),
        (ZeroDivisionError("secret"), 1),
    ],
)
def test_each_kind_has_its_exit_code(exc: BaseException, code: int) -> None:
    shown = failures.explain(exc)
    assert shown.exit_code == code
    assert "\n" not in shown.message
    assert "secret" not in shown.message


def every_error(kind: type[errors.SafetyError] = errors.SafetyError) -> list[type[errors.SafetyError]]:
    below = [sub for direct in kind.__subclasses__() for sub in every_error(direct)]
    return [each for each in (kind, *below) if each.__module__ == errors.__name__]


def test_no_error_of_the_engine_is_without_advice() -> None:
    for kind in every_error():
        exc = kind("busy", "busy") if kind is errors.WireError else kind("busy")
        assert failures.explain(exc).do


def test_without_a_core_the_exit_code_is_3(run: Run) -> None:
    ran = run("status")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == (
        "safety-wrapper: the core is not running. Do: start it with `safety-wrapper up`, or look at "
        "`systemctl status safety-wrapper.target`\n"
    )


def test_errors_under_json_are_one_object(run: Run) -> None:
    ran = run("status", "--json")
    assert ran.code == 3
    assert ran.json["error"].keys() == {"code", "message", "do"}
    assert ran.err == ""


def test_wrong_usage_under_json(run: Run) -> None:
    ran = run("approvals", "show", "--json")
    assert ran.code == 2
    assert ran.json["error"]["code"] == "usage"


@pytest.mark.parametrize(("error", "code"), [("not_permitted", 4), ("busy", 1), ("internal", 1), ("deadline", 124)])
def test_the_cores_own_errors(served: Served, run: Run, error: str, code: int) -> None:
    served.core.error = error
    ran = run("level", "show")
    assert ran.code == code
    assert ran.err.startswith("safety-wrapper: ")
    served.core.error = None
    assert run("level", "show").code == 0


def test_a_closed_socket_is_not_permitted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr("safety_wrapper.frames.Client", closed)
    assert run("status").code == 4
