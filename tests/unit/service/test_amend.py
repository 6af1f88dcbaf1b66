"""What a job asks for may be changed while it waits: the next plan knows it, and the ledger keeps both."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.decision import Verdict
from carbon_sched.domain.errors import Conflict, InvalidInput, NotFound, StaleVersion
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.encoding import decode_fact
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.service.planner import OwnPlanner, is_news
from tests.fakes.world import START, World, a_cluster

HOUR = timedelta(hours=1)
FALLING = {"DE": [(0, 500), (3600, 400), (7200, 300), (10_800, 200), (14_400, 100)]}
NO_START = "apiVersion: carbon-sched/v1\nname: patient\nteam: '*'\nextends: balanced\nflexibility: {start_now: false}\n"


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, [a_cluster("de", "DE")], FALLING)
    made.fleet.poll_due()
    yield made
    made.close()


def submitted(world, **request):
    request = {"entrypoint": "python t.py", "duration_s": 600, "max_delay_s": 7200, **request}
    job = world.accept.submit(request, submitter="me", idempotency_key=None)
    world.decide.step()
    return job


def decision(world, job):
    with world.store.transaction(write=False) as tx:
        return tx.decision(job.job_id)


def amended(world, job, **asked):
    found = world.amend.amend(job.job_id, asked, by="ada")
    world.decide.step()
    return found


def facts(world, kind):
    with world.store.transaction(write=False) as tx:
        return [fact for entry in tx.entries() if (fact := decode_fact(entry.payload)).kind is kind]


def test_a_waiting_job_starts_at_once_when_it_is_told_to(world):
    job = submitted(world)
    assert decision(world, job).verdict is Verdict.DELAY
    assert amended(world, job, now=True).spec.start_now
    assert world.job(job).state is JobState.DISPATCHING
    assert (decision(world, job).verdict, decision(world, job).amendments) == (Verdict.PLACE, 1)


def test_a_later_deadline_is_used_by_the_very_next_plan_though_the_world_stands(world):
    job = submitted(world)
    assert decision(world, job).start == START + 2 * HOUR
    deadline = START + 9 * HOUR
    spec = amended(world, job, deadline=to_rfc3339(deadline)).spec
    assert (spec.flexibility.deadline, spec.flexibility.max_delay_s) == (deadline, None)
    assert decision(world, job).start == START + 4 * HOUR
    assert decision(world, job).latest_start > START + 7 * HOUR


def test_a_decision_that_stays_is_told_again_with_what_it_knew(world):
    job = submitted(world, max_delay_s=18_000)
    first = decision(world, job)
    amended(world, job, max_delay_s=36_000)
    second = decision(world, job)
    assert (first.cluster, first.start, first.amendments) == (second.cluster, second.start, 0)
    assert second.amendments == 1
    assert second.latest_start == START + 10 * HOUR
    assert is_news(first, second)


def test_a_planner_that_goes_on_from_another_ones_state_notices_too(world):
    job = submitted(world)
    with world.store.transaction(write=False) as tx:
        state = tx.plan_state()
    world.amend.amend(job.job_id, {"max_delay_s": 36_000}, by="ada")
    fresh = OwnPlanner()
    fresh.remember(state)
    world.decide._planner = fresh
    world.decide.step()
    assert decision(world, job).start == START + 4 * HOUR


def test_what_is_so_already_changes_nothing_and_may_be_asked_again(world):
    job = submitted(world)
    once = world.amend.amend(job.job_id, {"max_delay_s": 36_000, "amendments": 0}, by="ada")
    assert world.amend.amend(job.job_id, {"max_delay_s": 36_000, "amendments": 0}, by="ada") == once
    assert len(facts(world, FactKind.JOB_AMENDED)) == 1


def test_whoever_did_not_see_the_last_amendment_is_refused(world):
    job = submitted(world)
    amended(world, job, max_delay_s=36_000)
    with pytest.raises(StaleVersion, match="was amended since"):
        world.amend.amend(job.job_id, {"max_delay_s": 50_000, "amendments": 0}, by="eve")
    assert amended(world, job, max_delay_s=50_000, amendments=1).amendments == 2


def test_the_ledger_says_who_changed_what_and_which_decision_knew_it(world):
    job = submitted(world)
    amended(world, job, now=True)
    (fact,) = facts(world, FactKind.JOB_AMENDED)
    assert fact.body["changes"] == [{"field": "start now", "before": "no", "after": "yes"}]
    assert "ada" not in str(fact.body)
    assert [one.body.get("amendments", 0) for one in facts(world, FactKind.JOB_DECIDED)] == [0, 1]
    (row,) = world.statements.ask(lambda book: statement(book, Selection())).amendments
    assert (row.job, row.field, row.before, row.after) == (job.job_id, "start now", "no", "yes")
    assert "start now yes instead of no" in world.statements.receipt(job.job_id)["notes"][0]
    with world.store.transaction(write=False) as tx:
        assert "amended" in [row.event for row in tx.events(job.job_id)]


def test_an_earliest_start_is_taken_back_by_a_start_now(world):
    job = submitted(world, earliest=to_rfc3339(START + HOUR))
    amended(world, job, now=True)
    assert world.job(job).state is JobState.DISPATCHING
    changes = facts(world, FactKind.JOB_AMENDED)[0].body["changes"]
    assert {"field": "earliest start", "before": to_rfc3339(START + HOUR), "after": None} in changes


def test_a_policy_that_lets_nobody_start_at_once_is_kept(world):
    world.policies.apply(NO_START, by="ada", reason="")
    job = submitted(world)
    with pytest.raises(InvalidInput, match="not allowed by the policy patient"):
        world.amend.amend(job.job_id, {"now": True}, by="me")
    assert facts(world, FactKind.JOB_AMENDED) == []


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "amendment"),
        ({"amendments": 0}, "amendment"),
        ({"deadline": "tomorrow"}, "deadline"),
        ({"deadline": to_rfc3339(START - HOUR)}, "deadline"),
        ({"deadline": to_rfc3339(START + timedelta(minutes=5))}, "deadline"),
        ({"max_delay_s": -1.0}, "max_delay"),
        ({"max_delay_s": float("nan")}, "max_delay"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_field(world, asked, field):
    job = submitted(world)
    with pytest.raises(InvalidInput) as caught:
        world.amend.amend(job.job_id, asked, by="me")
    assert caught.value.field == field
    assert world.job(job).amendments == 0


def test_only_a_job_that_is_there_and_has_not_ended_is_amended(world):
    with pytest.raises(NotFound):
        world.amend.amend("nosuchjob0", {"now": True}, by="me")
    runs = submitted(world, max_delay_s=0)
    with pytest.raises(Conflict, match="only a waiting one"):
        world.amend.amend(runs.job_id, {"now": True}, by="me")
    assert world.amend.amend(runs.job_id, {"deadline": to_rfc3339(START + 9 * HOUR)}, by="me").amendments == 1
    over = submitted(world)
    world.accept.stop(over.job_id)
    with pytest.raises(Conflict, match="nothing of it can be changed"):
        world.amend.amend(over.job_id, {"max_delay_s": 50_000.0}, by="me")
