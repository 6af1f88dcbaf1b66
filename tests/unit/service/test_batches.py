"""A batch over its attempts: progress while it runs, every item once, the receipt's figure per item."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from carbon_sched.api.views import job_view
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import to_epoch, to_rfc3339
from carbon_sched_runtime.batch_file import BatchState, batch_name, format_batch
from tests.fakes.world import START, World, a_cluster

KWH_UJ = 3_600_000_000_000


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("here", "DE", pue=1.5, home=True)], {"DE": [(0, 100.0), (60, 300.0)]})
    yield world
    world.close()


def begin(world, job):
    attempt = world.attempts(job)[-1]
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    world.clusters["here"].run(attempt.attempt_id)
    world.settle()
    return attempt


def tell(world, attempt, done, total=100, since=START):
    micros = [round(to_epoch(moment) * 1e6) for moment in (since, world.clock.now())]
    data = format_batch(BatchState(attempt.attempt_id, done, total, *micros))
    world.clusters["here"].files[batch_name(attempt.attempt_id)] = data


def end(world, attempt, status, exit_code, segments):
    world.record(
        attempt,
        {"event": "ended", "exit_code": exit_code},
        {"event": "closed", "exit_code": exit_code, "segments": segments},
    )
    world.clusters["here"].end(attempt.attempt_id, status, exit_code)
    world.settle()


def view(world, job):
    with world.store.transaction(write=False) as tx:
        states = tx.batch_states([job.job_id]).get(job.job_id, ())
        return job_view(tx.job(job.job_id), tx.attempts(job_id=job.job_id), None, states)["batch"]


def submitted(world, **more):
    job = world.submit(phase="inference-batch", name="answers", interruptible=True, **more)
    world.settle()
    return job


def test_a_job_that_is_no_batch_tells_no_progress(world):
    job = submitted(world)
    begin(world, job)
    assert view(world, job) is None


def test_progress_carbon_per_item_and_the_expected_end_are_told_while_it_runs(world):
    job = submitted(world, deadline=to_rfc3339(START + timedelta(minutes=4)))
    attempt = begin(world, job)
    world.clock.pass_s(60)
    world.segment(attempt, START, world.clock.now(), {attempt.attempt_id: KWH_UJ})
    tell(world, attempt, 20)
    world.collect.step()
    seen = view(world, job)
    assert (seen["done"], seen["total"]) == (20, 100)
    assert seen["energy_j"] == pytest.approx(3.6e6)
    assert seen["co2e_g"] == pytest.approx(100 * 1.5)
    assert seen["co2e_g_per_item"] == pytest.approx(100 * 1.5 / 20)
    assert seen["expected_end"] == to_rfc3339(START + timedelta(minutes=5))
    assert seen["late"]


def test_items_of_a_recalled_batch_count_once_and_its_receipt_divides_all_it_used_by_them(world):
    job = submitted(world)
    first = begin(world, job)
    world.clock.pass_s(60)
    world.segment(first, START, world.clock.now(), {first.attempt_id: KWH_UJ})
    tell(world, first, 40)
    world.recall.evict("here")
    world.settle()
    end(world, first, "STOPPED", 143, 1)
    second = world.attempts(job)[-1]
    assert second.number == 2
    began = world.clock.now()
    begin(world, job)
    world.clock.pass_s(30)
    world.segment(second, began, world.clock.now(), {second.attempt_id: KWH_UJ}, seq=1)
    tell(world, second, 100, since=began)
    end(world, second, "SUCCEEDED", 0, 1)
    assert world.job(job).state is JobState.SUCCEEDED
    receipt = world.statements.receipt(job.job_id)
    assert [window["units"] for window in receipt["windows"]] == [{"items": 40.0}, {"items": 60.0}]
    one = receipt["per_unit"]["items"]
    assert one["amount"] == 100
    assert one["energy_j"] * 100 == pytest.approx(receipt["energy_kwh"] * 3.6e6)
    assert one["co2e_g"] * 100 == pytest.approx(receipt["co2e_g"]) == pytest.approx((100 + 300) * 1.5)
    seen = view(world, job)
    assert seen["co2e_g_per_item"] == pytest.approx(one["co2e_g"])
    assert seen["expected_end"] is None


def test_what_is_left_of_a_batch_is_planned_at_its_own_pace(world):
    """Of the hour that was expected four fifths are behind it, of the items a tenth: it cannot pause before its end."""
    job = submitted(world, duration_s=3600.0, deadline=to_rfc3339(START + timedelta(hours=10)))
    attempt = begin(world, job)
    world.clock.pass_s(2880)
    tell(world, attempt, 10)
    world.collect.step()
    (_, left, come, _) = world.decide._read().running[0]
    assert come.left_s == pytest.approx(9 * 2880)
    assert left.belief.mean_duration_s == pytest.approx(9 * 2880)
    assert left.latest_start <= START + timedelta(hours=10) - timedelta(seconds=9 * 2880)


@pytest.mark.parametrize("data", [b"nonsense\n", b"x" * 5000])
def test_a_file_that_is_no_state_tells_nothing_and_harms_nothing(world, data):
    job = submitted(world)
    attempt = begin(world, job)
    world.clusters["here"].files[batch_name(attempt.attempt_id)] = data
    end(world, attempt, "SUCCEEDED", 0, 0)
    assert view(world, job) is None
    assert world.job(job).state is JobState.SUCCEEDED


def test_what_a_batch_did_stands_in_the_ledger_as_a_window_of_its_attempt(world):
    job = submitted(world)
    attempt = begin(world, job)
    world.clock.pass_s(10)
    tell(world, attempt, 100)
    end(world, attempt, "SUCCEEDED", 0, 0)
    with world.store.transaction(write=False) as tx:
        facts = [json.loads(entry.payload) for entry in tx.entries()]
    (collected,) = [fact["body"] for fact in facts if fact["kind"] == "attempt-collected"]
    assert [(w["name"], w["units_millionths"]) for w in collected["windows"]] == [("batch", {"items": 100_000_000})]
