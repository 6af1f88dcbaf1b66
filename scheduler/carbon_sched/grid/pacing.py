"""How often a provider is asked: a token bucket for the rate, a breaker for when it fails (pure; time is handed in)."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.domain.errors import GridError

TRIP_AFTER = 3
"""Failed calls in a row that open the breaker."""
FIRST_PAUSE_S = 60.0
LONGEST_PAUSE_S = 900.0


@dataclass(frozen=True)
class Rate:
    """At most `burst` requests at once, refilled at `per_s` a second."""

    per_s: float = 1.0
    burst: int = 5


class TokenBucket:
    """A budget of requests that refills with time; safe for several threads."""

    def __init__(self, rate: Rate, monotonic: Callable[[], float]) -> None:
        self._rate, self._monotonic = rate, monotonic
        self._tokens, self._at = float(rate.burst), monotonic()
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take a token; returns 0.0 when there was one, else the seconds until there will be (and takes none)."""
        with self._lock:
            now = self._monotonic()
            self._tokens = min(self._rate.burst, self._tokens + (now - self._at) * self._rate.per_s)
            self._at = now
            if self._tokens >= 1.0:
                self._tokens -= 1.0
                return 0.0
            return (1.0 - self._tokens) / self._rate.per_s


class Breaker:
    """Stops asking a provider that keeps failing, and lets one call through now and then to see whether it is back.

    A pause ends by itself; the first call after it is a probe, and the others are refused until it has ended.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failures = 0
        self._until = float("-inf")
        self._error: GridError | None = None
        self._probing = False

    @property
    def healthy(self) -> bool:
        """Whether the last call succeeded (or there was none)."""
        return self._failures == 0 and self._error is None

    def enter(self) -> GridError | None:
        """Ask to make a call: None means go on (then report `succeeded`, `failed` or `pause`), else why not."""
        with self._lock:
            if self._error is None:
                return None
            if self._monotonic() < self._until or self._probing:
                return copy.copy(self._error).with_traceback(None)
            self._probing = True
            return None

    def succeeded(self) -> None:
        """The call was answered."""
        with self._lock:
            self._failures, self._error, self._probing = 0, None, False

    def failed(self, error: GridError) -> None:
        """The call was not answered; from the third time in a row on, pause, longer each time up to 15 minutes."""
        with self._lock:
            self._failures += 1
            self._probing = False
            beyond = self._failures - TRIP_AFTER
            if beyond >= 0:
                self._set(error, min(FIRST_PAUSE_S * 2 ** min(beyond, 10), LONGEST_PAUSE_S))

    def pause(self, error: GridError, seconds: float) -> None:
        """Answer every call with `error` for a while: the provider said so, or asking again cannot help."""
        with self._lock:
            self._probing = False
            self._set(error, seconds)

    def _set(self, error: GridError, seconds: float) -> None:
        self._error, self._until = error, self._monotonic() + seconds
