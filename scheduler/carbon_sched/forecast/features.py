"""Regressors of the forecaster: one row per (last known hour, horizon), all on the trace's softened logarithm.

Direct multi-horizon regression on departures from the same-hour profile. Horizon `h >= 1` counts hours from the last
known hour `t`, so one set of models serves every data lag: a lag only shifts which horizon is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.series import DAY
from carbon_sched.forecast.trace import WEEK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.forecast.series import Floats
    from carbon_sched.forecast.trace import Trace

    Ints = NDArray[np.intp]
    Singles = NDArray[np.float32]

LAGS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 21, 24, 30, 36, 48, 60, 72, 96, 120, 168)
LAGS28 = (1, 3, 6, 12, 24)
DAYS_BACK = 6
AROUND = (-3, -2, -1, 1, 2, 3)
WARM_UP = 8 * DAY
"""Younger histories have no complete 7-day profile and no anomaly against it: no rows of theirs are used."""

SATURDAY = 5
YEAR_H = 8766.0
FEATURES = 73


def regressors(of: Trace, t: Ints, h: Ints) -> tuple[Singles, Floats]:
    """Regressors for targets `t + h` as seen from `t` (equal shapes `[n]`, `h >= 1`).

    Returns `(x [n, FEATURES], base [n])`; a target is modelled as `base + x @ beta`, where the base is the 7-day
    profile. Row `i` depends on nothing after hour `t[i]`.
    """
    last = np.maximum(t + h - DAY * -(-h // DAY), 0)
    base = of.profile7[last]
    columns = [*_recent(of, t), *_same_hour(of, t, h, last, base), *_context(of, t, h, base)]
    # Filled by rows and handed out transposed: contiguous writes take half the time of strided ones.
    rows = np.empty((FEATURES, len(t)), dtype=np.float32)
    for row, column in zip(rows, columns, strict=True):
        row[:] = column
    return rows.T, base


def _recent(of: Trace, t: Ints) -> list[Floats]:
    """What happened lately: anomalies by age, and means over days against the week."""
    level = of.level[t]
    columns = [of.anomaly[np.maximum(t + 1 - lag, 0)] for lag in LAGS]
    columns += [of.anomaly28[np.maximum(t + 1 - lag, 0)] for lag in LAGS28]
    columns += [mean[t] - level for mean in (of.mean24, of.mean48, of.mean672)]
    return [*columns, of.anomaly6[t] - of.anomaly24[t]]


def _same_hour(of: Trace, t: Ints, h: Ints, last: Ints, base: Floats) -> list[Floats]:
    """What the target's hour looked like: on each of the last days, in longer profiles, a week ago, around it."""
    columns = [of.values[np.maximum(last - DAY * j, 0)] - base for j in range(DAYS_BACK)]
    columns.append(of.values[np.maximum(last - WEEK, 0)] - base)
    columns += [profile[last] - base for profile in (of.profile3, of.profile14, of.profile28, of.profile70)]
    same_weekday = np.maximum(t + h - WEEK * -(-h // WEEK), 0)
    columns.append(of.weekly4[same_weekday] - of.profile28[last])
    for offset in AROUND:
        beside = np.maximum(last + offset, 0)
        columns.append(of.profile7[np.where(beside > t, np.maximum(beside - DAY, 0), beside)] - base)
    return columns


def _context(of: Trace, t: Ints, h: Ints, base: Floats) -> list[Floats]:
    """Hour, weekend (UTC) and season of the target, and what the last day's anomaly means at that hour."""
    hour = of.hour0 + t + h
    angle, season = (hour % DAY) * (2 * np.pi / DAY), hour * (2 * np.pi / YEAR_H)
    waves = [wave(k * angle) for k in (1, 2, 3) for wave in (np.sin, np.cos)]
    shape, day, now = base - of.level[t], of.anomaly24[t], of.anomaly[t]
    # 1970-01-01 was a Thursday, day 3 of a week that begins on Monday.
    weekend = ((hour // DAY + 3) % 7 >= SATURDAY).astype(np.float64)
    columns = [*waves, shape, weekend, weekend * shape, weekend * waves[0], weekend * waves[1]]
    columns += [anomaly * wave for anomaly in (day, now) for wave in waves[:4]]
    columns += [day * shape, now * shape, day**2, np.sin(season), np.cos(season), np.ones(len(t))]
    return columns
