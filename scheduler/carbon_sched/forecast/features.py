"""Regressors of the forecaster: one row per (last known hour, horizon), all relative to the week's level.

The recipe is direct multi-horizon regression on departures from the same-hour profile. Horizon `h >= 1` counts hours
from the last known hour `t`, so one set of models serves every data lag: a lag only shifts which horizon is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.series import DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.forecast.series import Floats
    from carbon_sched.forecast.trace import Trace

    Ints = NDArray[np.intp]

LAGS = (1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48)
DAYS_BACK = 6
WARM_UP = 8 * DAY
"""Rows before this age of the history are not used for training: the 7-day profile is not complete."""

SATURDAY = 5
YEAR_H = 8766.0
FEATURES = 48


def regressors(of: Trace, t: Ints, h: Ints) -> tuple[Floats, Floats, Floats]:
    """Regressors for targets `t + h` as seen from `t` (equal shapes `[n]`, `h >= 1`).

    Returns `(x [n, FEATURES], scale [n], base [n])`; a target's value is modelled as `base + scale * (x @ beta)`.
    Element `i` depends on nothing after hour `t[i]`.
    """
    target = t + h
    last = np.maximum(target - DAY * -(-h // DAY), 0)
    level, base = of.level[t], of.profile7[last]
    shape = base / level - 1.0
    day_anomaly, now_anomaly = of.anomaly24[t] / level, of.anomaly[t] / level
    waves = _waves(of.hour0 + target)
    columns = [of.anomaly[np.maximum(t + 1 - lag, 0)] / level for lag in LAGS]
    columns += [(of.values[np.maximum(last - DAY * j, 0)] - base) / level for j in range(DAYS_BACK)]
    columns.append((of.values[np.maximum(last - 7 * DAY, 0)] - base) / level)
    columns.append((of.profile28[last] - base) / level)
    columns += [mean[t] / level - 1.0 for mean in (of.mean24, of.mean48, of.mean672)]
    columns.append((of.anomaly6[t] - of.anomaly24[t]) / level)
    columns += [*waves, shape, *_weekend(of.hour0 + target, shape, waves)]
    columns += [day_anomaly * wave for wave in waves[:4]] + [now_anomaly * wave for wave in waves[:4]]
    columns += [day_anomaly * shape, now_anomaly * shape, day_anomaly**2]
    season = (of.hour0 + target) * (2 * np.pi / YEAR_H)
    columns += [np.sin(season), np.cos(season), np.ones(len(t))]
    return np.stack(columns, axis=1), level, base


def _waves(hour: Ints) -> list[Floats]:
    """Three sine/cosine pairs of the hour of the day."""
    angle = (hour % DAY) * (2 * np.pi / DAY)
    return [wave(k * angle) for k in (1, 2, 3) for wave in (np.sin, np.cos)]


def _weekend(hour: Ints, shape: Floats, waves: list[Floats]) -> list[Floats]:
    """Weekend in UTC, alone and with the profile's shape and the hour; 1970-01-01 was a Thursday."""
    weekend = ((hour // DAY + 3) % 7 >= SATURDAY).astype(np.float64)
    return [weekend, weekend * shape, weekend * waves[0], weekend * waves[1]]
