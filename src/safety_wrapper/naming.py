"""Tool names: dotted inside, ``sw_…`` where a model sees them. A bijection, held by a property test."""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "sw_"
MAX_OFFERED: Final = 64
_DOTTED: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*(?:\.[a-z][a-z0-9]*(?:_[a-z0-9]+)*)*")


def is_dotted(name: str) -> bool:
    """True for a dotted tool name whose offered form fits the providers' limits."""
    return bool(_DOTTED.fullmatch(name)) and len(PREFIX) + len(name) + name.count(".") <= MAX_OFFERED


def offered_name(name: str) -> str:
    """``http.request`` → ``sw_http__request``. Raises ValueError for a name that is not dotted."""
    if not is_dotted(name):
        raise ValueError("not a dotted tool name")
    return PREFIX + name.replace(".", "__")


def dotted_name(offered: str) -> str | None:
    """``sw_http__request`` → ``http.request``; None for anything that :func:`offered_name` does not give."""
    if not offered.startswith(PREFIX):
        return None
    name = offered[len(PREFIX) :].replace("__", ".")
    return name if is_dotted(name) and offered_name(name) == offered else None
