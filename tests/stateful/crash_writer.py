"""A process that writes into a ledger until it is killed; started by the crash and power-loss tests.

``python crash_writer.py FOLDER ACK_FD [lazy]``: loads everything once, then forks a writer for each line "go" on stdin,
prints its process id, and reaps it on "reap". ``lazy`` puts a fault in: the writer answers before it commits.
The writer says on ACK_FD what it was told is durable, each line in one write:
``A <seq> <ref>`` a record was acknowledged · ``R <id>`` a call runs now · ``O`` the ledger is open.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

from safety_wrapper.errors import RefusedError
from safety_wrapper.ledger import Ledger, SystemClock, Txn, approvals

# Started as a script: its own folder's parent is where `stateful` lies.
sys.path.insert(0, str(Path(__file__).parent.parent))
from stateful.rig import TENANT, make_keys, new_request


class Writer:
    """Tasks and threads that write at the same time, as the engine's connections do."""

    def __init__(self, folder: Path, ack_fd: int, tag: str) -> None:
        self.ack_fd = ack_fd
        self.tag = tag
        self.ledger = Ledger.open(
            folder / "ledger.db", make_keys(), tenant=TENANT, clock=SystemClock(), ballast_bytes=4096
        )
        self.say("O")

    def say(self, line: str) -> None:
        os.write(self.ack_fd, line.encode() + b"\n")

    async def records(self, name: str, count: int) -> None:
        for number in range(count):
            ref = f"{self.tag}/{name}/{number}"
            seq = await self.ledger.write(lambda txn, ref=ref: txn.audit("decision", ref=ref, body={"ref": ref}))
            self.say(f"A {seq} {ref}")

    def records_blocking(self, count: int) -> None:
        for number in range(count):
            ref = f"{self.tag}/thread/{number}"
            seq = self.ledger.write_blocking(lambda txn, ref=ref: txn.audit("decision", ref=ref, body={"ref": ref}))
            self.say(f"A {seq} {ref}")

    async def left_over(self) -> None:
        """What an earlier life approved and did not begin runs now; what it had begun must not."""
        with self.ledger.read() as look:
            waiting = approvals.list_requests(look, state="approved", limit=50)
            begun = approvals.list_requests(look, state="unknown", limit=5)
        for row in (row for row in waiting if row.own_tool):
            await self.run(row.id)
        for row in begun:
            try:
                await self.run(row.id)
            except RefusedError:
                continue
            raise SystemExit("an interrupted call was begun again")

    async def own_calls(self, count: int) -> None:
        for number in range(count):
            new = new_request(f"{self.tag} own {number}", max_pending=10**6)
            opened = await self.ledger.write(lambda txn, new=new: approvals.open_request(txn, new))
            if opened.id is None:
                raise SystemExit("too many wait")
            await self.approve(opened.id, new.call_digest)
            if number % 3:
                await self.run(opened.id)

    async def builtin_calls(self, count: int) -> None:
        for number in range(count):
            new = new_request(f"{self.tag} builtin {number}", own_tool=False, agent="second", max_pending=10**6)

            def spend(txn: Txn, digest: str = new.call_digest) -> str | None:
                where: dict[str, Any] = {"agent": "second", "session": "agent:main:main", "tool_call_id": "call_0"}
                return approvals.spend_grant(txn, call_digest=digest, **where)

            opened = await self.ledger.write(lambda txn, new=new: approvals.open_request(txn, new))
            await self.approve(opened.id or "", new.call_digest)
            grant = await self.ledger.write(spend)
            self.say(f"R {grant}")
            await self.ledger.write(lambda txn: approvals.finish_grant(txn, "call_0", ok=True))

    async def approve(self, request: str, digest: str) -> None:
        await self.ledger.write(
            lambda txn: approvals.decide(txn, request, decision="approve", by="local_root", shown_digest=digest)
        )

    async def run(self, request: str) -> None:
        await self.ledger.write(lambda txn: approvals.begin_execution(txn, request))
        self.say(f"R {request}")
        await self.ledger.write(
            lambda txn: approvals.finish_execution(txn, request, ok=True, text="ran", facts={"exit": 0})
        )

    async def work(self, count: int) -> None:
        await self.left_over()
        thread = threading.Thread(target=self.records_blocking, args=(count,), daemon=True)
        thread.start()
        names = (f"task{number}" for number in range(4))
        await asyncio.gather(
            *(self.records(name, count) for name in names), self.own_calls(count // 4), self.builtin_calls(count // 4)
        )
        thread.join()


class LazyCommits:
    """A connection that says "committed" long before it is: the fault that the crash test must notice."""

    def __init__(self, db: Any) -> None:
        self.db = db
        self.left = 20

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)

    def execute(self, text: str, *arguments: Any) -> Any:
        if text == "COMMIT" and self.left:
            self.left -= 1
            return None
        # No roll-back either: what fails in this run has written nothing, and it would take earlier commits along.
        if text == "ROLLBACK" or (text == "BEGIN IMMEDIATE" and self.db.in_transaction):
            return None
        if text == "COMMIT":
            self.left = 20
        return self.db.execute(text, *arguments)


def main() -> None:
    folder, ack_fd = Path(sys.argv[1]), int(sys.argv[2])
    lazy = sys.argv[3:] == ["lazy"]
    for life, line in enumerate(sys.stdin):
        if line.strip() != "go":
            continue
        child = os.fork()
        if child == 0:
            writer = Writer(folder, ack_fd, f"life{life}")
            if lazy:
                owner: Any = writer.ledger._writer
                owner._db = LazyCommits(owner._db)
            asyncio.run(writer.work(10**6))
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
