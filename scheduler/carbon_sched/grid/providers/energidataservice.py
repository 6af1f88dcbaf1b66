"""Energi Data Service (Energinet, Denmark): DK1 and DK2 every 5 minutes, forecast to the end of tomorrow, no key.

Datasets `CO2Emis` (observed) and `CO2EmisProg` (forecast), g/kWh of consumed electricity, combustion only. The column
`Minutes5UTC` is UTC without saying so; the local column is never read, so summer time cannot double an hour.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import GridMalformed
from carbon_sched.domain.intensity import Basis, Comparability, Kind, Perimeter, Reading, Signal
from carbon_sched.grid.provider import Collector, Method, instant, items, member, record

if TYPE_CHECKING:
    from carbon_sched.grid.http import Channel

NAME = "energidataservice"
BASE = "https://api.energidataservice.dk"
METHOD = Method(
    NAME,
    Comparability(Signal.AVERAGE, Basis.DIRECT, Perimeter.CONSUMPTION),
    "CC BY 4.0 (Energinet, Energi Data Service)",
)
AREAS = {"DK-DK1": "DK1", "DK-DK2": "DK2"}
STEP = timedelta(minutes=5)


class EnergiDataService:
    """Implements `provider.Provider`."""

    name = NAME
    ttl = timedelta(minutes=15)
    lookback = timedelta(days=365)
    horizon = timedelta(days=2)
    max_span = timedelta(days=14)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def zones(self) -> frozenset[str]:
        """The two Danish bidding zones."""
        return frozenset(AREAS)

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Observed values for the past, forecast ones for the rest; two requests when both are asked for."""
        found = self._rows(zone, "CO2Emis", start, min(end, now), now, Kind.MEASURED) if start < now else []
        if end > now:
            after = found[-1].end if found else start
            found += [r for r in self._rows(zone, "CO2EmisProg", after, end, now, Kind.FORECAST) if r.start >= after]
        return found

    def _rows(
        self, zone: str, dataset: str, start: datetime, end: datetime, now: datetime, kind: Kind
    ) -> list[Reading]:
        params = {
            "start": f"{start:%Y-%m-%dT%H:%M}",
            "end": f"{end:%Y-%m-%dT%H:%M}",
            "timezone": "UTC",
            "filter": json.dumps({"PriceArea": [AREAS[zone]]}),
            "sort": "Minutes5UTC ASC",
            "limit": str(int((end - start) / STEP) + 24),
        }
        data, answer = self._channel.get_json(f"/dataset/{dataset}", params)
        collector = Collector(METHOD, zone, now, answer)
        records = [record(NAME, item) for item in items(NAME, data, "records")]
        ours = [row for row in records if row.get("PriceArea") == AREAS[zone]]
        if records and not ours:
            other = str(records[0].get("PriceArea"))[:40]
            raise GridMalformed(f"{NAME}: asked for {AREAS[zone]}, answered for {other!r}; not used")
        for row in ours:
            at = instant(NAME, member(NAME, row, "Minutes5UTC"), naive_is=timezone.utc)
            collector.add(at, at + STEP, member(NAME, row, "CO2Emission"), kind)
        return collector.readings(start, end)
