"""What a stored decision keeps and shows: the deadline's confidence, the curve, and the policy's limits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.decision import Verdict
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.service.arrivals import Arrivals
from carbon_sched.service.planner import OwnPlanner
from tests.fakes.world import START, World, a_cluster

HOUR = timedelta(hours=1)
FALLING = {"DE": [(0, 500), (3600, 400), (7200, 300), (10_800, 200), (14_400, 100)]}


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, [a_cluster("de", "DE")], FALLING)
    made.fleet.poll_due()
    yield made
    made.close()


def decided(world, **request):
    job = world.accept.submit({"entrypoint": "python t.py", **request}, submitter="me", idempotency_key=None)
    world.decide.step()
    with world.store.transaction(write=False) as tx:
        return tx.decision(job.job_id)


def test_a_delay_keeps_the_curve_and_the_latest_start_that_meets_the_deadline(world):
    deadline = START + 8 * HOUR
    decision = decided(world, duration_s=3600, deadline=to_rfc3339(deadline))
    assert decision.verdict is Verdict.DELAY
    assert decision.deadline_confidence == 0.95
    # a said hour is believed to end within 1.7 h, at that confidence; a tenth of the 6.3 h left is kept
    assert deadline - 2.5 * HOUR < decision.latest_start < deadline - 2.2 * HOUR
    assert decision.curve[0].start == START
    assert decision.curve[-1].start <= decision.latest_start
    grams = [point.co2e_g for point in decision.curve]
    assert grams[:4] == sorted(grams[:4], reverse=True)


def test_what_was_declared_as_the_longest_delay_has_no_confidence(world):
    decision = decided(world, duration_s=60, max_delay_s=7200)
    assert decision.latest_start == START + 2 * HOUR
    assert decision.deadline_confidence is None
    assert [point.start for point in decision.curve] == [START, START + HOUR, START + 2 * HOUR]


def test_a_job_that_must_go_has_no_curve(world):
    decision = decided(world, duration_s=60)
    assert (decision.verdict, decision.curve, decision.latest_start) == (Verdict.PLACE, (), None)


def test_the_next_server_goes_on_from_the_plan_of_the_last(tmp_path):
    two_clean_hours = {"DE": [(0, 500), (3600, 100), (10_800, 500)]}
    first = World(tmp_path, [a_cluster("de", "DE")], two_clean_hours)
    first.fleet.poll_due()
    job_id = (before := decided(first, duration_s=60, max_delay_s=14_400)).job_id
    with first.store.transaction() as tx:
        state = tx.plan_state()
        cluster, kind, at, grams = state["placed"][job_id]
        tx.put_plan_state({**state, "placed": {job_id: [cluster, kind, at + 3600, grams]}})
    first.close()
    second = World(tmp_path, [a_cluster("de", "DE")], two_clean_hours)
    second.fleet.poll_due()
    second.decide.step()
    with second.store.transaction(write=False) as tx:
        after = tx.decision(job_id)
    second.close()
    assert (before.start, after.start) == (START + HOUR, START + 2 * HOUR)


def test_a_preview_shows_the_same_curve(world):
    spec = world.accept.spec({"entrypoint": "python t.py", "duration_s": 60, "max_delay_s": 7200}, submitter="me")
    assert world.decide.preview(spec).curve == decided(world, duration_s=60, max_delay_s=7200).curve


def test_a_week_of_jobs_is_expected_again_and_nothing_before_a_week_is_known(world):
    asked = {"entrypoint": "python t.py", "name": "nightly", "duration_s": 1800, "max_delay_s": 7200}

    def expected():
        with world.store.transaction(write=False) as tx:
            return Arrivals().expected(tx, world.clock.now())

    for _ in range(3):
        world.accept.submit(dict(asked), submitter="me", idempotency_key=None)
        world.clock.pass_s(3600)
    assert expected() == ([], 1.0)
    world.clock.pass_s(7 * 86_400 - 2 * 3600)  # the first was 169 hours ago, the last 167
    coming, counts = expected()
    assert ([job.submitted_at for job in coming], counts) == ([START + timedelta(days=7) + 2 * HOUR], 1.0)
    assert coming[0].spec.flexibility.earliest == coming[0].submitted_at
    assert coming[0].spec.name == "nightly"


def test_expected_jobs_reach_the_plan(tmp_path):
    seen = []

    class Watched(OwnPlanner):
        def plan(self, snapshot, *, whole):
            seen.append(snapshot)
            return super().plan(snapshot, whole=whole)

    world = World(tmp_path, [a_cluster("de", "DE")], FALLING)
    world.decide._planner = Watched()
    world.fleet.poll_due()
    for _ in range(2):
        world.accept.submit({"entrypoint": "python t.py", "max_delay_s": 60}, submitter="me", idempotency_key=None)
        world.clock.pass_s(7200)
    world.clock.pass_s(7 * 86_400 - 3 * 3600)
    job = world.accept.submit({"entrypoint": "python u.py", "max_delay_s": 60}, submitter="me", idempotency_key=None)
    world.decide.step()
    world.close()
    assert job.job_id in {waiting.job_id for waiting in seen[-1].jobs}
    assert [waiting.earliest_start for waiting in seen[-1].expected] == [START + timedelta(days=7) + 2 * HOUR]
