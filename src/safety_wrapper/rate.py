"""Token buckets by session, so that one that floods is refused before a record is written and others are served.

A session that nobody has heard of takes its first token from the peer's bucket for new sessions: inventing session
names gains nothing, and cannot starve a session that has its own bucket already.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_SESSIONS: Final = 1024


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float


class Buckets:
    """Buckets of ``burst`` tokens refilled at ``rate_per_s``. Time is passed in (monotonic seconds)."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._sessions: OrderedDict[tuple[int, str], _Bucket] = OrderedDict()
        self._newcomers: dict[int, _Bucket] = {}
        self._overflow: dict[str, int] = {}
        self._reported_s = 0.0

    def take(self, uid: int, session: str, now_s: float) -> bool:
        """True when this call may go on; False counts it as overflow."""
        key = (uid, session)
        bucket = self._sessions.get(key)
        if bucket is None:
            newcomers = self._newcomers.setdefault(uid, _Bucket(float(self._burst), now_s))
            if not self._spend(newcomers, now_s):
                return self._refuse(session)
            bucket = self._sessions[key] = _Bucket(float(self._burst), now_s)
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        return self._spend(bucket, now_s) or self._refuse(session)

    def overflow(self, now_s: float) -> dict[str, int]:
        """At most once a second: refused calls by session since the last report; empty when there is none."""
        if not self._overflow or now_s - self._reported_s < 1.0:
            return {}
        self._reported_s = now_s
        report, self._overflow = self._overflow, {}
        return report

    def _spend(self, bucket: _Bucket, now_s: float) -> bool:
        bucket.tokens = min(float(self._burst), bucket.tokens + (now_s - bucket.at_s) * self._rate)
        bucket.at_s = now_s
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True

    def _refuse(self, session: str) -> bool:
        key = session if session in self._overflow or len(self._overflow) < 32 else "other sessions"
        self._overflow[key] = self._overflow.get(key, 0) + 1
        return False
