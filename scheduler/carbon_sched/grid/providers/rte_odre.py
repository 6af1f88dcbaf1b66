"""RTE éCO2mix through ODRE: France, observed every quarter of an hour, no key, no forecast of intensity.

`taux_co2` is g/kWh of French generation (average, direct, generation). Rows of the rest of the day exist with nulls.
The real-time data set is replaced later by consolidated and definitive ones, so its values are estimates, with their
`nature` as version.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import GridMalformed
from carbon_sched.domain.intensity import Basis, Comparability, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.grid.provider import Collector, Method, instant, items, member, record, steps

if TYPE_CHECKING:
    from carbon_sched.grid.http import Channel

NAME = "rte-odre"
BASE = "https://odre.opendatasoft.com"
PATH = "/api/explore/v2.1/catalog/datasets/eco2mix-national-tr/records"
METHOD = Method(
    NAME,
    Comparability(Signal.AVERAGE, Basis.DIRECT, Perimeter.GENERATION),
    "Licence Ouverte 2.0 (RTE, ODRE)",
)
ZONE = "FR"
STEP = timedelta(minutes=15)
PAGE = 100


class RteOdre:
    """Implements `provider.Provider`."""

    name = NAME
    ttl = timedelta(minutes=15)
    lookback = timedelta(days=21)
    horizon = timedelta(0)
    max_span = timedelta(days=3)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def zones(self) -> frozenset[str]:
        """France."""
        return frozenset({ZONE})

    def fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Page by page (100 rows each, about a day)."""
        collector = None
        rows: list[tuple[datetime, object, str]] = []
        for offset in range(0, int((end - start) / STEP) + PAGE, PAGE):
            params = {
                "where": f"date_heure >= '{to_rfc3339(start)}' AND date_heure < '{to_rfc3339(end)}'",
                "order_by": "date_heure",
                "limit": str(PAGE),
                "offset": str(offset),
            }
            data, answer = self._channel.get_json(PATH, params)
            collector = collector or Collector(METHOD, zone, now, answer)
            page = [record(NAME, item) for item in items(NAME, data, "results")]
            for row in page:
                if row.get("perimetre", "France") != "France":
                    raise GridMalformed(f"{NAME}: asked for France, answered for {str(row['perimetre'])[:40]!r}")
                at = instant(NAME, member(NAME, row, "date_heure"))
                rows.append((at, row.get("taux_co2"), str(row.get("nature") or "")))
            if len(page) < PAGE:
                break
        lengths = steps([at for at, _, _ in rows], STEP)
        for (at, value, nature), length in zip(rows, lengths, strict=True):
            if collector is not None:
                collector.add(at, at + length, value, Kind.ESTIMATED, model_version=nature)
        return collector.readings(start, end) if collector is not None else []
