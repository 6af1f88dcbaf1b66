"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


class StoppedClock:
    """Wall and monotonic time move together, and only by `pass_s`."""

    def __init__(self, at: datetime = START) -> None:
        self.at, self.ticks = at, 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.ticks

    def pass_s(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.ticks += seconds
