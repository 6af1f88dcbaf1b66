"""What a collected attempt teaches, and that every finished job improves the next estimate at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.cluster import Cluster, ClusterStatus, Node, Pool, Pue
from carbon_sched.domain.energy import EnergySpan, Reporter, SourceClass
from carbon_sched.domain.job import Attempt, Bundle, Job, JobSpec, JobState, Phase, Resources, submission_id
from carbon_sched.domain.run import PastRun
from carbon_sched.service.estimates import HISTORY, Estimates, past_run
from carbon_sched.store.engine import open_store
from tests.fakes.clock import START, StoppedClock

HOUR = timedelta(hours=1)
GPU_JOB = Resources(bundles=(Bundle(gpus=2),))


def a_job(name="train", number=1, resources=GPU_JOB, **fields):
    return Job(f"job{number:07d}", JobSpec("python t.py", name, resources=resources, **fields), JobState.QUEUED, START)


def an_attempt(job, outcome="succeeded", hours=2.0, number=1):
    return Attempt(
        submission_id(job.job_id, number),
        job.job_id,
        number,
        "a",
        opened_at=START,
        start_by=START + HOUR,
        started_at=START,
        ended_at=START + hours * HOUR,
        outcome=outcome,
    )


def spans(joules_of, minutes=5, reporter=Reporter.SELF_REPORTED):
    return [
        EnergySpan(
            "o",
            "a",
            "m",
            "gpu-0",
            "gpu",
            START + i * timedelta(minutes=minutes),
            START + (i + 1) * timedelta(minutes=minutes),
            round(joules * 1e6),
            SourceClass.COUNTER,
            reporter,
            "board",
            "r",
            0,
            "0" * 64,
        )
        for i, joules in enumerate(joules_of)
    ]


def cluster(*pools):
    return Cluster("a", "DE", Pue(1_100_000, "2025", "test"), pools=pools)


def status(*kinds):
    nodes = [
        Node(f"n{i}", "10.0.0.1", is_head=False, resources={f"accelerator_type:{kind}": 1.0})
        for i, kind in enumerate(kinds)
    ]
    return ClusterStatus("a", START, nodes=tuple(nodes))


def test_duration_power_and_profile_come_from_the_metered_run():
    job = a_job(phase=Phase.FINETUNING)
    # two hours in 24 spans of five minutes: a quiet first half hour
    seen = past_run(job, an_attempt(job), spans([3000.0] * 6 + [60_000.0] * 18), cluster(), status("H100"))
    assert seen.duration_s == 7200
    assert seen.power_w == pytest.approx((6 * 3000 + 18 * 60_000) / 7200)
    assert seen.profile[0] == pytest.approx(4 * 6 * 3000 / (6 * 3000 + 18 * 60_000))
    assert seen.profile[1:] == pytest.approx([4 * 6 * 60_000 / (6 * 3000 + 18 * 60_000)] * 3)
    assert (seen.gpu_type, seen.phase) == ("H100", Phase.FINETUNING)


def test_a_run_shorter_than_its_spans_has_no_profile():
    job = a_job()
    assert past_run(job, an_attempt(job, hours=0.1), spans([100.0]), cluster(), None).profile == ()


def test_joules_that_an_independent_meter_saw_too_count_once():
    job = a_job()
    told = spans([3600.0] * 24) + spans([7200.0] * 24, reporter=Reporter.INDEPENDENT)
    assert past_run(job, an_attempt(job), told, cluster(), None).power_w == pytest.approx(24.0)


@pytest.mark.parametrize("outcome", ["failed", "stopped", "lost"])
def test_what_did_not_succeed_teaches_nothing(outcome):
    job = a_job()
    assert past_run(job, an_attempt(job, outcome), spans([1.0] * 24), cluster(), None) is None


def test_the_gpu_type_is_known_only_when_there_is_one():
    job, pool = a_job(), Pool("p", {"GPU": 8}, 2, gpu_type="A100")
    ran_on = [
        past_run(job, an_attempt(job), (), where, seen).gpu_type
        for where, seen in ((cluster(pool), None), (cluster(pool), status("H100")), (cluster(), status()), (None, None))
    ]
    assert ran_on == ["A100", None, None, None]
    typed = a_job(resources=Resources(bundles=(Bundle(gpus=2),), gpu_type="V100"))
    assert past_run(typed, an_attempt(typed), (), cluster(pool), None).gpu_type == "V100"


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path / 'store.sqlite'}", StoppedClock())
    yield opened
    opened.close()


def finish(store, number, seconds, name="train"):
    job = a_job(name, number)
    with store.transaction() as tx:
        tx.add_job(job, idempotency_key=None, request_sha256="0" * 64)
        tx.add_attempt(an_attempt(job))
        tx.add_run(submission_id(job.job_id, 1), PastRun(name, GPU_JOB, seconds, 800.0, gpu_type="H100"))


def median_s(estimates, store, spec):
    with store.transaction(write=False) as tx:
        estimates.learn(tx)
    return estimates.belief(spec).longest_s(0.5)


def test_every_finished_job_improves_the_next_estimate_whoever_collected_it(store):
    estimates, spec = Estimates(store), a_job().spec
    before = median_s(estimates, store, spec)
    finish(store, 1, 20_000.0)
    once = median_s(estimates, store, spec)
    for number in range(2, 6):
        finish(store, number, 30_000.0)
    assert before < once < median_s(estimates, store, spec)
    # a server that starts now believes the same
    fresh = Estimates(store)
    assert median_s(fresh, store, spec) == median_s(estimates, store, spec)
    assert fresh.belief(spec) == estimates.belief(spec)


def test_only_the_newest_runs_of_a_name_count(store):
    estimates, spec = Estimates(store), a_job().spec
    for number in range(HISTORY):
        finish(store, number, 1000.0)
    median_s(estimates, store, spec)
    for number in range(HISTORY, 2 * HISTORY):
        finish(store, number, 9000.0)
    assert median_s(estimates, store, spec) == pytest.approx(9000, rel=0.05)


@pytest.mark.parametrize(("asked", "named"), [("H100", "H100"), (None, "GPU")])
def test_a_new_name_learns_from_its_class(store, asked, named):
    spec = a_job("never seen", resources=Resources(bundles=(Bundle(gpus=2),), gpu_type=asked)).spec
    estimates = Estimates(store)
    for number in range(30):
        finish(store, number, 50_000.0, name=f"other-{number}")
    assert median_s(estimates, store, spec) > 40_000
    assert f"of its class (other on {named})" in estimates.belief(spec).source
