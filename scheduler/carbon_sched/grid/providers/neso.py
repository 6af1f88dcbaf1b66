"""NESO Carbon Intensity (Great Britain): national and regional, forecasts up to 48 h, no key.

Counts what is emitted in operation (nuclear and renewables as zero), with imports and losses: average, direct,
consumption. National rows carry `forecast` and, once the half hour has closed, `actual`; regional rows are modelled
only. Forecasts are revised every half hour and not archived there.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import GridMalformed, GridNoData
from carbon_sched.domain.intensity import Basis, Comparability, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import UTC
from carbon_sched.grid.provider import Collector, Method, instant, items, member, record
from carbon_sched.grid.tables import rows

if TYPE_CHECKING:
    from carbon_sched.grid.answers import Answer
    from carbon_sched.grid.http import Channel

NAME = "neso"
BASE = "https://api.carbonintensity.org.uk"
METHOD = Method(
    NAME,
    Comparability(Signal.AVERAGE, Basis.DIRECT, Perimeter.CONSUMPTION),
    "CC BY 4.0 (NESO Carbon Intensity API)",
)
NATIONAL = "GB"


class Neso:
    """Implements `provider.Provider` for zone GB and NESO's regions."""

    name = NAME
    ttl = timedelta(minutes=15)
    lookback = timedelta(days=365)
    horizon = timedelta(hours=48)
    max_span = timedelta(days=13)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._regions = {row["zone"]: row["region_id"] for row in rows("neso_regions.csv")}

    def zones(self) -> frozenset[str]:
        """GB and its regions."""
        return frozenset({NATIONAL, *self._regions})

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """The past by range, the future by the 48 h forecast of now; two requests when both are asked for."""
        switch = _floor(now)
        found: list[Reading] = []
        if start < min(end, switch):
            found += self._ask(
                zone, f"{_stamp(_floor(start))}/{_stamp(min(end, switch))}", start, min(end, switch), now
            )
        if end > switch:
            found += self._ask(zone, f"{_stamp(switch)}/fw48h", max(start, switch), end, now)
        return found

    def _ask(self, zone: str, what: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        region = self._regions.get(zone)
        path = f"/regional/intensity/{what}/regionid/{region}" if region else f"/intensity/{what}"
        data, answer = self._channel.get_json(path, classify=_classify)
        if region and str(member(NAME, data, "data", "regionid")) != region:
            raise GridMalformed(f"{NAME}: asked for region {region}, answered for another one")
        points = items(NAME, data, "data", "data") if region else items(NAME, data, "data")
        return self._readings(zone, points, answer, now, start, end)

    def _readings(
        self, zone: str, points: list[Any], answer: Answer, now: datetime, start: datetime, end: datetime
    ) -> list[Reading]:
        collector = Collector(METHOD, zone, now, answer)
        for point in points:
            row = record(NAME, point)
            first, last = (instant(NAME, member(NAME, row, key)) for key in ("from", "to"))
            if not timedelta(0) < last - first <= timedelta(hours=1):
                raise GridMalformed(f"{NAME}: an interval from {first.isoformat()} to {last.isoformat()}")
            values = record(NAME, member(NAME, row, "intensity"))
            collector.add(first, last, values.get("actual"), Kind.MEASURED)
            regional_past = zone != NATIONAL and first <= now
            kind = Kind.ESTIMATED if regional_past else Kind.FORECAST
            collector.add(first, last, values.get("forecast"), kind, issued_at=answer.at)
        return [r for r in collector.readings(start, end) if r.start >= _floor(start)]


def _floor(moment: datetime) -> datetime:
    return moment.replace(minute=moment.minute // 30 * 30, second=0, microsecond=0)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


def _classify(status: int, said: str) -> GridNoData | None:
    return GridNoData(f"{NAME}: has no values there (HTTP {status}: {said})") if status == 404 else None
