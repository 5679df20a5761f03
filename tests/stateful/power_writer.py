"""A run to be traced: ``python power_writer.py FOLDER SYNCHRONOUS COUNT``. It says in FOLDER/acks what is durable."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from safety_wrapper.ledger import schema

sys.path.insert(0, str(Path(__file__).parent.parent))
from stateful.crash_writer import Writer


def main() -> None:
    folder, synchronous, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    # A small log, so that several checkpoints into the main file lie in a short run.
    changed = {"PRAGMA synchronous=FULL": f"PRAGMA synchronous={synchronous}"}
    changed["PRAGMA wal_autocheckpoint=1000"] = "PRAGMA wal_autocheckpoint=60"
    if not changed.keys() <= set(schema.PRAGMAS):
        raise SystemExit("the pragmas of the product have other names now")
    schema.PRAGMAS = tuple(changed.get(pragma, pragma) for pragma in schema.PRAGMAS)  # type: ignore[misc]
    acks = os.open(folder / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writer = Writer(folder, acks, "power")
    asyncio.run(writer.work(count))
    writer.ledger.close()


if __name__ == "__main__":
    main()
