"""What is believed of a run, from nothing, from the user's word and from history."""

from __future__ import annotations

import numpy as np
import pytest

from carbon_sched.domain.job import Bundle, Estimate, JobSpec, Resources
from carbon_sched.planning.belief import PastRun, belief

GPU_JOB = Resources(bundles=(Bundle(cpus=4, gpus=2),), gpu_type="A100")


def spec(duration_s=None, power_w=None, resources=GPU_JOB):
    return JobSpec("python job.py", "train", resources=resources, estimate=Estimate(duration_s, power_w))


def test_nothing_known_gives_the_marked_class_prior():
    seen = belief(spec())
    assert "estimated" in seen.source
    assert seen.power_w == pytest.approx(2 * 0.45 * 400 + 4 * 4.5)
    assert seen.moved_power_w < seen.power_w
    assert 60 < np.median(seen.durations_s) < 4 * 3600
    assert sum(seen.weights) == pytest.approx(1)
    assert list(seen.durations_s) == sorted(seen.durations_s)


def test_the_users_word_is_believed_within_a_scatter():
    seen = belief(spec(3600, 900))
    assert seen.source.startswith("said by the user")
    assert np.median(seen.durations_s) == pytest.approx(3600, rel=0.03)
    assert seen.durations_s[-1] < 2 * 3600
    assert seen.power_w == 900


def test_history_outweighs_the_prior_and_an_outlier_does_not_matter():
    runs = [PastRun(1000 + i, 500.0, spec()) for i in range(9)] + [PastRun(200_000, 9000.0, spec())]
    seen = belief(spec(), runs)
    assert "10 earlier runs" in seen.source
    assert np.median(seen.durations_s) == pytest.approx(1005, rel=0.05)
    assert seen.durations_s[-2] < 2000
    assert seen.power_w == pytest.approx(500, rel=0.02)


def test_more_history_wins_over_a_wrong_word():
    said = belief(spec(10_000))
    learnt = belief(spec(10_000), [PastRun(1000, 500, spec())] * 50)
    assert np.median(said.durations_s) > 9000
    assert np.median(learnt.durations_s) < 1200


def test_runs_on_more_gpus_scale_the_power_and_count_less():
    twice = Resources(bundles=(Bundle(cpus=8, gpus=4),), gpu_type="A100")
    seen = belief(spec(), [PastRun(1000, 1600.0, spec(resources=twice))] * 20)
    assert seen.power_w == pytest.approx(800, rel=0.02)
    mixed = belief(spec(), [PastRun(1000, 800.0, spec())] * 6 + [PastRun(3000, 1600.0, spec(resources=twice))] * 6)
    assert np.median(mixed.durations_s) < 2000


def test_other_gpus_of_the_same_family_are_recognised():
    small = Resources(bundles=(Bundle(gpus=1),), gpu_type="A100-80G")
    assert belief(spec(resources=small)).power_w == pytest.approx(180)


def test_the_mean_survives_the_compression_to_few_points():
    runs = [PastRun(float(d), 100.0, spec()) for d in range(900, 1100)]
    assert belief(spec(), runs).mean_duration_s == pytest.approx(1000 * 200 / 200.5 + 0.5 / 200.5 * 10_850, rel=0.02)
