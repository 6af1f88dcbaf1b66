"""What must hold of every plan, whatever the clusters, the jobs and the grid look like."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from carbon_sched.domain.decision import Verdict
from carbon_sched.planning.plan import plan
from carbon_sched.planning.problem import Problem
from carbon_sched.planning.solving import Warm, solve
from tests.fakes.planning import NOW, cluster, job, node, snapshot

intensities = st.lists(st.integers(5, 900), min_size=1, max_size=30)


@st.composite
def clusters(draw, least: int = 1):
    out = []
    for i in range(draw(st.integers(least, 4))):
        nodes = [
            node(f"n{k}", cpus=16, gpus=draw(st.integers(0, 4)), used={"GPU": 0.0, "CPU": draw(st.integers(0, 16))})
            for k in range(draw(st.integers(0, 3)))
        ]
        out.append(
            cluster(
                f"c{i}",
                draw(intensities),
                nodes=nodes,
                pue=draw(st.sampled_from([1.0, 1.1, 1.6])),
                problem=draw(st.sampled_from([None, None, None, "no route to host"])),
                cordoned=draw(st.sampled_from([False, False, True])),
            )
        )
    return out


@st.composite
def jobs(draw, most: int = 8):
    return [
        job(
            f"j{i}",
            hours=draw(st.sampled_from([0.25, 1.0, 3.0, (0.5, 2.0, 8.0)])),
            wait_h=draw(st.sampled_from([0.0, 0.0, 2.0, 6.0, 24.0])),
            cpus=draw(st.sampled_from([0.0, 1.0, 4.0])),
            gpus=draw(st.sampled_from([0.0, 0.0, 1.0, 2.0])),
            watts=draw(st.sampled_from([10.0, 300.0, 5000.0])),
            earliest_h=draw(st.sampled_from([0.0, 0.0, 1.5])),
            priority=draw(st.sampled_from([0, 0, 1])),
            min_gain=draw(st.sampled_from([0.0, 0.03])),
        )
        for i in range(draw(st.integers(0, most)))
    ]


def by_job(result):
    return {d.job_id: d for d in result.decisions}


@settings(max_examples=60, deadline=None)
@given(clusters(), jobs(), st.randoms(use_true_random=False))
def test_the_order_of_input_does_not_matter(sites, waiting, rng):
    once = plan(snapshot(sites, waiting, home="c0"))
    mixed_sites, mixed_jobs = rng.sample(sites, len(sites)), rng.sample(waiting, len(waiting))
    again = plan(snapshot(mixed_sites, mixed_jobs, home="c0"))
    assert by_job(once) == by_job(again)


@settings(max_examples=60, deadline=None)
@given(clusters(), jobs())
def test_capacity_windows_and_reasons_hold(sites, waiting):
    result = plan(snapshot(sites, waiting))
    asked = {j.job_id: j for j in waiting}
    assert [d.job_id for d in result.decisions] == [j.job_id for j in waiting]
    for decision in result.decisions:
        wants = asked[decision.job_id]
        assert decision.reason
        assert all(c.feasible or c.reason for c in decision.candidates)
        if decision.verdict is Verdict.PLACE:
            assert decision.start == NOW
            assert wants.earliest_start <= NOW
        if decision.verdict is Verdict.DELAY:
            assert decision.start > NOW
            assert wants.earliest_start <= decision.start <= max(wants.latest_start, wants.earliest_start)
        if decision.verdict in (Verdict.HOLD, Verdict.REFUSE):
            assert decision.cluster is None
            assert decision.start is None
    for site in sites:
        placed = [
            asked[d.job_id] for d in result.decisions if (d.verdict, d.cluster) == (Verdict.PLACE, site.cluster.name)
        ]
        assert not placed or (site.status.usable and not site.cluster.cordoned)
        for name, kind in (("CPU", "cpus"), ("GPU", "gpus")):
            free = sum(n.resources[name] - n.used.get(name, 0.0) for n in site.status.nodes)
            assert sum(getattr(j.spec.resources, kind) for j in placed) <= free + 1e-6


@settings(max_examples=60, deadline=None)
@given(clusters(), jobs(most=1), st.sampled_from([0.5, 2.0]))
def test_scaling_every_intensity_changes_no_choice(sites, waiting, factor):
    # powers of two, so that ties stay ties in floating point
    scaled = [replace(s, outlook=times(s.outlook, factor)) for s in sites]
    plain = [(d.verdict, d.cluster, d.start) for d in plan(snapshot(sites, waiting)).decisions]
    assert [(d.verdict, d.cluster, d.start) for d in plan(snapshot(scaled, waiting)).decisions] == plain


def times(outlook, factor: float):
    readings = (replace(r, intensity_mg_per_kwh=int(r.intensity_mg_per_kwh * factor)) for r in outlook.readings)
    return replace(outlook, readings=tuple(readings))


@settings(max_examples=60, deadline=None)
@given(clusters(), jobs(most=1))
def test_with_room_a_cluster_that_is_worse_at_every_hour_changes_nothing(sites, waiting):
    worst = max(r.intensity_mg_per_kwh for s in sites for r in s.outlook.readings) / 1000
    dirtier = cluster("zz", [worst * 2], nodes=[node(cpus=16, gpus=4)])
    before = [(d.verdict, d.cluster, d.start) for d in plan(snapshot(sites, waiting, home="c0")).decisions]
    after = [(d.verdict, d.cluster, d.start) for d in plan(snapshot([*sites, dirtier], waiting, home="c0")).decisions]
    held = {Verdict.HOLD, Verdict.REFUSE}
    assert all(a == b or b[0] in held or b[2] > NOW for a, b in zip(after, before, strict=True))
    assert all(a == b or b[0] in held for a, b in zip(after, before, strict=True) if a[1] != "zz")


@settings(max_examples=40, deadline=None)
@given(clusters(), jobs())
def test_a_cluster_whose_grid_is_unknown_never_wins_against_a_known_one_with_room(sites, waiting):
    unknown = cluster("unknown", [], nodes=[node(cpus=64, gpus=16)])
    known = cluster("known", [900] * 30, nodes=[node(cpus=500, gpus=100)])
    for decision in plan(snapshot([*sites, unknown, known], waiting)).decisions:
        assert decision.cluster != "unknown"


@settings(max_examples=40, deadline=None)
@given(clusters(), jobs(), jobs(most=4))
def test_nothing_is_decided_about_jobs_that_are_only_expected(sites, waiting, coming):
    renamed = tuple(replace(j, job_id=f"x{j.job_id}") for j in coming)
    made = plan(replace(snapshot(sites, waiting), expected=renamed))
    assert [d.job_id for d in made.decisions] == [j.job_id for j in waiting]
    for wants, decision in zip(waiting, made.decisions, strict=True):
        if decision.verdict is Verdict.DELAY:
            assert wants.earliest_start <= decision.start <= max(wants.latest_start, wants.earliest_start)


@settings(max_examples=10, deadline=None)  # each is two whole plans of a crowded half day
@given(st.integers(0, 2**32), st.booleans())
def test_from_whatever_was_planned_before_the_plan_is_as_good_as_a_fresh_one(number, stands):
    rng = np.random.default_rng(number)
    asked = crowded(rng)
    fresh = solve(asked)
    # where jobs were: anywhere in their windows, as far as there is room for all of them together
    lane, start = rng.integers(0, asked.lanes, asked.jobs), rng.integers(asked.first, asked.last + 1)
    was = Warm(fresh.prices, lane, start, asked.grams(lane, start), stands=stands)
    warm = solve(asked, was)
    left_out = [[int((~made.placed)[asked.level == level].sum()) for level in (0, 1)] for made in (fresh, warm)]
    assert left_out[1] <= left_out[0]
    assert left_out[1] < left_out[0] or warm.grams <= 1.005 * fresh.grams


def crowded(rng) -> Problem:
    """Twenty jobs, some as large as a lane, on two lanes that they fill to three quarters of half a day."""
    groups, lanes, starts, jobs = 3, 2, 48, 20
    slots = np.array([2, 8, 16])
    group, units = rng.integers(0, groups, jobs), rng.integers(1, 9, jobs).astype(float)
    first = rng.integers(0, 24, jobs)
    hour = rng.uniform(20, 600, (lanes, starts + 16)).cumsum(axis=1)
    begin = np.arange(starts)
    cost = np.stack([hour[:, begin + length] - hour[:, begin] for length in slots]).astype(np.float32)
    room = max(np.ceil((units * slots[group]).sum() / (0.75 * lanes * starts)), 8.0)
    return Problem(
        step_h=0.25,
        coarse=4,
        cost=cost,
        slots=slots,
        capacity=np.full((lanes, starts + 16), room),
        group=group,
        units=units,
        first=first,
        last=first + rng.choice([4, 12, 23], jobs),
        level=rng.integers(0, 2, jobs),
        urgency=np.zeros(jobs, dtype=np.int64),
    )


@settings(max_examples=40, deadline=None)
@given(clusters(), jobs(), st.integers(0, 120))
def test_a_warm_plan_keeps_every_promise_of_a_fresh_one(sites, waiting, minutes):
    first = plan(snapshot(sites, waiting))
    now = NOW + timedelta(minutes=minutes)
    left = [j for j, d in zip(waiting, first.decisions, strict=True) if d.verdict is not Verdict.PLACE]
    again = plan(snapshot(sites, left, now=now), first)
    for wants, decision in zip(left, again.decisions, strict=True):
        if decision.verdict is Verdict.DELAY:
            assert now < decision.start <= max(wants.latest_start, wants.earliest_start)
        if decision.verdict is Verdict.PLACE:
            assert decision.start == now
            assert wants.earliest_start <= now
