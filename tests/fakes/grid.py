"""Readings and sources made in memory, for tests of whatever consumes a grid."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import ZoneNotCovered
from carbon_sched.domain.intensity import Basis, Comparability, Grade, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import UTC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T0 = datetime(2026, 3, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIFECYCLE = Comparability(Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.CONSUMPTION)
DIRECT = Comparability(Signal.AVERAGE, Basis.DIRECT, Perimeter.CONSUMPTION)
MARGINAL = Comparability(Signal.MARGINAL, Basis.DIRECT, Perimeter.CONSUMPTION)


def reading(
    zone: str,
    start: datetime,
    end: datetime,
    g_per_kwh: float,
    *,
    like: Comparability = LIFECYCLE,
    provider: str = "fake",
    now: datetime = T0,
) -> Reading:
    """Live when it has begun by `now`, else a provider's forecast."""
    begun = start <= now
    return Reading(
        zone=zone,
        start=start,
        end=end,
        intensity_mg_per_kwh=round(g_per_kwh * 1000),
        signal=like.signal,
        basis=like.basis,
        perimeter=like.perimeter,
        kind=Kind.MEASURED if begun else Kind.FORECAST,
        grade=Grade.LIVE if begun else Grade.PROVIDER_FORECAST,
        provider=provider,
        issued_at=min(now, start),
        fetched_at=now,
    )


class FakeSource:
    """Implements `ports.GridSource`: hourly (or other) values per zone from a start on; counts its calls."""

    def __init__(
        self,
        values: Mapping[str, Sequence[float]],
        start: datetime = T0,
        *,
        step: timedelta = HOUR,
        like: Comparability = LIFECYCLE,
        provider: str = "fake",
    ) -> None:
        self._values, self._start, self._step = values, start, step
        self._like, self._provider = like, provider
        self.calls: list[tuple[str, datetime, datetime]] = []
        self.error: Exception | None = None

    def zones(self) -> frozenset[str]:
        return frozenset(self._values)

    def readings(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        self.calls.append((zone, start, end))
        if self.error:
            raise self.error
        if zone not in self._values:
            raise ZoneNotCovered(f"{self._provider} does not know {zone}")
        starts = [self._start + index * self._step for index in range(len(self._values[zone]))]
        return [
            reading(zone, at, at + self._step, value, like=self._like, provider=self._provider, now=now)
            for at, value in zip(starts, self._values[zone], strict=True)
            if at < end and at + self._step > start
        ]
