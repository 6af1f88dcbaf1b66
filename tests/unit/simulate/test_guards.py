"""What must hold on any grid: a stampede keeps to the room there is, and lies cost little (B5 rows 17 and 18)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from carbon_sched.policy.presets import preset
from carbon_sched.simulate.replay import foreseen, replay
from carbon_sched.simulate.report import in_use
from carbon_sched.simulate.traces import Jobs
from tests.fakes.backtests import a_cluster, a_grid, a_scenario, daily, some_jobs

DAY, WEEK = 24, 168


def test_a_stampede_for_one_green_hour_keeps_to_the_room_and_starves_nobody():
    def green_at_ten(hours):
        return np.where(hours % DAY == 10, 20.0, 400.0 + hours % DAY)

    jobs = Jobs(np.zeros(90), np.ones(90), np.ones(90))
    of = a_scenario(jobs, [a_cluster("a", "A", gpus=8)], a_grid(A=green_at_ten), slack="24h")
    done = replay(of, preset("balanced"), knowledge=foreseen)
    assert in_use(of, done.cluster, done.start_h).max() <= 8
    assert (done.start_h <= of.latest_h).all()
    assert (done.start_h == 10).sum() == 8, "the green hour is full"
    assert len(np.unique(done.start_h)) >= 90 / 8, "the others are spread"


def test_a_week_of_inverted_forecasts_costs_little_and_makes_nobody_late():
    rng = np.random.default_rng(4)

    def restless(hours):
        return daily(300, 150)(hours) + rng.normal(0, 15, len(hours))

    jobs = some_jobs(100, hours=1.0, every_h=2.5)
    of = a_scenario(jobs, [a_cluster("a", "A")], a_grid(A=restless), slack="8h")
    told = np.array(of.forecast["A"])
    first = 36
    rows = told[first : first + WEEK]
    told[first : first + WEEK] = np.maximum(2 * rows.mean(axis=1, keepdims=True) - rows, 0)
    done = replay(replace(of, forecast={"A": told}), preset("balanced"), knowledge=foreseen)
    lied = (of.jobs.submitted_h >= first) & (of.jobs.submitted_h < first + WEEK)
    blind = of.grams(of.home, of.jobs.submitted_h)
    assert (done.start_h <= of.latest_h).all()
    assert of.grams(done.cluster, done.start_h)[lied].sum() <= 1.15 * blind[lied].sum()
    assert (done.start_h > of.jobs.submitted_h)[~lied].any(), "honest forecasts are acted on"
