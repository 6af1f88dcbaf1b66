"""Run or pause: against every schedule there is, for small instances."""

from __future__ import annotations

from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from carbon_sched.planning.suspend import Remaining, State, runs, still_needed

intensities = st.lists(st.integers(1, 9), min_size=8, max_size=8)


def one(length: float, pauses: int, state: State = State.WAITING, slots: int = 4):
    work, alive = still_needed(np.array([[length]]), np.array([0]), slots)
    return Remaining(work, alive, np.array([pauses]), np.array([state]))


def cheapest(ahead, length: int, pauses: int, restart: float, state: State):
    """The least cost of all schedules, apart for those that run in the first slot and those that do not."""
    best = {True: np.inf, False: np.inf}
    for slots in combinations(range(length + pauses), length):
        cost = float(sum(ahead[slot] for slot in slots))
        before = [-1, *slots[:-1]] if state is State.RUNNING else [None, *slots[:-1]]
        for was, slot in zip(before, slots, strict=True):
            resumes = state is State.PAUSED if was is None else slot - was > 1
            cost += restart * ahead[slot] if resumes else 0.0
        best[slots[0] == 0] = min(best[slots[0] == 0], cost)
    return best


@settings(max_examples=200, deadline=None)
@given(intensities, st.integers(1, 4), st.integers(0, 4), st.sampled_from([0.0, 0.25, 2.0]), st.sampled_from(State))
def test_it_is_the_best_of_all_schedules(ahead, length, pauses, restart, state):
    best = cheapest(ahead, length, pauses, restart, state)
    found = runs(one(length, pauses, state), np.array([ahead], dtype=float), restart)[0]
    if best[True] != pytest.approx(best[False]):
        assert found == (best[True] < best[False])
    else:
        assert found or restart > 0


def test_without_pauses_left_it_runs():
    assert runs(one(2.0, 0), np.array([[9.0, 1.0, 1.0, 1.0]]))[0]


def test_what_may_be_short_is_worth_starting_in_a_short_valley():
    # two clean hours, then dirty ones, then a clean day: half of such jobs last one hour, half of them six
    ahead = np.array([[1.0, 1.0, *[8.0] * 4, *[2.0] * 12]])
    work, alive = still_needed(np.array([[1.0, 6.0]]), np.array([0]), 6)
    assert work[0].tolist() == [1.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    jobs = Remaining(work, alive, np.array([8]), np.array([State.WAITING]))
    assert runs(jobs, ahead)[0]


def test_a_pause_must_be_worth_its_restart():
    ahead = np.array([[3.0, 2.0, 2.0, 2.0]])
    waits, goes_on = (runs(one(1.0, 3, State.RUNNING, slots=1), ahead, restart)[0] for restart in (0.4, 0.6))
    assert not waits
    assert goes_on


def test_jobs_are_decided_apart():
    ahead = np.array([[3.0, 1.0, 1.0], [1.0, 3.0, 3.0]])
    work, alive = still_needed(np.array([[1.0], [1.0]]), np.array([0, 0]), 1)
    jobs = Remaining(work, alive, np.array([2, 2]), np.array([State.WAITING] * 2))
    assert runs(jobs, ahead).tolist() == [False, True]


def test_work_that_is_done_is_not_needed_again():
    work, alive = still_needed(np.array([[1.0, 2.5]]), np.array([2]), 2)
    assert work[0].tolist() == [0.25, 0.0]
    assert alive[0].tolist() == [0.5, 0.0]
