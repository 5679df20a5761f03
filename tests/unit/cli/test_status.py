"""Am I protected now? The answer is in the exit code too."""

from __future__ import annotations

from unit.cli.conftest import Run
from unit.cli.fake_core import Served


def test_protected(served: Served, run: Run) -> None:
    ran = run("status")
    assert ran.code == 0
    for words in ("Protected.", "sandbox", "1 to decide", "base 3 (abababababab)", "1 d 1 h", "weaker"):
        assert words in ran.out


def test_degraded(served: Served, run: Run) -> None:
    served.core.protected = False
    ran = run("status")
    assert ran.code == 1
    assert "DEGRADED" in ran.out
    assert "NOT OK" in ran.out


def test_stopped(served: Served, run: Run) -> None:
    served.core.stopped = True
    ran = run("status")
    assert ran.code == 1
    assert "STOPPED" in ran.out


def test_json_is_the_cores_answer(served: Served, run: Run) -> None:
    ran = run("status", "--json")
    assert ran.code == 0
    assert ran.json["protected"] is True
    assert not {"id", "ok"} & ran.json.keys()


def test_the_core_ended(served: Served, run: Run) -> None:
    served.stop()
    assert run("status").code == 3
