"""Whether each zone's forecasts may still be acted on: what was expected every hour of the last day, against what came.

Kept in memory: after a restart every zone is trusted until a day has been seen (planning.trust has the rule).
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.intensity import Kind
from carbon_sched.domain.units import MG_PER_G
from carbon_sched.forecast.series import HourlySeries
from carbon_sched.planning.trust import WEEK_H, WINDOW_H, believable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.domain.intensity import Outlook, Reading
    from carbon_sched.service.outlooks import Outlooks

    Floats = NDArray[np.float64]

HOUR = timedelta(hours=1)


class Trust:
    """Remembers one forecast of each zone per hour."""

    def __init__(self, outlooks: Outlooks) -> None:
        self._outlooks = outlooks
        self._seen: dict[str, deque[tuple[datetime, Floats]]] = {}
        self._verdicts: dict[str, tuple[datetime, bool]] = {}

    def trusted(self, outlooks: Mapping[str, Outlook], now: datetime) -> dict[str, bool]:
        """By zone, whether its forecasts agreed with what came; looks anew once an hour."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        for zone, outlook in outlooks.items():
            if self._verdicts.get(zone, (None,))[0] != hour:
                self._verdicts[zone] = hour, self._agrees(zone, hour, now)
                seen = self._seen.setdefault(zone, deque(maxlen=WINDOW_H))
                if any(reading.kind is Kind.FORECAST for reading in outlook.readings):
                    seen.append((hour, hourly(outlook.readings, hour, WINDOW_H)))
        return {zone: self._verdicts[zone][1] for zone in outlooks}

    def _agrees(self, zone: str, hour: datetime, now: datetime) -> bool:
        """Judge what was issued in the 24 hours before `hour` by what is measured by now, and in the week before."""
        first = hour - WINDOW_H * HOUR
        issued = np.full((WINDOW_H, WINDOW_H), np.nan)
        for at, values in self._seen.get(zone, ()):
            if at >= first:
                issued[(at - first) // HOUR] = values
        if np.isnan(issued).all():
            return True
        day = self._measured(zone, first, WINDOW_H, now)
        return believable(issued, day, lambda: self._measured(zone, first - WEEK_H * HOUR, WEEK_H, now))

    def _measured(self, zone: str, first: datetime, hours: int, now: datetime) -> Floats:
        readings = self._outlooks.actual(zone, first, first + hours * HOUR, now)
        return hourly([one for one in readings if one.kind in (Kind.MEASURED, Kind.ESTIMATED)], first, hours)


def hourly(readings: Sequence[Reading], first: datetime, hours: int) -> Floats:
    """`[hours]` means in g/kWh of the hours from `first` on; NaN for hours that are not wholly covered."""
    out, until = np.full(hours, np.nan), first + hours * HOUR
    pieces = [(r.start, r.end, r.intensity_mg_per_kwh / MG_PER_G) for r in readings if r.start < until]
    if pieces:
        series = HourlySeries.from_intervals(pieces).since(first).until(until)
        offset = (series.start - first) // HOUR
        out[offset : offset + len(series.values)] = series.values
    return out
