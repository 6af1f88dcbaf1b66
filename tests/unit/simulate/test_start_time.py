"""The hourly replay of one zone with room for everybody."""

from __future__ import annotations

import numpy as np

from carbon_sched.simulate.baselines import rows_ahead
from carbon_sched.simulate.start_time import Rule, Waits, decide
from carbon_sched.simulate.traces import Jobs

VALUES = np.array([400.0, 300.0, 200.0, 100.0, 200.0, *[400.0] * 20])
FORECAST = rows_ahead(VALUES, 12)[:12]


def waits(submitted: list[float]) -> Waits:
    count = len(submitted)
    jobs = Jobs(np.array(submitted), np.ones(count), np.ones(count))
    return Waits(jobs, np.full(count, 6), np.full((count, 1), 3600.0), np.zeros(count, dtype=np.int64))


def test_each_waits_for_its_cleanest_hour():
    assert decide(waits([0.0, 2.0, 5.0]), FORECAST, 0, Rule()).tolist() == [3, 1, 0]


def test_who_came_before_the_first_forecast_is_left_out_also_where_that_is_everybody():
    assert decide(waits([0.0, 3.0]), FORECAST[2:], 2, Rule()).tolist() == [-1, 0]
    assert decide(waits([0.0, 1.0]), FORECAST[2:], 2, Rule()).tolist() == [-1, -1]
    assert decide(waits([]), FORECAST, 0, Rule()).tolist() == []
