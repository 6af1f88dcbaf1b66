"""The damped profile: the forecast from two days of history on, and the yardstick of the benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.series import DAY

if TYPE_CHECKING:
    from carbon_sched.forecast.features import Ints
    from carbon_sched.forecast.series import Floats
    from carbon_sched.forecast.trace import Trace

DAY_DECAY_H = 48.0
HOUR_DECAY_H = 6.0


def damped_profile(of: Trace, t: Ints, h: Ints) -> Floats:
    """7-day profile + the last day's mean anomaly (decay 48 h) + what the last hour adds to it (decay 6 h), `[n]`.

    Works on whatever scale the trace is on.
    """
    last = np.maximum(t + h - DAY * -(-h // DAY), 0)
    day = of.anomaly24[t]
    newest = of.anomaly[t] - day
    out: Floats = of.profile7[last] + day * np.exp(-h / DAY_DECAY_H) + newest * np.exp(-h / HOUR_DECAY_H)
    return out
