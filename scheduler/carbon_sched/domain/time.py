"""Instants and half-open intervals, always aware and in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)


def utc(value: datetime) -> datetime:
    """Return `value` in UTC.

    Raises ValueError for a naive datetime, since its meaning would be a guess, and for one that is before the year 1 or
    after 9999 in UTC.
    """
    if value.tzinfo is None:
        message = f"naive datetime {value!r}: give it a time zone"
        raise ValueError(message)
    try:
        return value if value.tzinfo is UTC else value.astimezone(UTC)
    except OverflowError:
        message = f"{value.isoformat()} is outside the years that can be told in UTC"
        raise ValueError(message) from None


def to_rfc3339(value: datetime) -> str:
    """Format as RFC 3339 in UTC with microseconds only where there are any: `2026-11-23T18:00:00Z`."""
    return f"{utc(value).isoformat()[:-6]}Z"


def from_rfc3339(text: str) -> datetime:
    """Parse an RFC 3339 instant into UTC; raises ValueError for anything else, a missing zone included."""
    return utc(datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in ("Z", "z") else text))


def to_epoch(value: datetime) -> float:
    """Seconds since 1970-01-01T00:00Z."""
    return utc(value).timestamp()


def from_epoch(seconds: float) -> datetime:
    """Inverse of `to_epoch`."""
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True)
class Interval:
    """Half-open `[start, end)` in UTC; empty intervals are refused."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None or self.end <= self.start:
            message = f"not an interval: [{self.start!r}, {self.end!r})"
            raise ValueError(message)

    @property
    def duration(self) -> timedelta:
        """Length of the interval."""
        return self.end - self.start

    def overlap(self, other: Interval) -> Interval | None:
        """The common part of both, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Interval(start, end) if start < end else None
