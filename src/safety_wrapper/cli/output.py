"""Tables and facts on a terminal. Every value passes ``escape`` before it gets here or inside these functions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from safety_wrapper.cli.escape import prose


def console() -> Console:
    """Standard output without markup, emoji or cut lines: what is printed is what was given."""
    return Console(soft_wrap=True, markup=False, emoji=False, highlight=False)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest value; nothing is folded or cut, so an id can be copied from any terminal."""
    shown = [[prose("" if value is None else str(value)) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headings, *shown, strict=True)]
    out = console()
    for number, row in enumerate([list(headings), *shown]):
        cells = (set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True))
        out.print(Text("  ".join(cells).rstrip(), style="" if number else "bold"))


def fact(label: str, value: object, *, style: str = "") -> None:
    """One line ``label  value``."""
    line = Text(f"{label:<12}", style="bold")
    line.append(prose(str(value)), style=style)
    console().print(line)


def sentence(text: str, *, style: str = "") -> None:
    """One line of our own words."""
    console().print(Text(prose(text), style=style))


def clock(at: int | None) -> str:
    """``2026-11-25 12:00:01`` in UTC, empty for None."""
    if at is None:
        return ""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: int | float) -> str:
    """``2 d 3 h``, ``23 h 59 min``, ``5 min``, ``12 s``: the two largest units at most."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left} s"
    minutes, hours, days = left // 60 % 60, left // 3600 % 24, left // 86400
    units = [(days, "d"), (hours, "h"), (minutes, "min")]
    while units and units[0][0] == 0:
        units.pop(0)
    return " ".join(f"{value} {unit}" for value, unit in units[:2] if value) or "0 s"
