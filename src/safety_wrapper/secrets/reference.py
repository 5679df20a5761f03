"""The grammar of a secret reference: ``SECRET_REF(name)`` or ``SECRET_REF(name:tag)``."""

from __future__ import annotations

import re
from typing import Final

REFERENCE: Final = re.compile(r"SECRET_REF\((?P<name>[a-z0-9][a-z0-9._-]{0,62})(?::(?P<tag>[a-z0-9]{1,16}))?\)")
_MARK: Final = b"SECRET_REF("


def contains_reference(canonical: bytes) -> bool:
    """True when canonical JSON holds anything that starts like a reference, well formed or not."""
    return _MARK in canonical
