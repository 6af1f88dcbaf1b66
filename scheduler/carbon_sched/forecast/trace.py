"""Running statistics of one zone's history, each known at its own hour (forecast layer: pure numpy, no I/O).

All of it lives on a softened logarithm of the intensity: departures of a fossil grid are proportional to its level, but
a plain logarithm would let the last grams of a nearly clean hour weigh more than everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.series import DAY, filled

if TYPE_CHECKING:
    from carbon_sched.forecast.series import Floats

WEEK = 7 * DAY
MONTH = 28 * DAY
LONGEST = 70 * DAY
"""No statistic looks further back than this."""

SOFTENING = 0.5
"""Offset of the logarithm, in units of the reference level; chosen on 2021 and 2022 (0 to 1 differ little)."""
HIGHEST = 50.0
"""Far above what any zone reaches, within what single precision holds."""


def softened(values: Floats, reference: float) -> Floats:
    """`log(values / reference + SOFTENING)`."""
    return np.log(values / reference + SOFTENING)


def hardened(levels: Floats, reference: float) -> Floats:
    """Inverse of `softened`, never negative, nor infinite where a history without any change led a fit astray."""
    return np.maximum(np.exp(np.minimum(levels, HIGHEST)) - SOFTENING, 0.0) * reference


@dataclass(frozen=True, eq=False)
class Trace:
    """What is known at every hour `s` of a gap-free history: element `s` depends on `values[: s + 1]` only.

    hour0                        hours from 1970-01-01T00Z (a Thursday) to element 0
    values                       softened intensity
    profile3, 7, 14, 28, 70      mean of the same hour of the day over so many days, hour `s` included
    weekly4                      mean of the same hour of the week over four weeks
    level, mean24, mean48, mean672   mean of the last 168 / 24 / 48 / 672 hours
    anomaly, anomaly28           value minus the 7-day / 28-day profile known a day before
    anomaly6, anomaly24          running means of `anomaly`
    volatility                   root mean square of `anomaly` over the last 168 hours
    """

    hour0: int
    values: Floats
    profile3: Floats
    profile7: Floats
    profile14: Floats
    profile28: Floats
    profile70: Floats
    weekly4: Floats
    level: Floats
    mean24: Floats
    mean48: Floats
    mean672: Floats
    anomaly: Floats
    anomaly28: Floats
    anomaly6: Floats
    anomaly24: Floats
    volatility: Floats

    def __len__(self) -> int:
        return len(self.values)


def trace(values: Floats, hour0: int, reference: float) -> Trace:
    """The trace of an intensity; `values[0]` must be known, later gaps are filled causally."""
    return statistics(softened(filled(values), reference), hour0)


def statistics(known: Floats, hour0: int) -> Trace:
    """Compute every statistic of a gap-free series, in one pass each."""
    profile7, profile28 = _every(known, DAY, 7), _every(known, DAY, 28)
    anomaly = known - _a_day_before(profile7)
    return Trace(
        hour0=hour0,
        values=known,
        profile3=_every(known, DAY, 3),
        profile7=profile7,
        profile14=_every(known, DAY, 14),
        profile28=profile28,
        profile70=_every(known, DAY, 70),
        weekly4=_every(known, WEEK, 4),
        level=_running_mean(known, WEEK),
        mean24=_running_mean(known, DAY),
        mean48=_running_mean(known, 2 * DAY),
        mean672=_running_mean(known, MONTH),
        anomaly=anomaly,
        anomaly28=known - _a_day_before(profile28),
        anomaly6=_running_mean(anomaly, 6),
        anomaly24=_running_mean(anomaly, DAY),
        volatility=np.sqrt(np.maximum(_running_mean(anomaly**2, WEEK), 0.0)),
    )


def _a_day_before(values: Floats) -> Floats:
    return np.concatenate([np.full(min(DAY, len(values)), values[0]), values[:-DAY]])


def _running_mean(values: Floats, width: int) -> Floats:
    """Mean of the last `width` elements, or of as many as there are."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - width, 0)
    means: Floats = (total[ends] - total[begins]) / (ends - begins)
    return means


def _every(values: Floats, step: int, times: int) -> Floats:
    """Mean of every `step`-th element backwards from each, `times` of them, or of as many as there are."""
    rows = -(-len(values) // step)
    grid = np.full((rows, step), values[-1])
    grid.reshape(-1)[: len(values)] = values
    total = np.concatenate([np.zeros((1, step)), np.cumsum(grid, axis=0)])
    ends = np.arange(1, rows + 1)
    begins = np.maximum(ends - times, 0)
    means: Floats = ((total[ends] - total[begins]) / (ends - begins)[:, None]).reshape(-1)[: len(values)]
    return means
