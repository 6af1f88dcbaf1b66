"""Every preset does what its comment says, on a sample of recorded jobs and grids."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from carbon_sched.domain.job import JobSpec, Phase
from carbon_sched.policy.presets import preset
from carbon_sched.simulate.outcome import started
from carbon_sched.simulate.replay import replay
from carbon_sched.simulate.rivals import HERE, baseline
from tests.bench.bench_presets import BEGIN, END, README, table
from tests.traces import CLUSTERS, needs_data, philly, price

pytestmark = needs_data

SAMPLE, DAYS = 40, 2
MADRID = [cluster.name for cluster in CLUSTERS].index("madrid")


@cache
def of(slack):
    return philly(SAMPLE, DAYS, slack=slack, forecast="noisy:13")


@cache
def under(name, slack):
    done = replay(of(slack), preset(name))
    return started(of(slack), done.cluster, done.start_h)


def grams(name, slack):
    return under(name, slack).grams.sum()


@pytest.mark.parametrize("slack", [pytest.param("none", marks=pytest.mark.slow), "24h"])
def test_run_now_never_waits_and_goes_where_it_is_cleaner(slack):
    assert not under("run-now", slack).wait_h.any()
    assert grams("run-now", slack) < baseline(HERE, of(slack)).grams.sum()


def test_balanced_delays_only_what_declared_itself_flexible():
    assert not under("balanced", "none").wait_h.any()
    waited = under("balanced", "24h")
    assert 0 < waited.wait_h.max() <= 24
    assert not waited.late.any()
    assert grams("balanced", "24h") < grams("balanced", "none")


def test_lowest_carbon_waits_unasked_up_to_a_day_or_the_jobs_own_length_but_for_serving():
    phases = [Phase.INFERENCE_ONLINE if i % 2 else Phase.PRETRAINING for i in range(len(of("none").jobs))]
    some = of("none")
    asked = tuple(
        JobSpec("", f"j{i}", resources=some.resources(float(some.jobs.units[i])), phase=phase)
        for i, phase in enumerate(phases)
    )
    mixed = replace(some, specs=asked)
    done = replay(mixed, preset("lowest-carbon"))
    outcome = started(mixed, done.cluster, done.start_h)
    serving = np.array([phase is Phase.INFERENCE_ONLINE for phase in phases])
    assert not outcome.wait_h[serving].any()
    assert 0 < outcome.wait_h[~serving].max() <= 24
    assert outcome.grams.sum() < grams("balanced", "none")


@pytest.mark.slow
def test_deadline_first_waits_less_often_and_for_more_and_leaves_room_for_the_longest_run():
    some = of("none")
    deadlines = some.jobs.submitted_h + 1.5 * some.jobs.hours + 6
    asked = replace(some, deadline_h=deadlines)
    waits, late = {}, {}
    for name in ("balanced", "deadline-first"):
        done = replay(asked, preset(name))
        outcome = started(asked, done.cluster, done.start_h)
        waits[name], late[name] = outcome.wait_h, outcome.late
    assert late["deadline-first"].sum() <= late["balanced"].sum()
    assert 0 < waits["deadline-first"].sum() < waits["balanced"].sum()


@pytest.mark.slow
def test_cost_aware_pays_less_and_emits_more_than_balanced():
    cheap, clean = under("cost-aware", "24h"), under("balanced", "24h")
    assert price(of("24h"), cheap) < price(of("24h"), clean)
    assert grams("balanced", "24h") < grams("cost-aware", "24h") < baseline(HERE, of("24h")).grams.sum()


@pytest.mark.slow
def test_eu_residency_stays_in_europe_and_waits_there_as_balanced_does():
    stays = under("eu-residency", "24h")
    assert (stays.cluster == MADRID).all()
    assert (under("balanced", "24h").cluster != MADRID).any()
    assert stays.wait_h.any()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_readmes_table_is_what_its_command_writes():
    _, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    assert rest.partition(END)[0] == table()
