"""A Carbon Aware SDK WebAPI that the user runs: `/emissions/bylocation` and `/emissions/forecasts/current`.

It wraps other providers and does not say which, so how its values are counted is configured. A rating of -1 stands
for a missing value. Times of `bylocation` may be those of the provider's update; the answered `time` is taken at its
word.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import GridError, GridMalformed, GridNoData, ZoneNotCovered
from carbon_sched.domain.intensity import Basis, Comparability, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.grid.provider import Collector, Method, instant, items, member, number, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.grid.http import Channel

NAME = "carbon-aware-sdk"
MARGINAL = Comparability(Signal.MARGINAL, Basis.DIRECT, Perimeter.CONSUMPTION)
"""What its usual data source (WattTime) gives."""
DURATION = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.\d+)?", re.ASCII)
MISSING = -1.0


class CarbonAwareSdk:
    """Implements `provider.Provider`."""

    name = NAME
    ttl = timedelta(minutes=5)
    lookback = timedelta(days=7)
    horizon = timedelta(days=1)
    max_span = timedelta(days=7)

    def __init__(self, channel: Channel, locations: Mapping[str, str], like: Comparability = MARGINAL) -> None:
        """`locations` maps zones to the names the WebAPI knows (`DE` -> `germanywestcentral`)."""
        self._channel, self._locations = channel, dict(locations)
        self._method = Method(NAME, like, "terms of the wrapped provider", retention="used-only")

    def zones(self) -> frozenset[str]:
        """The zones with a configured location."""
        return frozenset(self._locations)

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """The past by location, then the current forecast; without a forecast the past alone."""
        found = self._past(zone, start, min(end, now), now) if start < now else []
        if end <= now:
            return found
        try:
            ahead = self._forecast(zone, start, end, now)
        except (GridNoData, ZoneNotCovered):
            if not found:
                raise
            ahead = []
        after = found[-1].end if found else start
        return found + [reading for reading in ahead if reading.start >= after]

    def _past(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        location = self._locations[zone]
        params = {"location": location, "time": to_rfc3339(start), "toTime": to_rfc3339(end)}
        data, answer = self._channel.get_json("/emissions/bylocation", params, classify=_classify)
        collector = Collector(self._method, zone, now, answer)
        for item in items(NAME, data):
            row = record(NAME, item)
            if row.get("location", location) != location:
                raise GridMalformed(f"{NAME}: answered for another location, {str(row['location'])[:40]!r}; not used")
            at = instant(NAME, member(NAME, row, "time"))
            length = _duration(member(NAME, row, "duration"))
            collector.add(at, at + length, _value(member(NAME, row, "rating")), Kind.ESTIMATED)
        return collector.readings(start, end)

    def _forecast(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        params = {"location": self._locations[zone]}
        data, answer = self._channel.get_json("/emissions/forecasts/current", params, classify=_classify)
        collector = Collector(self._method, zone, now, answer)
        for item in items(NAME, data):
            one = record(NAME, item)
            if one.get("location", self._locations[zone]) != self._locations[zone]:
                raise GridMalformed(f"{NAME}: answered for another location, {str(one['location'])[:40]!r}; not used")
            issued = instant(NAME, member(NAME, one, "generatedAt"))
            for point in items(NAME, one, "forecastData"):
                row = record(NAME, point)
                at = instant(NAME, member(NAME, row, "timestamp"))
                length = _duration(member(NAME, row, "duration"))
                value = _value(member(NAME, row, "value"))
                collector.add(at, at + length, value, Kind.FORECAST, issued_at=issued)
        return collector.readings(start, end)


def _value(raw: Any) -> float | None:
    value = number(NAME, raw)
    return None if value == MISSING else value


def _duration(raw: Any) -> timedelta:
    """A .NET TimeSpan (`01:00:00`), or minutes as a number."""
    if isinstance(raw, str) and (match := DURATION.fullmatch(raw)):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    else:
        length = timedelta(minutes=min(number(NAME, raw) or 0.0, 1e6))
    if not timedelta(0) < length <= timedelta(days=1):
        raise GridMalformed(f"{NAME}: a duration of {str(raw)[:40]!r}")
    return length


def _classify(status: int, said: str) -> GridError | None:
    if status in (400, 404) and "location" in said.lower():
        return ZoneNotCovered(f"{NAME}: does not know this location (HTTP {status}: {said})")
    return None
