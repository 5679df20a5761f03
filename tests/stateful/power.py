"""Power loss, simulated from a real run: what it wrote and synced is read from a system call trace; then, for any
moment, disks are made on which some of the sectors that were not yet synced arrived and others did not.

The model of the disk is a strict one: a write is 512-byte sectors that arrive or not, each on its own; a file's length
is only what its arrived sectors make it; a new name in the folder lasts only once the folder is synced.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
_CALLS = "openat,pwrite64,write,fdatasync,fsync,ftruncate,unlink,unlinkat,close,dup,dup2,dup3,rename"
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<answer>-?\d+)")
_UNFINISHED = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*?) *<unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<arguments>.*)\) += (?P<answer>-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Event:
    """One step of the traced run. ``kind``: create write truncate sync_begins sync sync_folder unlink ack."""

    kind: str
    name: str = ""
    offset: int = 0
    data: bytes = b""


def trace(command: list[str], folder: Path, output: Path) -> list[Event]:
    """Run ``command`` under strace and return what it did to the files in ``folder``."""
    options = ["-f", "-qq", "-xx", "-s", "1000000", "-e", f"trace={_CALLS}", "-o", str(output)]
    subprocess.run(["strace", *options, *command], check=True, timeout=120)
    return list(_events(_whole_lines(output), folder))


def _whole_lines(output: Path) -> Iterator[tuple[str, str, str, int | None]]:
    """(phase, call, arguments, answer): phase "whole", or "begins" and "ends" where threads interleave."""
    begun: dict[str, str] = {}
    with output.open(encoding="ascii") as lines:
        for line in lines:
            if found := _UNFINISHED.match(line):
                begun[found["pid"]] = found["arguments"]
                yield "begins", found["name"], found["arguments"], None
            elif found := _RESUMED.match(line):
                arguments = begun.pop(found["pid"]) + found["arguments"]
                yield "ends", found["name"], arguments, int(found["answer"])
            elif found := _LINE.match(line):
                yield "whole", found["name"], found["arguments"], int(found["answer"])


def _events(lines: Iterator[tuple[str, str, str, int | None]], folder: Path) -> Iterator[Event]:
    names: dict[int, str] = {}
    known: set[str] = set()
    for phase, call, arguments, answer in lines:
        if answer is not None and answer < 0:
            continue
        if call == "openat":
            if answer is not None:
                yield from _opened(arguments, answer, folder, names, known)
        elif call in ("unlink", "unlinkat"):
            path = Path(_strings(arguments)[0].decode())
            if phase != "begins" and path.parent == folder:
                known.discard(path.name)
                yield Event("unlink", path.name)
        elif (handle := re.match(r"\d+", arguments)) and int(handle[0]) in names:
            yield from _on_handle(phase, call, arguments, int(handle[0]), names)


def _opened(arguments: str, handle: int, folder: Path, names: dict[int, str], known: set[str]) -> Iterator[Event]:
    path = Path(_strings(arguments)[0].decode())
    names.pop(handle, None)
    if path == folder:
        names[handle] = "."
    elif path.parent == folder:
        names[handle] = path.name
        if "O_CREAT" in arguments and path.name not in known:
            known.add(path.name)
            yield Event("create", path.name)


def _on_handle(phase: str, call: str, arguments: str, handle: int, names: dict[int, str]) -> Iterator[Event]:
    name = names[handle]
    if call in ("dup", "dup2", "dup3", "rename"):
        raise AssertionError(f"the trace holds a {call} of a watched file, which this model does not know")
    if call == "close":
        if phase != "begins":
            del names[handle]
    elif call in ("fdatasync", "fsync"):
        if phase != "ends":
            yield Event("sync_begins", name)
        if phase != "begins":
            yield Event("sync_folder" if name == "." else "sync", name)
    elif phase != "ends":
        # A write counts from its beginning: then already any part of it may have arrived.
        yield from _written(call, name, arguments)


def _written(call: str, name: str, arguments: str) -> Iterator[Event]:
    if call == "ftruncate":
        yield Event("truncate", name, int(arguments.split(", ")[1]))
    elif call == "pwrite64":
        yield Event("write", name, int(arguments.rsplit(", ", 1)[1]), _strings(arguments)[0])
    elif name == "acks":
        yield Event("ack", data=_strings(arguments)[0])
    else:
        raise AssertionError(f"write() to {name}, whose place in the file is not known")


def _strings(arguments: str) -> list[bytes]:
    return [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]


@dataclass
class File:
    """A file as the disk has it, and what is on its way there."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)
    syncing: int = 0
    entry_durable: bool = False
    is_unlinked: bool = False

    def sync(self) -> None:
        for event in self.pending[: self.syncing]:
            apply(self.durable, event)
        del self.pending[: self.syncing]
        self.syncing = 0


def apply(content: bytearray, event: Event) -> None:
    if event.kind == "truncate":
        del content[event.offset :]
        content.extend(bytes(event.offset - len(content)))
        return
    content.extend(bytes(max(0, event.offset - len(content))))
    content[event.offset : event.offset + len(event.data)] = event.data


def sectors(event: Event) -> Iterator[Event]:
    """A write, cut at the disk's sectors."""
    if event.kind == "truncate":
        yield event
        return
    start = 0
    while start < len(event.data):
        size = SECTOR - (event.offset + start) % SECTOR
        yield Event("write", event.name, event.offset + start, event.data[start : start + size])
        start += size


class Disk:
    """The folder's files while the traced run goes on; ``lose_power`` makes one of the disks that may be left."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.ghosts: dict[str, File] = {}
        self.acks: list[bytes] = []

    def step(self, event: Event) -> None:
        if event.kind == "ack":
            self.acks.append(event.data)
        elif event.kind == "create":
            self.files[event.name] = File()
            self.ghosts.pop(event.name, None)
        elif event.kind == "unlink":
            self.ghosts[event.name] = self.files.pop(event.name, File())
        elif event.kind == "sync_folder":
            for file in self.files.values():
                file.entry_durable = True
            self.ghosts.clear()
        elif event.name == ".":
            return
        elif event.kind == "sync_begins":
            self.files[event.name].syncing = len(self.files[event.name].pending)
        elif event.kind == "sync":
            self.files[event.name].sync()
        else:
            self.files[event.name].pending.append(event)

    def lose_power(self, chance: random.Random, target: Path, skip: frozenset[str]) -> None:
        """Write one possible remainder into ``target``."""
        arrives = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for name, file in [*self.ghosts.items(), *self.files.items()]:
            is_ghost = name in self.ghosts
            if name in skip or ((is_ghost or not file.entry_durable) and chance.random() < 0.5):
                continue
            content = bytearray(file.durable)
            for event in file.pending:
                for piece in sectors(event):
                    if chance.random() < arrives:
                        apply(content, piece)
            (target / name).write_bytes(content)
            (target / name).chmod(0o600)
