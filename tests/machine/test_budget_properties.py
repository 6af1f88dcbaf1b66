"""Budgets under random arrivals, ends, cancellations and revisions, by several replicas on both databases.

The model knows, per budget period, what was reserved and what was metered. What must hold: nothing that needs room is
placed without it, so that a budget is overdrawn by no more than metered figures exceed expected ones; every reservation
settles once, and the sums are exact.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field, replace
from datetime import timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from carbon_sched.domain.decision import Decision, Verdict
from carbon_sched.domain.job import Attempt, Job, JobSpec, JobState, submission_id
from carbon_sched.domain.units import UG_PER_G
from carbon_sched.policy.presets import preset
from carbon_sched.service.budgets import Budgets
from carbon_sched.service.policies import Policies
from tests.fakes.clock import START
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]

HEAD = "apiVersion: carbon-sched/v1\nname: acme\nbudgets:\n- {name: all, of: {}, every: year, over: hold, co2e_kg: "
KEY = "acme/all"
NUMBERS = itertools.count()  # examples share a database

arrival = st.tuples(st.just("arrive"), st.integers(1, 400), st.integers(0, 600))  # expected g, metered g
steps = st.one_of(
    arrival,
    arrival,
    st.tuples(st.just("end"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("cancel"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("revise"), st.integers(1, 20), st.just(0)),  # hundreds of g
)


@dataclass
class Model:
    """What a person with pencil and paper would have."""

    limit_g: int
    expected: dict[str, int] = field(default_factory=dict)
    metered: dict[str, int] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)

    @property
    def taken_g(self) -> int:
        return sum(self.settled.get(name, grams) for name, grams in self.expected.items())


class Metered(Budgets):
    """Budgets whose metering is the test's: the way from spans to grams is tested where it is."""

    used: dict[str, int]

    def _used(self, attempt_id):
        return self.used[attempt_id] * UG_PER_G, 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(moves=st.lists(steps, min_size=1, max_size=60), limit=st.integers(1, 20))
def test_no_budget_is_overdrawn_but_by_what_metering_adds(store, clock, moves, limit):
    check(store, clock, moves, limit)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(moves=st.lists(steps, min_size=40, max_size=60), limit=st.integers(1, 20))
def test_the_same_over_ten_thousand_moves(store, clock, moves, limit):
    check(store, clock, moves, limit)


def test_replicas_that_place_at_the_same_moment_never_take_the_same_room(store, clock):
    base, limit_g, each_g = use(store), 1000, 30
    revise(replica(store, clock), base, limit_g)
    placed: list[bool] = []

    def arrivals(which):
        mine = replica(store, clock)
        placed.extend(placed_at(store, mine, f"r{which}-{next(NUMBERS):09d}", each_g) for _ in range(20))

    threads = [threading.Thread(target=arrivals, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(placed), sum(placed)) == (80, limit_g // each_g)
    assert use(store).reserved_ug - base.reserved_ug == sum(placed) * each_g * UG_PER_G


def check(store, clock, moves, limit):
    model, replicas = Model(100 * limit), [replica(store, clock) for _ in range(3)]
    base = use(store)  # what earlier examples left in this database; they settled everything
    assert base.open_lines == 0
    revise(replicas[0], base, model.limit_g)
    for number, (what, one, other) in enumerate(moves):
        mine = replicas[number % len(replicas)]
        if what == "arrive":
            arrive(store, mine, model, f"j{next(NUMBERS):09d}", one, other)
        elif what == "revise":
            model.limit_g = 100 * one
            revise(mine, base, model.limit_g)
        else:
            finish(store, mine, model, one, cancelled=what == "cancel")
        now = use(store)
        assert now.ug - base.ug == model.taken_g * UG_PER_G
        assert now.open_lines == len(model.expected) - len(model.settled)
    while len(model.settled) < len(model.expected):
        finish(store, replicas[0], model, 0, cancelled=False)
    assert use(store).open_lines == 0
    assert use(store).settled_ug - base.settled_ug == sum(model.settled.values()) * UG_PER_G


def replica(store, clock):
    policies = Policies(store, preset, clock)
    budgets = Metered(store, policies, None, clock)
    budgets.used = {}
    return budgets


def revise(budgets, base, limit_g):
    """The limit, above what earlier examples used."""
    text = f"{HEAD}{(limit_g + base.ug / UG_PER_G) / 1000:.9f}}}\n"
    if not any(version.content == text for version in in_force(budgets)):
        budgets._policies.apply(text, by="olga")


def in_force(budgets):
    with budgets._store.transaction(write=False) as tx:
        return tx.policies_in_force()


def use(store):
    with store.transaction(write=False) as tx:
        return tx.budget_use(KEY, START.replace(month=1, day=1, hour=0, minute=0))


def arrive(store, budgets, model, name, expected_g, metered_g):
    """Ask for room, which is given where the model has it."""
    fits = model.taken_g + expected_g <= model.limit_g
    assert placed_at(store, budgets, name, expected_g) is fits
    if fits:
        attempt_id = submission_id(name, 1)
        model.expected[attempt_id], model.metered[attempt_id] = expected_g, metered_g


def placed_at(store, budgets, name, expected_g):
    """Ask for room; with it, open an attempt as the decision does."""
    job = Job(name, JobSpec("python job.py", "job"), JobState.QUEUED, START)
    asked = Decision(name, Verdict.PLACE, START, "cleanest", cluster="a", start=START, expected_co2e_g=expected_g)
    attempt = Attempt(submission_id(name, 1), name, 1, "a", START, START + timedelta(minutes=5))
    with store.transaction() as tx:
        tx.add_job(job, idempotency_key=None, request_sha256="0" * 64)
        decision = budgets.admit(tx, job, asked)
        if decision.verdict is Verdict.PLACE:
            tx.add_attempt(attempt)
            budgets.reserve(tx, job, attempt.attempt_id, decision)
    placed = decision.verdict is Verdict.PLACE
    assert placed or "kg CO2e are taken" in decision.reason
    return placed


def finish(store, budgets, model, which, *, cancelled):
    """An open attempt ends; what was cancelled before any cluster took it used nothing."""
    running = sorted(model.expected.keys() - model.settled.keys())
    if not running:
        return
    name = running[which % len(running)]
    grams = 0 if cancelled else model.metered[name]
    with store.transaction() as tx:
        attempt = tx.attempt(name)
        ended = replace(attempt, outcome="stopped" if cancelled else "succeeded", accepted=not cancelled)
        tx.put_attempt(replace(ended, collected=not cancelled))
    budgets.used[name] = grams
    assert budgets.settle() == 1
    assert budgets.settle() == 0
    model.settled[name] = grams
