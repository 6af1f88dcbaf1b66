"""The curve behind a decision: the same figures as the decision's, with a band round them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from carbon_sched.domain.job import DataInput
from carbon_sched.planning.explained import MOST_STEPS, StartCurves
from carbon_sched.planning.plan import plan
from tests.fakes.planning import NOW, cluster, job, snapshot

HOURS = [300.0, 200.0, 100.0, 150.0, 400.0, 400.0]


def banded(view, share: float):
    readings = (
        replace(
            reading,
            low_mg_per_kwh=round(reading.intensity_mg_per_kwh * (1 - share)),
            high_mg_per_kwh=round(reading.intensity_mg_per_kwh * (1 + share)),
        )
        for reading in view.outlook.readings
    )
    return replace(view, outlook=replace(view.outlook, readings=tuple(readings)))


def test_every_start_is_priced_as_the_decision_is():
    seen = snapshot([banded(cluster("a", HOURS), 0.1)], [waiting := job(hours=(1.0, 3.0), wait_h=4.0)])
    decision = plan(seen).decisions[0]
    curve = StartCurves(seen).of(waiting, "a")
    assert [point.start for point in curve] == [NOW + timedelta(hours=h) for h in range(5)]
    at = {point.start: point for point in curve}[decision.start]
    assert at.co2e_g == pytest.approx(decision.expected_co2e_g)
    assert at.co2e_g == min(point.co2e_g for point in curve)
    for point in curve:
        assert (point.low_g, point.high_g) == pytest.approx((0.9 * point.co2e_g, 1.1 * point.co2e_g))


def test_data_that_must_move_is_in_every_point():
    sites = [cluster("a", HOURS), cluster("b", [500.0])]
    waiting = job(wait_h=2.0)
    moving = replace(waiting, spec=replace(waiting.spec, data=(DataInput("s3://b/c", 10**9, "Z-b"),)))
    plain, more = (StartCurves(snapshot(sites, [one])).of(one, "a") for one in (waiting, moving))
    assert [b.co2e_g - a.co2e_g for a, b in zip(plain, more, strict=True)] == pytest.approx(
        [0.06 * (500 + value) / 2 for value in HOURS[:3]]
    )


def test_without_a_band_there_is_none_and_a_long_window_has_longer_steps():
    seen = snapshot([cluster("a", HOURS)], [waiting := job(wait_h=100.0)])
    curve = StartCurves(seen).of(waiting, "a")
    assert all(point.low_g == point.co2e_g == point.high_g for point in curve)
    assert len(curve) <= MOST_STEPS + 1
    assert {b.start - a.start for a, b in pairwise(curve)} == {timedelta(hours=3)}


@pytest.mark.parametrize(
    ("sites", "waiting", "name"),
    [
        ([cluster("a", HOURS)], job(), "a"),
        ([cluster("a", HOURS)], job(wait_h=2.0), "gone"),
        ([cluster("a", [])], job(wait_h=2.0), "a"),
    ],
)
def test_there_is_no_curve_for_a_job_that_must_go_or_a_grid_that_is_not_known(sites, waiting, name):
    assert StartCurves(snapshot(sites, [waiting])).of(waiting, name) == ()
