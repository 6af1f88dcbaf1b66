"""Clocks that step and drift, and the days on which calendars are odd: holds, leases and statements stay right."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from carbon_sched.domain.job import JobState
from tests.fakes import world as worlds
from tests.fakes.world import World, a_cluster

HOUR = timedelta(hours=1)
GRID = {"DE": [(0, 500.0), (3600, 100.0), (7200, 500.0)]}
ENERGY_UJ = 3_600_000_000
ODD = {
    "before a leap day": datetime(2028, 2, 28, 23, 30, tzinfo=timezone.utc),
    "an hour is left out in Berlin": datetime(2027, 3, 28, 0, 30, tzinfo=timezone.utc),
    "an hour comes twice in Berlin": datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc),
    "the year ends": datetime(2026, 12, 31, 23, 30, tzinfo=timezone.utc),
    "the end of 32 bits": datetime(2038, 1, 19, 2, 30, tzinfo=timezone.utc),
}


def a_world(folder, monkeypatch, start=worlds.START):
    monkeypatch.setattr(worlds, "START", start)
    return World(folder, [a_cluster("de", "DE", home=True)], GRID)


@pytest.mark.parametrize("start", ODD.values(), ids=ODD)
def test_a_hold_and_a_statement_over_an_odd_moment(tmp_path, monkeypatch, start):
    world = a_world(tmp_path, monkeypatch, start)
    job = world.submit(duration_s=600, max_delay_s=3 * 3600)
    world.settle()
    held = world.job(job)
    assert (held.state, held.not_before) == (JobState.QUEUED, start + HOUR), "for the clean hour"
    world.clock.pass_s(3600)
    world.settle()
    world.run_to_end(job, seconds=600, energy_uj=ENERGY_UJ)
    assert world.job(job).state is JobState.SUCCEEDED
    receipt = world.statements.receipt(job.job_id)
    assert world.attempts(job)[0].started_at == start + HOUR
    assert receipt["energy_kwh"] == pytest.approx(ENERGY_UJ / 3.6e12)
    assert receipt["co2e_ug"] == pytest.approx(ENERGY_UJ / 3.6e12 * 100 * 1e6), "by the clean hour's intensity"
    assert world.statements.verify().ok
    world.close()


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_clock_that_steps_starts_nothing_twice_and_nothing_too_late(tmp_path, monkeypatch, step_s):
    world = a_world(tmp_path, monkeypatch)
    start = world.clock.at
    held = world.submit(duration_s=600, max_delay_s=3 * 3600)
    now = world.submit(duration_s=600)
    world.settle()
    world.clock.at += timedelta(seconds=step_s)
    world.clusters["de"].clock_ahead_s = -step_s  # which still would start what it was sent
    for _ in range(3):
        world.settle()
    assert len(world.attempts(now)) == 1
    world.run_to_end(now, seconds=60)
    while world.job(held).state is JobState.QUEUED:
        world.clock.pass_s(600)
        world.settle()
        assert world.clock.at <= start + 3 * HOUR
    assert len(world.attempts(held)) == 1
    world.run_to_end(held, seconds=600, seq=1)
    assert {world.job(one).state for one in (held, now)} == {JobState.SUCCEEDED}
    assert len(world.clusters["de"].submissions) == 2
    assert world.statements.verify().ok
    world.close()


@pytest.mark.parametrize("drift_s", [30, -30])
def test_a_machine_whose_clock_is_half_a_minute_off(tmp_path, monkeypatch, drift_s):
    world = a_world(tmp_path, monkeypatch)
    job = world.submit(duration_s=600)
    world.settle()
    ours = world.clock.at
    world.clock.at += timedelta(seconds=drift_s)  # what the wrapper and its meter write
    attempt = world.attempts(job)[-1]
    begun = world.clock.at
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    world.segment(attempt, begun, begun + timedelta(seconds=600), {attempt.attempt_id: ENERGY_UJ})
    world.clock.at = begun + timedelta(seconds=600)
    ended = {"event": "ended", "exit_code": 0}
    world.record(attempt, ended, {**ended, "event": "closed", "segments": 1})
    world.clock.at = ours + timedelta(seconds=600)
    world.clusters["de"].end(attempt.attempt_id, "SUCCEEDED", 0)
    world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert (world.job(job).state, receipt["final"]) == (JobState.SUCCEEDED, True)
    assert receipt["energy_kwh"] == pytest.approx(ENERGY_UJ / 3.6e12), "all of it, whatever the clock said"
    assert world.statements.verify().ok
    world.close()
