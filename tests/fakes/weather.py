"""Made-up hourly intensities with a daily course, weekends and weather that lingers; for tests of the forecaster."""

from __future__ import annotations

import numpy as np


def intensity(hours, seed=0, *, level=300.0, swing=0.25, weather=0.05, memory=0.97):
    """`[hours]` from a Friday 00Z on: daily wave x weekday x exp(AR(1)); the wave's depth follows the weather too."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, weather, hours)
    state = np.zeros(hours)
    for i in range(1, hours):
        state[i] = memory * state[i - 1] + noise[i]
    hour = np.arange(hours)
    wave = swing * np.sin(hour * 2 * np.pi / 24) * np.exp(state)
    weekend = np.where((hour // 24 + 4) % 7 >= 5, -0.1, 0.0)
    return level * np.exp(state + wave + weekend)
