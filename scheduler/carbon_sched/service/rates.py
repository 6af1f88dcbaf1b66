"""How often one caller may ask: a bucket of requests that refills, per credential and server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import TooMany

if TYPE_CHECKING:
    from carbon_sched.ports import Clock

PER_S = 500.0
"""More than a server on this path answers; what it keeps out is one caller who leaves nothing to the others."""


class Rates:
    """Buckets by caller, each as large as two seconds' refill. There are as many as there are credentials."""

    def __init__(self, clock: Clock, per_s: float = PER_S) -> None:
        self._clock, self._per_s, self._burst = clock, per_s, 2 * per_s
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, caller: str) -> None:
        """Take one request from the caller's bucket; TooMany where there is none left."""
        now = self._clock.monotonic()
        with self._lock:
            left, at = self._left.get(caller, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._per_s)
            if left < 1:
                raise TooMany(f"more than {self._per_s:g} requests a second from this token; ask again in a moment")
            self._left[caller] = (left - 1, now)
