"""The log on the terminal: found, told, exported; values of strangers stay harmless."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_wrapper.cli import report
from safety_wrapper.cli.audit import records_between
from unit.cli.conftest import Run
from unit.cli.fake_core import NOW, Served, exported_log, record

DAY = 86_400
MIDNIGHT = NOW - NOW % DAY


def decision(seq: int, outcome: str, *, at: int = NOW, agent: str = "main") -> dict[str, object]:
    body = {"outcome": outcome, "class": "RED", "rules": ["files.delete"], "reason": "this deletes a folder"}
    return record(seq, "decision", body, at=at, agent=agent)


def test_tail(served: Served, run: Run) -> None:
    served.core.records = [decision(seq, "allow") for seq in range(1, 31)]
    lines = run("audit", "tail", "-n", "5").out.splitlines()
    assert [line.split()[0] for line in lines] == ["26", "27", "28", "29", "30"]
    assert "allow" in lines[0]
    assert [row["seq"] for row in run("audit", "tail", "--after", "3", "-n", "2", "--json").json["records"]] == [4, 5]


def test_tail_shows_no_control_characters(served: Served, run: Run) -> None:
    served.core.records = [record(1, "decision", {"outcome": "block", "reason": "\x1b[2J\u202e"}, agent="\x1b]0;x\x07")]
    assert run("audit", "tail").out.rstrip("\n").isprintable()


def test_search_passes_only_what_was_given(served: Served, run: Run) -> None:
    served.core.records = [decision(1, "block"), decision(2, "block")]
    ran = run("audit", "search", "--outcome", "block", "--since", "2026-11-25", "--agent", "main")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["1", "2"]
    where = dict(served.core.asked)["audit.search"]["where"]
    assert where == {"outcome": "block", "since": 1_795_564_800, "agent": "main"}


@pytest.mark.parametrize(("text", "code"), [("2h", 0), ("1795449600", 0), ("2026-11-25T12:00", 0), ("yesterday", 2)])
def test_moments(served: Served, run: Run, text: str, code: int) -> None:
    assert run("audit", "search", "--since", text).code == code


def test_export_writes_a_closed_file_and_never_overwrites(served: Served, run: Run, tmp_path: Path) -> None:
    served.core.export = b'{"export":1}\n{"seq":1}\n'
    ran = run("audit", "export", "audit.jsonl", "--json")
    assert (ran.code, ran.json["records"]) == (0, 1)
    file = tmp_path / "audit.jsonl"
    assert file.read_bytes() == served.core.export
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("audit", "export", "audit.jsonl").code == 2
    assert run("audit", "export", "missing/audit.jsonl").code == 2


@pytest.fixture
def exported(tmp_path: Path) -> bytes:
    """A real ledger's export."""
    return exported_log(tmp_path)


def test_verify(served: Served, run: Run, tmp_path: Path, exported: bytes) -> None:
    served.core.export = exported
    assert run("audit", "verify").code == 0
    (tmp_path / "audit.jsonl").write_bytes(exported)
    served.stop()
    ran = run("audit", "verify", "audit.jsonl")
    assert ran.code == 0
    assert "The chain holds: records 1 to" in ran.out
    (tmp_path / "audit.jsonl").write_bytes(exported.replace(b'"n":1', b'"n":7'))
    assert run("audit", "verify", "audit.jsonl").code == 5


def test_verify_with_a_key(served: Served, run: Run, tmp_path: Path, exported: bytes) -> None:
    served.core.export = exported
    (tmp_path / "audit.jsonl").write_bytes(exported)
    (key,) = run("audit", "keys", "--json").json["public_keys"].values()
    assert run("audit", "verify", "audit.jsonl", "--key", key).code == 0
    ran = run("audit", "verify", "audit.jsonl", "--key", "A" * 43, "--json")
    assert (ran.code, ran.json["ok"]) == (5, False)


def test_verify_without_a_core_and_without_a_file(run: Run) -> None:
    assert run("audit", "verify").code == 3


def test_verify_of_nonsense_is_damaged_data(run: Run, tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_bytes(b"no export\n")
    assert run("audit", "verify", "audit.jsonl").code == 5


def test_report(served: Served, run: Run) -> None:
    served.core.records = [
        decision(1, "allow", at=MIDNIGHT - 1),
        decision(2, "allow", at=MIDNIGHT),
        decision(3, "require_approval", at=MIDNIGHT + 5),
        record(4, "approval", {"event": "approved"}, at=MIDNIGHT + 6),
        record(5, "execution", {}, at=MIDNIGHT + 6),
        record(6, "result", {"ok": True}, at=MIDNIGHT + 7),
        record(7, "alarm", {"what": "\x1b[2J"}, at=MIDNIGHT + 8),
        record(8, "owner", {"kind": "level", "level": 1}, at=MIDNIGHT + 9),
        decision(9, "block", at=MIDNIGHT + DAY),
    ]
    ran = run("audit", "report", "--day", "2026-11-23")
    assert ran.code == 0
    assert "records 2 to 8" in ran.out
    assert "Allowed 1, held for a yes 1, refused 0." in ran.out
    assert "alarm" in ran.out
    assert all(line.isprintable() for line in ran.out.splitlines())
    told = run("audit", "report", "--day", "2026-11-23", "--json").json
    assert told["records"] == {"count": 7, "first_seq": 2, "last_seq": 8}
    assert told["approvals"] == {"approved": 1}


def test_a_day_without_records(served: Served, run: Run) -> None:
    assert "nothing was recorded" in run("audit", "report", "--day", "2020-01-01").out


class Log:
    """A core that holds records, as far as paging goes."""

    def __init__(self, times: list[int]) -> None:
        self.records = [{"seq": seq, "at": at} for seq, at in enumerate(times, start=1)]

    def call(self, verb: str, *, after_seq: int = 0, limit: int = 0) -> dict[str, object]:
        if verb == "status":
            return {"ledger": {"seq": len(self.records)}}
        return {"records": self.records[after_seq : after_seq + limit]}


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(0, 20), st.integers(0, 20))
def test_the_day_is_found_by_halving(times: list[int], start: int, end: int) -> None:
    log = Log(sorted(times))
    found = list(records_between(log, start, end))  # type: ignore[arg-type]
    assert found == [row for row in log.records if start <= row["at"] < end]


def test_long_lists_are_counted() -> None:
    told = report.tell("2026-11-23", [decision(seq, "allow", agent=f"agent{seq}") for seq in range(1, 9)])  # type: ignore[misc]
    assert "and 3 more" in "\n".join(report.lines(told))
