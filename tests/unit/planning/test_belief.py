"""What is believed of a run, from nothing, from the user's word and from history."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from carbon_sched.domain.job import Bundle, Estimate, JobSpec, Phase, Resources
from carbon_sched.domain.run import PastRun
from carbon_sched.planning import priors
from carbon_sched.planning.belief import belief
from carbon_sched.planning.curve import Curve
from carbon_sched.planning.experience import Classes
from carbon_sched.planning.hardware import ratio

GPU_JOB = Resources(bundles=(Bundle(cpus=4, gpus=2),), gpu_type="A100")


def spec(duration_s=None, power_w=None, resources=GPU_JOB):
    return JobSpec("python job.py", "train", resources=resources, estimate=Estimate(duration_s, power_w))


def run(duration_s, power_w, resources=GPU_JOB, **known):
    return PastRun("train", resources, duration_s, power_w, **{"gpu_type": resources.gpu_type, **known})


def test_nothing_known_gives_the_marked_class_prior():
    seen = belief(spec())
    assert "estimated" in seen.source
    assert seen.power_w == pytest.approx(2 * priors.MEAN_SHARE * 400 + 4 * priors.CPU_W)
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
    runs = [run(1000 + i, 500.0) for i in range(9)] + [run(200_000, 9000.0)]
    seen = belief(spec(), runs)
    assert "10 earlier runs" in seen.source
    assert np.median(seen.durations_s) == pytest.approx(1005, rel=0.05)
    assert seen.durations_s[-2] < 2000
    assert seen.power_w == pytest.approx(500, rel=0.02)


def test_more_history_wins_over_a_wrong_word():
    said = belief(spec(10_000))
    learnt = belief(spec(10_000), [run(1000, 500)] * 50)
    assert np.median(said.durations_s) > 9000
    assert np.median(learnt.durations_s) < 1200


def test_runs_on_more_gpus_scale_the_power_and_count_less():
    twice = Resources(bundles=(Bundle(cpus=8, gpus=4),), gpu_type="A100")
    seen = belief(spec(), [run(1000, 1600.0, twice)] * 20)
    assert seen.power_w == pytest.approx(800, rel=0.02)
    mixed = belief(spec(), [run(1000, 800.0)] * 6 + [run(3000, 1600.0, twice)] * 6)
    assert np.median(mixed.durations_s) < 2000


def test_other_gpus_of_the_same_family_are_recognised():
    small = Resources(bundles=(Bundle(gpus=1),), gpu_type="A100-80G")
    assert belief(spec(resources=small)).power_w == pytest.approx(priors.MEAN_SHARE * 400)


def test_the_mean_survives_the_compression_to_few_points():
    runs = [run(float(d), 100.0) for d in range(900, 1100)]
    assert belief(spec(), runs).mean_duration_s == pytest.approx(1000 * 200 / 200.5 + 0.5 / 200.5 * 10_850, rel=0.02)


def test_a_quantile_is_never_below_what_it_promises():
    seen = belief(spec(), [run(float(d), 100.0) for d in range(900, 1100)])
    levels = [level for level, _ in seen.upper]
    assert levels == sorted(levels)
    # of two hundred runs a few stand out of the bulk: the 99 % quantile covers all but two
    assert seen.longest_s(0.99) > 1090
    assert seen.longest_s(0.5) < seen.longest_s(0.9) < seen.longest_s(0.999)
    assert seen.longest_s(0.93) == seen.longest_s(0.95)


def test_the_class_teaches_what_a_new_name_may_need():
    classes = Classes()
    for seconds in range(500, 700):
        classes.add(run(float(seconds), 700.0))
    peers = classes.of(Phase.OTHER, GPU_JOB, "A100")
    seen = belief(spec(), peers=peers)
    assert "200 earlier runs of its class (other on A100)" in seen.source
    assert np.median(seen.durations_s) == pytest.approx(600, rel=0.1)
    assert seen.power_w == pytest.approx(700, rel=0.05)
    assert classes.of(Phase.OTHER, GPU_JOB, "H100") is None
    assert classes.of(Phase.FINETUNING, GPU_JOB, "A100") is None


def test_every_finished_run_moves_the_next_estimate_of_its_class():
    classes, medians = Classes(), []
    for _ in range(4):
        classes.add(run(30_000.0, 500.0))
        medians.append(np.mean(belief(spec(), peers=classes.of(Phase.OTHER, GPU_JOB, "A100")).durations_s))
    assert medians == sorted(medians)
    assert medians[0] < medians[-1]


def test_runs_of_its_own_size_count_more_than_the_rest_of_the_class():
    small, large = (Resources(bundles=(Bundle(gpus=gpus),), gpu_type="A100") for gpus in (1, 8))
    classes = Classes()
    for _ in range(40):
        classes.add(run(600.0, 100.0, small))
        classes.add(run(6000.0, 100.0, large))
    few, many = (classes.of(Phase.OTHER, size, "A100") for size in (small, large))
    assert np.mean(few.durations_s) < np.mean(many.durations_s)


def test_runs_on_another_gpu_are_converted_and_weigh_less():
    h100 = Resources(bundles=(Bundle(cpus=4, gpus=2),), gpu_type="H100")
    there = [run(1000.0, 900.0, h100)] * 10
    seen = belief(spec(), there)
    expected = 1000 * ratio("H100", "A100").duration
    assert np.median(seen.durations_s) == pytest.approx(expected, rel=0.05)
    mixed = belief(spec(), [*there, *[run(1500.0, 400.0)] * 10])
    assert np.mean(np.array(mixed.durations_s) > (expected + 1500) / 2) < 0.45


def test_without_a_type_the_estimate_is_for_the_gpus_that_earlier_runs_were_on():
    anywhere = Resources(bundles=(Bundle(gpus=2),))
    past = [run(1000.0, 900.0, anywhere, gpu_type="H100")] * 3 + [run(1000.0, 900.0, anywhere, gpu_type="A100")]
    assert belief(spec(resources=anywhere), past).gpu_type == "H100"
    assert belief(spec(resources=anywhere)).gpu_type is None


def test_a_profile_is_learnt_and_a_nearly_even_one_is_not():
    uneven = [run(1000.0, 500.0, profile=(0.2, 1.2, 1.3, 1.3))] * 9
    seen = belief(spec(), uneven).profile
    assert seen[0] == pytest.approx(0.3, abs=0.06)
    assert np.mean(seen) == pytest.approx(1)
    assert belief(spec(), [run(1000.0, 500.0, profile=(0.98, 1.02, 1.0, 1.0))] * 9).profile == (1.0,)


def test_grams_follow_the_profile_exactly():
    even = replace(belief(spec(3600)), durations_s=(7200.0,), weights=(1.0,))
    late = replace(even, profile=(0.5, 1.5))
    grid = Curve.from_values([0.0, 3600.0, 7200.0], [100.0, 300.0])
    starts = np.array([0.0])
    assert grid.booked_g(starts, *map(np.array, even.moments))[0] == pytest.approx(400)
    assert grid.booked_g(starts, *map(np.array, late.moments))[0] == pytest.approx(0.5 * 100 + 1.5 * 300)
