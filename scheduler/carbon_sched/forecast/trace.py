"""Running statistics of one zone's history, each known at its own hour (forecast layer: pure numpy, no I/O)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.series import DAY, filled

if TYPE_CHECKING:
    from carbon_sched.forecast.series import Floats

WEEK = 7 * DAY
MONTH = 28 * DAY
TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Trace:
    """What is known at every hour `s` of a gap-free history: element `s` depends on `values[: s + 1]` only.

    profile7, profile28  mean of the same hour of the day over the last 7 / 28 days, hour `s` included
    level                mean of the last 168 hours; mean24, mean48, mean672 likewise
    anomaly              value minus the 7-day profile known a day before; anomaly6, anomaly24 its running means
    hour0                hours from 1970-01-01T00Z (a Thursday) to element 0
    """

    hour0: int
    values: Floats
    profile7: Floats
    profile28: Floats
    level: Floats
    mean24: Floats
    mean48: Floats
    mean672: Floats
    anomaly: Floats
    anomaly6: Floats
    anomaly24: Floats

    def __len__(self) -> int:
        return len(self.values)


def trace(values: Floats, hour0: int) -> Trace:
    """Compute every statistic in one pass each; `values[0]` must be known, later gaps are filled causally."""
    known = filled(values)
    profile7 = _daily_mean(known, 7)
    before = np.concatenate([np.full(min(DAY, len(known)), known[0]), profile7[:-DAY]])
    anomaly = known - before
    return Trace(
        hour0=hour0,
        values=known,
        profile7=profile7,
        profile28=_daily_mean(known, 28),
        level=np.maximum(_running_mean(known, WEEK), TINY),
        mean24=_running_mean(known, DAY),
        mean48=_running_mean(known, 2 * DAY),
        mean672=_running_mean(known, MONTH),
        anomaly=anomaly,
        anomaly6=_running_mean(anomaly, 6),
        anomaly24=_running_mean(anomaly, DAY),
    )


def _running_mean(values: Floats, width: int) -> Floats:
    """Mean of the last `width` elements, or of as many as there are."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - width, 0)
    means: Floats = (total[ends] - total[begins]) / (ends - begins)
    return means


def _daily_mean(values: Floats, days: int) -> Floats:
    """Mean of the same hour of the day over the last `days` days, or of as many as there are."""
    out = np.empty_like(values)
    for hour in range(min(DAY, len(values))):
        out[hour::DAY] = _running_mean(values[hour::DAY], days)
    return out
