"""Approvals on the real ledger, driven by hypothesis, beside a model that knows the true time.

The machine plays the agent, the person, a careless engine, the Hub's outbox, a machine whose clock fails, and somebody
who edits the file while the core is down. Invariants A1–A11 of docs/reference/approvals.md §5. Each rule reaches the
product through module attributes, so a test can put a fault in the place of one function and show that an invariant
notices.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from safety_wrapper.errors import LedgerCorruptError, RefusedError
from safety_wrapper.ledger import Ledger, approvals, outbox, owner, recovery, verify_all
from safety_wrapper.model import AutonomyLevel
from stateful.rig import FAST_FOLDER, START, FakeClock, digest_of, new_request, open_ledger

REQUEST_S = 24 * 3600
GRANT_S = 4 * 3600
COOLDOWN_S = 600
REQUEST_FINAL = {"denied", "expired", "cancelled", "revoked", "done", "error", "unknown"}
GRANT_FINAL = {"expired", "revoked", "done_ok", "done_err", "unknown"}
#: What the policy asks for: nothing may run · nothing is asked · a passkey will do · only root's word will do.
POLICIES = ["deny", "allow", "passkey", "passkey", "root"]
NEED = {"passkey": approvals.PASSKEY, "root": approvals.LOCAL_ROOT}


@dataclass
class Known:
    """What the test knows of one request, by its own book-keeping and the true time."""

    id: str
    tool: str
    call: str
    own_tool: bool
    made_true: float
    approved_true: float | None = None
    assurance: int = 0
    is_denied: bool = False
    runs: int = 0
    result: str | None = None
    events: list[str] = field(default_factory=list)


class ApprovalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=FAST_FOLDER)
        self.clock = FakeClock()
        self.true: float = START
        self.ledger: Ledger = open_ledger(Path(self.folder.name), self.clock)
        self.known: dict[str, Known] = {}
        self.policy: dict[str, str] = {}
        self.running_own: list[str] = []
        self.running_builtin: list[tuple[str, str]] = []
        self.denied_at: dict[str, int] = {}
        self.acked: set[tuple[str, str]] = set()
        self.statements: list[tuple[str, int, int | None]] = []
        self.last_view: tuple[Any, int] | None = None
        self.seen: tuple[dict[str, str], dict[str, str]] = ({}, {})
        self.calls = 0
        self.steps = 0

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    # ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, change: Any) -> Any:
        return self.ledger.write_blocking(change)

    def need(self, tool: str) -> str:
        return self.policy.get(tool, "passkey")

    def states(self) -> tuple[dict[str, str], dict[str, str]]:
        with self.ledger.read() as look:
            requests = dict(look.db.execute("SELECT id, state FROM approval_request").fetchall())
            grants = dict(look.db.execute("SELECT request, state FROM approval_grant").fetchall())
        return requests, grants

    def wanted(self, *states: str, own_tool: bool | None = None) -> list[Known]:
        now, _ = self.states()
        found = [self.known[key] for key, state in now.items() if state in states]
        return [each for each in found if own_tool is None or each.own_tool is own_tool]

    def pick(self, data: st.DataObject, items: list[Any]) -> Any:
        return data.draw(st.sampled_from(items))

    def ran(self, known: Known, need: str) -> None:
        """A1, A2, A3, A4: checked whenever something really runs."""
        assert known.approved_true is not None, "A1: a call ran that nobody approved"
        assert not known.is_denied, "A1: a call ran after the person had said no"
        assert known.runs == 0, "A2: one approval ran twice"
        assert self.true < known.made_true + REQUEST_S, "A3: ran after the request had expired"
        assert self.true < known.approved_true + GRANT_S, "A3: ran after the grant had expired"
        assert need not in ("deny", "allow"), "A4: an approval was spent that the policy does not ask for"
        assert known.assurance >= NEED[need], "A4: the policy asks for more than this approval gave"
        known.runs += 1

    # ── the agent ────────────────────────────────────────────────────────────────────────────────────────────────

    @initialize()
    def first_call(self) -> None:
        self.call_own("mail", "x", "s1")

    @rule(tool=st.sampled_from(["mail", "pay"]), arg=st.sampled_from("xy"), session=st.sampled_from(["s1", "s2"]))
    def agent_calls_own_tool(self, tool: str, arg: str, session: str) -> None:
        self.call_own(tool, arg, session)

    def call_own(self, tool: str, arg: str, session: str) -> approvals.Opened | None:
        if self.need(tool) in ("deny", "allow"):
            return None
        return self.hold(f"own {tool} {arg}", tool, session, own_tool=True)

    @rule(tool=st.sampled_from(["mail", "pay"]), arg=st.sampled_from("xy"), session=st.sampled_from(["s1", "s2"]))
    def agent_calls_builtin(self, tool: str, arg: str, session: str) -> None:
        self.call_builtin(tool, arg, session)

    def call_builtin(self, tool: str, arg: str, session: str) -> str | None:
        """The id of the request whose grant was spent, if one was."""
        call, need = f"builtin {tool} {arg}", self.need(tool)
        if need in ("deny", "allow"):
            return None
        self.calls += 1
        call_id = f"call_{self.calls}"
        granted = self.write(
            lambda txn: approvals.spend_grant(
                txn, call_digest=digest_of(call), agent="main", session=session, tool_call_id=call_id, need=NEED[need]
            )
        )
        if granted is None:
            self.hold(call, tool, session, own_tool=False)
            return None
        with self.ledger.read() as look:
            row = look.db.execute("SELECT request FROM approval_grant WHERE id = ?", (granted,)).fetchone()
            asked = approvals.get(look, row[0])
        known = self.known[row[0]]
        assert known.call == call, "A1: a grant was spent on another call than the approved one"
        assert asked is not None
        assert asked.session == session, "A1: a grant was spent by another session"
        self.ran(known, need)
        self.running_builtin.append((known.id, call_id))
        return known.id

    def hold(self, call: str, tool: str, session: str, *, own_tool: bool) -> approvals.Opened:
        opened: approvals.Opened
        new = new_request(call, tool=tool, session=session, own_tool=own_tool, max_pending=6)
        opened, now = self.write(lambda txn: (approvals.open_request(txn, new), txn.now))
        if opened.state == "cooldown":
            assert now < self.denied_at[new.call_digest] + COOLDOWN_S, "A9: refused though the cooldown is over"
        if opened.id is None or opened.repeated:
            assert opened.id is None or opened.id in self.known
            return opened
        denied = self.denied_at.get(new.call_digest)
        assert denied is None or now >= denied + COOLDOWN_S, "A10: a denied call asked again inside its cooldown"
        self.known[opened.id] = Known(opened.id, tool, call, own_tool, self.true)
        return opened

    @rule(data=st.data(), session=st.sampled_from(["s1", "s2", None]), agent=st.sampled_from(["main", "other"]))
    @precondition(lambda self: self.known)
    def agent_asks_for_result(self, data: st.DataObject, session: str | None, agent: str) -> None:
        known = self.pick(data, list(self.known.values()))
        with self.ledger.read() as look:
            row = approvals.get(look, known.id)
            answer = approvals.result_for(look, known.id, agent=agent, session=session)
        assert row is not None
        if (row.agent, row.session) != (agent, session):
            assert answer is None, "a result was given to another session"
        else:
            assert answer is not None
            assert answer[1] == known.result

    # ── the person, and those who pretend to be one ──────────────────────────────────────────────────────────────

    @rule(
        data=st.data(),
        decision=st.sampled_from(["approve", "approve", "deny"]),
        by=st.sampled_from(["local_root", "passkey:a"]),
    )
    @precondition(lambda self: self.known)
    def person_decides(self, data: st.DataObject, decision: str, by: str) -> None:
        self.decide(self.pick(data, list(self.known.values())), decision, by)

    @rule(data=st.data())
    @precondition(lambda self: self.wanted("pending"))
    def person_approves_one_that_waits(self, data: st.DataObject) -> None:
        self.decide(self.pick(data, self.wanted("pending")), "approve", "local_root")

    @rule(data=st.data())
    @precondition(lambda self: self.wanted("approved"))
    def person_changes_their_mind(self, data: st.DataObject) -> None:
        self.decide(self.pick(data, self.wanted("approved")), "deny", "local_root")

    def decide(self, known: Known, decision: str, by: str) -> None:
        before, grants = self.states()
        answer, now = self.write(
            lambda txn: (
                approvals.decide(txn, known.id, decision=decision, by=by, shown_digest=digest_of(known.call)),
                txn.now,
            )
        )
        old = before[known.id]
        if not answer.changed:
            could = old == "pending" or (
                decision == "deny"
                and old == "approved"
                and (grants.get(known.id) == "live" if not known.own_tool else True)
            )
            row_state = self.states()[0][known.id]
            assert not could or row_state == "expired" or self.states()[1].get(known.id) == "expired", (
                "A9: a decision in time was not taken"
            )
            return
        if decision == "approve":
            assert old == "pending", "A5: approved twice"
            assert self.true < known.made_true + REQUEST_S, "A3: approved after the request had expired"
            known.approved_true = self.true
            known.assurance = approvals.LOCAL_ROOT if by == "local_root" else approvals.PASSKEY
        else:
            assert answer.state == ("denied" if old == "pending" else "revoked")
            known.is_denied = True
            self.denied_at[digest_of(known.call)] = now

    @rule(data=st.data(), how=st.sampled_from(["digest", "hub", "nobody", "id", "word"]))
    @precondition(lambda self: self.known)
    def somebody_forges_a_decision(self, data: st.DataObject, how: str) -> None:
        open_ones = self.wanted("pending")
        known = self.pick(data, open_ones or list(self.known.values()))
        arguments = {"decision": "approve", "by": "local_root", "shown_digest": digest_of(known.call)}
        target = known.id
        if how == "digest":
            arguments["shown_digest"] = digest_of(known.call + " harmless")
        elif how == "hub":
            arguments["by"] = "hub"
        elif how == "nobody":
            arguments["by"] = "agent"
        elif how == "word":
            arguments["decision"] = "allow"
        else:
            target = "apr_unknown"
        before = self.states()
        with contextlib.suppress(RefusedError):
            self.write(lambda txn: approvals.decide(txn, target, **arguments))
            raise AssertionError("A6: a forged decision was taken")
        assert self.states() == before, "A6: a forged decision changed something"

    @rule(data=st.data())
    @precondition(lambda self: self.known)
    def operator_cancels(self, data: st.DataObject) -> None:
        known = self.pick(data, list(self.known.values()))
        if self.write(lambda txn: approvals.cancel(txn, known.id, "kill switch")):
            assert self.states()[0][known.id] == "cancelled"
            known.is_denied = True

    # ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────

    @rule(data=st.data())
    @precondition(lambda self: self.known)
    def engine_tries_to_run_any(self, data: st.DataObject) -> None:
        self.run_own(self.pick(data, list(self.known.values())))

    @rule(data=st.data(), again=st.booleans())
    @precondition(lambda self: self.wanted("approved", own_tool=True))
    def engine_runs_an_approved_one(self, data: st.DataObject, again: bool) -> None:
        known = self.pick(data, self.wanted("approved", own_tool=True))
        self.run_own(known)
        if again:
            self.run_own(known)

    def run_own(self, known: Known) -> bool:
        need = self.need(known.tool)
        if need in ("deny", "allow"):
            return False
        try:
            call = self.write(lambda txn: approvals.begin_execution(txn, known.id, need=NEED[need]))
        except RefusedError:
            return False
        assert known.own_tool, "A1: a built-in's call was run by us"
        assert call.stored_call == known.call.encode(), "A1: another call ran than the stored one"
        self.ran(known, need)
        self.running_own.append(known.id)
        return True

    @rule(data=st.data(), ok=st.booleans())
    @precondition(lambda self: self.running_own)
    def own_tool_ends(self, data: st.DataObject, ok: bool) -> None:
        request = self.pick(data, self.running_own)
        self.running_own.remove(request)
        text = f"result of {request}"
        self.write(lambda txn: approvals.finish_execution(txn, request, ok=ok, text=text, facts={"exit": int(not ok)}))
        self.known[request].result = text

    @rule(data=st.data(), ok=st.booleans())
    @precondition(lambda self: self.running_builtin)
    def builtin_ends(self, data: st.DataObject, ok: bool) -> None:
        entry = self.pick(data, self.running_builtin)
        self.running_builtin.remove(entry)
        self.write(lambda txn: approvals.finish_grant(txn, entry[1], ok))

    @rule(tool=st.sampled_from(["mail", "pay"]), need=st.sampled_from(POLICIES))
    def policy_changes(self, tool: str, need: str) -> None:
        self.policy[tool] = need

    @rule(own_tool=st.booleans(), arg=st.sampled_from("pq"))
    def all_in_time(self, own_tool: bool, arg: str) -> None:
        """A9: asked, approved and run without delay under an unchanged policy: it runs."""
        self.policy["mail"] = "passkey"
        call = f"{'own' if own_tool else 'builtin'} mail {arg}"
        opened = self.hold(call, "mail", "s1", own_tool=own_tool)
        if opened.state != "pending" or opened.id is None or self.states()[1].get(opened.id) == "live":
            return
        self.decide(self.known[opened.id], "approve", "local_root")
        if own_tool:
            assert self.run_own(self.known[opened.id]), "A9: approved in time, and did not run"
        else:
            assert self.call_builtin("mail", arg, "s1") is not None, "A9: approved in time, and was not allowed"

    @rule(
        own_tool=st.booleans(), wait=st.sampled_from([0, 15_000]), other=st.booleans(), then=st.sampled_from(POLICIES)
    )
    def approved_then_something_changes(self, own_tool: bool, wait: int, other: bool, then: str) -> None:
        """Goes deep at once: a fresh yes, then time, policy, session or call change. ``ran`` judges what runs."""
        self.policy["pay"] = "passkey"
        opened = self.hold(f"{'own' if own_tool else 'builtin'} pay z", "pay", "s1", own_tool=own_tool)
        if opened.state != "pending" or opened.id is None:
            return
        known = self.known[opened.id]
        self.decide(known, "approve", "passkey:a")
        self.time_passes(wait)
        self.policy["pay"] = then
        if own_tool:
            self.run_own(known)
        else:
            self.call_builtin("pay", "y" if other else "z", "s1" if other or wait or then == "root" else "s2")

    @rule(own_tool=st.booleans())
    def decided_late(self, own_tool: bool) -> None:
        opened = self.hold(f"{'own' if own_tool else 'builtin'} late", "mail", "s1", own_tool=own_tool)
        if opened.state == "pending" and opened.id is not None:
            self.time_passes(90_000)
            self.decide(self.known[opened.id], "approve", "local_root")

    @rule(session=st.sampled_from(["s1", "s2"]))
    def denied_and_asked_again(self, session: str) -> None:
        for _ in range(2):
            opened = self.hold("own denied", "mail", session, own_tool=True)
            if opened.state == "pending" and opened.id is not None:
                self.decide(self.known[opened.id], "deny", "local_root")

    # ── the owner ────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        agent=st.sampled_from(["*", "main"]),
        level=st.sampled_from([1, 2, 3]),
        ends=st.sampled_from([None, 60, 3600]),
    )
    def owner_sets_level(self, agent: str, level: int, ends: int | None) -> None:
        def change(txn: Any) -> int | None:
            ends_at = None if ends is None else txn.now + ends
            body = {"agent": agent, "level": level}
            owner.set_statement(txn, kind="level", body=body, by="local_root", reason="test", ends_at=ends_at)
            return ends_at

        self.statements.append((agent, level, self.write(change)))

    @invariant()
    def owner_view_holds(self) -> None:
        with self.ledger.read() as look:
            view, now = owner.view(look), look.now
        wanted = {agent: level for agent, level, ends_at in self.statements if ends_at is None or now < ends_at}
        assert {agent: int(level) for agent, level in view.levels.items()} == wanted, "another level than the owner set"
        base = wanted.get("*", 2)
        assert view.level_for("main") == min(base, wanted.get("main", base))
        assert view.level_for(None) == min(base, *wanted.values(), 3)
        assert view.level_for("other") == AutonomyLevel(base)
        if self.last_view is not None:
            assert view.epoch >= self.last_view[1], "the owner's epoch went back"
            assert view.epoch > self.last_view[1] or wanted == self.last_view[0], "a change kept the owner's epoch"
        self.last_view = (wanted, view.epoch)

    # ── time, the machine, and the file ──────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([0.4, 1, 60, 700, 3700, 15_000, 90_000]))
    def time_passes(self, seconds: float) -> None:
        self.true += seconds
        self.clock.pass_time(seconds)

    @rule(jump=st.sampled_from([-3600, -100_000, 3600, 100_000]))
    def wall_clock_jumps(self, jump: int) -> None:
        self.clock.wall += jump
        self.clock.synchronised = False  # the kernel clears the state when the clock is set

    @rule()
    def wall_clock_flickers(self) -> None:
        """Set forward, looked at, set back before anything was written: what was seen must not be taken back."""
        self.clock.wall += 3600
        self.clock.synchronised = False
        self.owner_view_holds()
        self.clock.wall -= 3600

    @rule()
    def time_source_corrects(self) -> None:
        self.clock.wall, self.clock.synchronised = int(self.true), True

    @rule(down=st.sampled_from([5, 4000, 20_000, 90_000]), rtc=st.sampled_from(["right", "right", "stopped", "behind"]))
    def reboot(self, down: int, rtc: str) -> None:
        self.true += down
        self.clock.boot += 1
        self.clock.up = 1.0
        self.clock.synchronised = rtc == "right"
        if rtc == "right":
            self.clock.wall = int(self.true)
        elif rtc == "behind":
            self.clock.wall -= 50_000
        self.restart()

    @rule()
    def restart(self) -> None:
        before = self.states()
        self.ledger.close()
        self.ledger = open_ledger(Path(self.folder.name), self.clock)
        self.running_own.clear()
        self.running_builtin.clear()
        after = self.states()
        for old, new, live in ((before[0], after[0], {"pending", "approved"}), (before[1], after[1], {"live"})):
            for key, state in new.items():
                assert state == old[key] or state not in live | {"executing"}, "A8: a restart made something live"
                assert state != "executing", "A8: something still executes after a restart"
        self.write(recovery.recover)
        assert self.states() == after, "A8: recovering twice is not the same as once"

    @rule(data=st.data())
    @precondition(lambda self: self.wanted("pending", "expired", "done", "unknown", "denied", own_tool=True))
    def somebody_edits_the_file(self, data: st.DataObject) -> None:
        """While the core is down, a request is made to look approved. It must not run."""
        known = self.pick(data, self.wanted("pending", "expired", "done", "unknown", "denied", own_tool=True))
        edit = (
            "UPDATE approval_request SET state = 'approved', decided_by = 'local_root', decided_at = ?, run_before = ? "
            "WHERE id = ?"
        )
        take_back = "UPDATE approval_request SET state = ?, decided_by = ?, decided_at = ?, run_before = ? WHERE id = ?"
        self.restart()
        self.ledger.close()
        with self.plain() as db:
            old = db.execute(
                "SELECT state, decided_by, decided_at, run_before FROM approval_request WHERE id = ?", (known.id,)
            ).fetchone()
            stamp = max(self.clock.wall, int(self.true)) + 10**6
            db.execute(edit, (stamp, stamp, known.id))
        self.ledger = open_ledger(Path(self.folder.name), self.clock)
        try:
            self.write(lambda txn: approvals.begin_execution(txn, known.id))
        except (LedgerCorruptError, RefusedError):
            pass
        else:
            raise AssertionError("A6: an approval that was written into the file ran")
        self.ledger.close()
        with self.plain() as db:
            db.execute(take_back, (*old, known.id))
        self.ledger = open_ledger(Path(self.folder.name), self.clock)

    @contextlib.contextmanager
    def plain(self) -> Any:
        with contextlib.closing(sqlite3.connect(Path(self.folder.name) / "ledger.db", isolation_level=None)) as db:
            yield db

    @rule()
    def hub_takes_messages(self) -> None:
        def change(txn: Any) -> list[outbox.Message]:
            due = outbox.due(txn, limit=3)
            for message in due:
                assert outbox.ack(txn, message.seq)
                assert not outbox.ack(txn, message.seq)
            return due

        for message in self.write(change):
            self.acked.add((message.ref, message.body.get("state", "created")))

    # ── invariants ───────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def final_states_stay(self) -> None:
        requests, grants = self.states()
        for old, new, final in ((self.seen[0], requests, REQUEST_FINAL), (self.seen[1], grants, GRANT_FINAL)):
            for key, state in old.items():
                assert state not in final or new[key] == state, "A5: a final state changed"
        self.seen = (requests, grants)
        for request, state in grants.items():
            assert requests[request] in ("approved", "revoked", "cancelled")
            assert state != "live" or requests[request] == "approved", "A1: a grant lives on after the no"

    @invariant()
    def records_tell_the_states(self) -> None:
        """A7: what the chain tells, read from its beginning, is what the tables hold; one record for each step."""
        requests, grants = self.states()
        told: dict[str, str] = {}
        told_grants: dict[str, str] = {}
        executions: dict[str, int] = {}
        with self.ledger.read() as look:
            grant_of = dict(look.db.execute("SELECT id, request FROM approval_grant").fetchall())
            rows = look.db.execute("SELECT kind, ref, body FROM audit ORDER BY seq").fetchall()
            self.steps += 1
            if self.steps % 8 == 0:
                verify_all(look)
        for kind, ref, text in rows:
            body = json.loads(text)
            if kind == "approval" and body["event"] not in ("decision_rejected", "late_decision"):
                assert told.get(ref) != body["event"], "A7: two records of one step"
                told[ref] = body["event"]
            elif kind == "grant":
                told_grants[body["request"]] = "live" if body["event"] == "minted" else body["event"]
            elif kind == "execution":
                request = grant_of.get(ref, ref)
                executions[request] = executions.get(request, 0) + 1
                if ref in grant_of:
                    told_grants[request] = "executing"
                else:
                    told[ref] = "executing"
            elif kind == "result":
                told[ref] = "done" if body["ok"] else "error"
        assert told == requests, "A7: the records tell other states than the requests have"
        assert told_grants == grants, "A7: the records tell other states than the grants have"
        runs = {known.id: known.runs for known in self.known.values() if known.runs}
        assert executions == runs, "A7: executions and records differ"

    @invariant()
    def hub_will_know(self) -> None:
        """A10, A11: each request was announced once; each end is acked or still queued."""
        requests, _ = self.states()
        with self.ledger.read() as look:
            due = {(each.ref, each.body.get("state", "created")) for each in outbox.due(look, limit=10_000)}
            created = look.db.execute("SELECT count(*) FROM outbox WHERE kind = 'approval.create'").fetchone()[0]
        assert created == len(requests), "A10: a request was announced twice, or never"
        for request, state in requests.items():
            assert (request, "created") in due | self.acked, "A11: the Hub will never hear of a request"
            if state not in ("pending", "executing", "done", "error"):
                assert (request, state) in due | self.acked, "A11: the Hub will never hear of an end"

    @invariant()
    def nothing_waits_for_ever(self) -> None:
        """A3: what people and agents are shown is never older than it may be, in true time."""
        with self.ledger.read() as look:
            for row in approvals.list_requests(look, state="pending", limit=1000):
                assert self.true < self.known[row.id].made_true + REQUEST_S + 1, "A3: a request outlives its day"
