"""Arrivals that are expected have their say in the prices, and never take what a job that is there needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from carbon_sched.planning.problem import Problem
from carbon_sched.planning.solving import Expected, solve
from carbon_sched.simulate.arrivals import replay

HOURS = 8


def problem(windows: list[tuple[int, int]], levels: list[float], *, units: float = 1.0) -> Problem:
    """Jobs of one hour and `units` units on one lane of one unit, with grams per hour as given."""
    count = len(windows)
    first, last = np.array(windows, dtype=np.int64).reshape(count, 2).T
    return Problem(
        step_h=1.0,
        coarse=1,
        cost=np.array(levels, dtype=np.float32).reshape(1, 1, HOURS),
        slots=np.array([1]),
        capacity=np.ones((1, HOURS + 1)),
        group=np.zeros(count, dtype=np.int64),
        units=np.full(count, units),
        first=first,
        last=last,
        level=np.zeros(count, dtype=np.int64),
        urgency=np.zeros(count, dtype=np.int64),
    )


# the second hour is the cleanest, the first a little worse, all others bad
GRID = [110.0, 100.0, *[500.0] * 6]


def test_room_that_a_job_to_come_needs_more_is_left_to_it():
    here = problem([(0, 1)], GRID)
    arrives_next = Expected(problem([(1, 7)], GRID))
    assert solve(here).start.tolist() == [1]
    assert solve(here, expected=arrives_next).start.tolist() == [0]


def test_jobs_that_are_only_expected_never_take_a_place():
    here = problem([(1, 1)], GRID)
    crowd = Expected(problem([(1, 1)] * 5, GRID))
    assert solve(here, expected=crowd).start.tolist() == [1]


def test_several_samples_count_as_their_mean():
    here, once = problem([(0, 1)], GRID), problem([(1, 7)], GRID)
    twice = Expected(problem([(1, 7)] * 2, GRID), counts=0.5)
    assert solve(here, expected=twice).prices.values == pytest.approx(
        solve(here, expected=Expected(once)).prices.values
    )


def test_expected_jobs_of_a_later_level_do_not_count():
    here = problem([(0, 1)], GRID)
    later = problem([(1, 7)], GRID)
    assert solve(here, expected=Expected(replace(later, level=np.array([1])))).start.tolist() == [1]


# only the first hour and the seventh are worth starting in, the seventh a little more so
EITHER = [110.0, *[500.0] * 5, 100.0, 500.0]


def others(count: int) -> Expected:
    """Expected jobs that take the second hour and those after it, but never the seventh."""
    return Expected(problem([(hour, hour) for hour in (1, 2, 3, 4, 5, 7)[:count]], EITHER))


def test_the_end_of_a_window_is_kept_in_reserve_when_the_work_ahead_fills_the_clusters():
    here = problem([(0, 6)], EITHER)
    assert solve(here, expected=others(3)).start.tolist() == [6]
    assert solve(here, expected=others(6)).start.tolist() == [0]


def test_who_finds_no_room_before_is_put_into_the_reserve():
    here = problem([(0, 6)], EITHER)
    here.capacity[0, :6] = 0.0
    assert solve(here, expected=others(6)).start.tolist() == [6]


def test_who_can_hardly_wait_any_more_has_the_last_room_before_a_larger_job():
    here = replace(problem([(0, 1), (0, 6)], EITHER), units=np.array([0.6, 1.0]))
    here.capacity[0, 1:] = 0.0
    assert solve(here).placed.tolist() == [True, False]


def test_replayed_arrivals_are_known_only_when_they_come():
    # the first job cannot know of the second one, which may only start at once, unless it expects it
    both = problem([(0, 1), (1, 1)], GRID)
    surprised, warned = replay(both, None), replay(both, Expected(problem([(1, 1)], GRID)))
    assert surprised.late == 1
    assert (warned.start.tolist(), warned.late) == ([0, 1], 0)
