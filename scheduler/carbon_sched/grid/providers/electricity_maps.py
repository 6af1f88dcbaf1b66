"""Electricity Maps v3: 350 zones, average flow-traced consumption, life-cycle or direct; a key (`auth-token`) per plan.

Past by `/carbon-intensity/history` (24 h) or `/past-range` (10 days a call), future by `/forecast`. The service falls
back to the caller's IP address when it does not know a location, so `disableCallerLookup=true` is always sent and the
answered zone is always checked. Estimates are replaced later; `updatedAt` is the issue time.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import GridAuth, GridError, GridMalformed, GridNoData, ZoneNotCovered
from carbon_sched.domain.intensity import Basis, Comparability, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.grid.http import read_secret
from carbon_sched.grid.provider import Collector, Method, instant, items, member, record, steps, usual_step
from carbon_sched.grid.tables import rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.domain.cluster import SecretRef
    from carbon_sched.grid.answers import Answer
    from carbon_sched.grid.http import Channel

NAME = "electricity-maps"
BASE = "https://api.electricitymaps.com/v3"
REMEDY = "Get one at app.electricitymaps.com and give its environment variable or file"
HISTORY = timedelta(hours=24)
GRANULARITY = {
    "5_minutes": timedelta(minutes=5),
    "15_minutes": timedelta(minutes=15),
    "hourly": timedelta(hours=1),
}


class ElectricityMaps:
    """Implements `provider.Provider` in one basis; make a second one for the other."""

    name = NAME
    ttl = timedelta(minutes=15)
    max_span = timedelta(days=10)

    def __init__(
        self,
        channel: Channel,
        key: SecretRef | None,
        basis: Basis = Basis.LIFECYCLE,
        *,
        horizon: timedelta = timedelta(hours=72),
        lookback: timedelta = timedelta(days=28),
        header: str = "auth-token",
    ) -> None:
        """`horizon` zero and `lookback` one day suit the free plan; trial hosts want another `header`."""
        self._channel, self._key, self._basis, self._header = channel, key, basis, header
        self.horizon, self.lookback = horizon, lookback
        like = Comparability(Signal.AVERAGE, basis, Perimeter.CONSUMPTION)
        self._method = Method(NAME, like, "Electricity Maps contract", retention="used-only")

    def zones(self) -> frozenset[str]:
        """Every zone it publishes; a plan may hold fewer."""
        return frozenset(row["zone"] for row in rows("zone_year_electricitymaps_ODbL.csv"))

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """The past in one request, the forecast in another; a plan without forecasts still gives the past."""
        found = self._past(zone, start, min(end, now), now) if start < now else []
        if end > now and self.horizon:
            after = found[-1].end if found else start
            found += self._forecast(zone, max(start, after), end, now, needed=not found)
        return found

    def _past(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        if start >= now - HISTORY:
            data, answer = self._get("/carbon-intensity/history", zone, {})
            points = items(NAME, data, "history")
        else:
            params = {"start": to_rfc3339(start), "end": to_rfc3339(end)}
            data, answer = self._get("/carbon-intensity/past-range", zone, params)
            points = items(NAME, data, "data")
        collector = Collector(self._method, zone, now, answer)
        step = GRANULARITY.get(str(points[0].get("temporalGranularity", "hourly")) if points else "hourly")
        if step is None:
            raise GridMalformed(f"{NAME}: an unknown temporalGranularity")
        for point in points:
            row = record(NAME, point)
            self._check(zone, row)
            at = instant(NAME, member(NAME, row, "datetime"))
            kind = Kind.ESTIMATED if row.get("isEstimated") else Kind.MEASURED
            updated = instant(NAME, row["updatedAt"]) if row.get("updatedAt") else None
            model = str(row.get("estimationMethod") or "")
            value = member(NAME, row, "carbonIntensity")
            collector.add(at, at + step, value, kind, issued_at=updated, model_version=model)
        return collector.readings(start, end)

    def _forecast(self, zone: str, start: datetime, end: datetime, now: datetime, *, needed: bool) -> list[Reading]:
        hours = min(h for h in (6, 24, 48, 72) if h >= min(72, (end - now) / timedelta(hours=1)) or h == 72)
        hours = min(hours, int(self.horizon / timedelta(hours=1)))
        try:
            data, answer = self._get("/carbon-intensity/forecast", zone, {"horizonHours": str(hours)})
        except (GridAuth, ZoneNotCovered, GridNoData):
            if needed:
                raise
            return []  # the plan has no forecasts for this zone: the chain goes on with our own
        issued = instant(NAME, data["updatedAt"]) if data.get("updatedAt") else None
        points = [record(NAME, point) for point in items(NAME, data, "forecast")]
        starts = [instant(NAME, member(NAME, point, "datetime")) for point in points]
        collector = Collector(self._method, zone, now, answer)
        lengths = steps(starts, usual_step(starts, timedelta(hours=1)))
        for at, length, point in zip(starts, lengths, points, strict=True):
            collector.add(at, at + length, member(NAME, point, "carbonIntensity"), Kind.FORECAST, issued_at=issued)
        return [r for r in collector.readings(start, end) if r.start >= start]

    def _get(self, path: str, zone: str, params: Mapping[str, str]) -> tuple[Any, Answer]:
        key = read_secret(self._key, NAME, REMEDY)
        query = {
            "zone": zone,
            "emissionFactorType": self._basis.value,
            "disableCallerLookup": "true",
            **params,
        }
        headers = {self._header: key}
        data, answer = self._channel.get_json(path, query, headers=headers, secrets=(key,), classify=_classify)
        self._check(zone, record(NAME, data))
        return data, answer

    def _check(self, zone: str, row: Mapping[str, Any]) -> None:
        if row.get("zone", zone) != zone:
            raise GridMalformed(f"{NAME}: asked for {zone}, answered for {str(row['zone'])[:40]!r}; not used")
        basis = row.get("emissionFactorType", self._basis.value)
        if basis != self._basis.value:
            raise GridMalformed(f"{NAME}: asked for {self._basis.value} factors, answered with {str(basis)[:40]!r}")


def _classify(status: int, said: str) -> GridError | None:
    low = said.lower()
    if status in (400, 401, 403, 404) and ("zonekey" in low or "does not exist" in low or "not in your plan" in low):
        return ZoneNotCovered(f"{NAME}: the zone is unknown there or not in this key's plan (HTTP {status}: {said})")
    if status in (400, 404) and "no recent data" in low:
        return GridNoData(f"{NAME}: has no values there (HTTP {status}: {said})")
    return None
