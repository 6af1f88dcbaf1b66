"""The simple forecasts that ours has to beat, for benchmarks and for the skill shown per zone (pure numpy, no I/O).

Each takes the hourly history `[hours]` (gaps already filled, `carbon_sched.forecast.series.filled`), the issues as
indices of hours and the number of leads, and knows `history[: issue]` of each: everything up to the hour before.
Returns `[issues, leads]`. Every issue needs at least one day behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast import damped
from carbon_sched.forecast.series import DAY
from carbon_sched.forecast.trace import statistics

if TYPE_CHECKING:
    from carbon_sched.forecast.features import Ints
    from carbon_sched.forecast.series import Floats


def persistence(history: Floats, issues: Ints, leads: int) -> Floats:
    """The last known value, for ever."""
    return np.repeat(history[issues - 1][:, None], leads, axis=1)


def same_hour_yesterday(history: Floats, issues: Ints, leads: int) -> Floats:
    """The last known value of the same hour of the day."""
    return history[_same_hour(issues, leads)]


def hourly_profile(history: Floats, issues: Ints, leads: int, *, days: int) -> Floats:
    """Mean of the same hour of the day over the last `days` days, or as many as there are."""
    last = _same_hour(issues, leads)
    back = last[..., None] - DAY * np.arange(days)
    known = back >= 0
    return np.asarray(np.where(known, history[np.maximum(back, 0)], 0.0).sum(axis=-1) / known.sum(axis=-1))


def damped_profile(history: Floats, issues: Ints, leads: int) -> Floats:
    """7-day profile + the last day's mean departure from it (decay 48 h) + what the last hour adds (decay 6 h)."""
    newest = np.repeat(issues - 1, leads)
    ahead = np.tile(np.arange(1, leads + 1), len(issues))
    return damped.damped_profile(statistics(history, 0), newest, ahead).reshape(len(issues), leads)


def _same_hour(issues: Ints, leads: int) -> Ints:
    ahead = np.arange(1, leads + 1)[None, :]
    return issues[:, None] - 1 + ahead - DAY * -(-ahead // DAY)
