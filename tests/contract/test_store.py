"""What every store must do, by the prose of `ports.Transaction`; over SQLite and PostgreSQL."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.cluster import Cluster, Pue
from carbon_sched.domain.decision import Decision, Verdict
from carbon_sched.domain.energy import IDLE, EnergySpan, Reporter, SourceClass
from carbon_sched.domain.errors import Conflict, NotFound, StaleVersion, StoreError
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.intensity import Basis, Grade, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.job import (
    FINAL_STATES,
    TRANSITIONS,
    Attempt,
    Bundle,
    Job,
    JobEvent,
    JobSpec,
    JobState,
    Phase,
    Resources,
    submission_id,
)
from carbon_sched.domain.run import PastRun
from carbon_sched.ledger.chain import GENESIS
from carbon_sched.ledger.verify import Checkpoint, verify_entries
from carbon_sched.ports import JobFilter, NewJob, Wait
from carbon_sched.store.engine import open_store
from tests import strategies
from tests.fakes.clock import START
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SHA = "0" * 64
once_per_example = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def job(number=1, **spec):
    values = {"entrypoint": "python job.py", "name": "job"} | spec
    return Job(f"job{number:07d}", JobSpec(**values), JobState.QUEUED, START + number * MINUTE, reason="accepted")


def add(store, new=None, key=None, request=SHA):
    with store.transaction() as tx:
        return tx.add_job(new or job(), idempotency_key=key, request_sha256=request)


def attempt_of(owner, number=1, cluster="a", **more):
    at = START + number * HOUR
    name = submission_id(owner.job_id, number)
    return Attempt(name, owner.job_id, number, cluster, opened_at=at, start_by=at + MINUTE, **more)


def drive(tx, stored, *events):
    for event in events:
        stored = tx.move_job(stored, event, at=START + HOUR, reason=event.value)
    return stored


PATHS = {
    JobState.QUEUED: [],
    JobState.DISPATCHING: [JobEvent.DISPATCH],
    JobState.STARTING: [JobEvent.DISPATCH, JobEvent.SUBMITTED],
    JobState.RUNNING: [JobEvent.DISPATCH, JobEvent.SUBMITTED, JobEvent.STARTED],
    JobState.STOPPING: [JobEvent.DISPATCH, JobEvent.STOP_ASKED],
    JobState.SUCCEEDED: [JobEvent.DISPATCH, JobEvent.SUCCEEDED],
    JobState.FAILED: [JobEvent.DISPATCH, JobEvent.FAILED],
    JobState.STOPPED: [JobEvent.STOPPED],
    JobState.REFUSED: [JobEvent.REFUSED],
    JobState.LOST: [JobEvent.DISPATCH, JobEvent.LOST],
}


# ---------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_is_stored_with_its_first_event(store):
    new = job(team="ml", phase=Phase.PRETRAINING)
    assert add(store, new) == new
    with store.transaction(write=False) as tx:
        assert tx.job(new.job_id) == new
        assert [(e.event, e.state, e.reason, e.at) for e in tx.events(new.job_id)] == [
            ("accepted", "queued", "accepted", new.submitted_at)
        ]
        with pytest.raises(NotFound, match="nobody"):
            tx.job("nobody")


@once_per_example
@given(spec=strategies.specs)
def test_any_spec_survives(store, spec):
    number = next(NUMBERS)
    new = replace(job(number), spec=spec)
    add(store, new)
    with store.transaction(write=False) as tx:
        assert tx.job(new.job_id) == new


NUMBERS = itertools.count(1000)


def test_the_same_key_with_the_same_request_is_the_same_job(store):
    first = add(store, job(1), key="k")
    assert add(store, job(2), key="k") == first
    with store.transaction(write=False) as tx:
        assert tx.live_jobs() == [first]
        assert len(tx.events(first.job_id)) == 1


def test_the_same_key_with_another_request_is_a_conflict(store):
    add(store, job(1), key="k")
    with pytest.raises(Conflict, match="'k' was used for another request"):
        add(store, job(2), key="k", request="1" * 64)


def test_a_used_id_is_a_conflict_also_with_another_key(store):
    add(store, job(1), key="k")
    with pytest.raises(Conflict, match="exists already"):
        add(store, job(1), key="l")


def test_threads_with_one_key_make_one_job(store):
    start = threading.Barrier(8)

    def submit(number):
        start.wait()
        return add(store, job(number), key="k").job_id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(submit, range(8)))
    with store.transaction(write=False) as tx:
        assert [j.job_id for j in tx.live_jobs()] == list(ids)


def test_jobs_are_listed_newest_first_by_filter_and_page(store):
    stored = [
        add(store, job(1, team="a", project="x", phase=Phase.EVALUATION)),
        add(store, job(2, team="a", project="y", name="other")),
        add(store, job(3, team="b", project="x")),
        # the same instant as the one before
        add(store, replace(job(4, team="a"), submitted_at=START + 3 * MINUTE)),
    ]
    with store.transaction() as tx:
        drive(tx, stored[0], JobEvent.REFUSED)
        tx.add_attempt(attempt_of(stored[1], cluster="berlin"))

    def listed(limit=10, **where):
        with store.transaction(write=False) as tx:
            return [int(found.job_id[3:]) for found in tx.jobs(JobFilter(**where), limit=limit)]

    assert listed() == [4, 3, 2, 1]
    assert listed(limit=2) == [4, 3]
    assert listed(after=stored[2].job_id) == [2, 1]
    assert listed(after=stored[3].job_id) == [3, 2, 1]
    assert listed(team="a") == [4, 2, 1]
    assert listed(team="a", project="x") == [1]
    assert listed(name="other") == [2]
    assert listed(phase="evaluation") == [1]
    assert listed(cluster="berlin") == [2]
    assert listed(states=frozenset({JobState.REFUSED})) == [1]
    assert listed(states=frozenset({JobState.QUEUED, JobState.RUNNING})) == [4, 3, 2]
    assert listed(states=frozenset({JobState.QUEUED, JobState.REFUSED})) == [4, 3, 2, 1]
    assert listed(since=START + 2 * MINUTE, until=START + 3 * MINUTE) == [2]
    assert listed(team="nobody") == []
    with pytest.raises(NotFound):
        listed(after="nobody")


def test_a_job_that_is_known_is_read_again_once_it_changed_and_its_spec_is_not(store):
    for number in (1, 2):
        add(store, job(number))
    with store.transaction() as tx:
        first, second = tx.live_jobs()
        known = {first.job_id: first, "another": first}
        again = tx.live_jobs(known)
        assert again == [first, second]
        assert again[0] is first
        assert again[1].spec is not second.spec
        moved = drive(tx, first, JobEvent.DISPATCH)
        changed, _ = tx.live_jobs(known)
    assert changed == moved
    assert changed.spec is first.spec


def test_an_amended_spec_is_stored_with_its_event_and_read_again_by_who_knew_the_one_before(store):
    first = add(store, job(1))
    spec = replace(first.spec, start_now=True)
    with store.transaction() as tx:
        changed = tx.newest_change()
        amended = tx.amend_spec(first, spec, at=START + HOUR, reason="start now yes instead of no")
        assert (amended.spec, amended.amendments, amended.version) == (spec, 1, first.version + 1)
        assert tx.newest_change() > changed
    with store.transaction(write=False) as tx:
        assert tx.job(first.job_id) == amended
        assert tx.live_jobs({first.job_id: first}) == [amended]
        assert tx.live_jobs({first.job_id: amended})[0].spec is spec
        event = tx.events(first.job_id)[-1]
        assert (event.at, event.event, event.state) == (START + HOUR, "amended", "queued")
    with pytest.raises(StaleVersion), store.transaction() as tx:
        tx.amend_spec(first, first.spec, at=START + HOUR, reason="by who read it before")
    with store.transaction() as tx:  # and it moves on from there
        assert drive(tx, tx.job(first.job_id), JobEvent.DISPATCH).spec == spec


def test_jobs_are_found_by_id_together(store):
    for number in (1, 2, 3):
        add(store, job(number))
    with store.transaction(write=False) as tx:
        first, second, _ = tx.live_jobs()
        found = tx.jobs_by_id([second.job_id, first.job_id, "nobody"], {first.job_id: first})
        assert found == {first.job_id: first, second.job_id: second}
        assert found[first.job_id].spec is first.spec
        assert tx.jobs_by_id([]) == {}


def test_jobs_are_told_together_why_they_wait(store):
    for number in (1, 2):
        add(store, job(number))
    with store.transaction() as tx:
        first, second = tx.live_jobs()
        tx.tell_waiting([])
        tx.tell_waiting([Wait(first, START, "greener at noon", Cause.DELAYED), Wait(second, None, "\0", Cause.NO_ROOM)])
        first_told = replace(first, version=first.version + 1, not_before=START, cause=Cause.DELAYED)
        second_told = replace(second, version=second.version + 1, cause=Cause.NO_ROOM)
        told = [replace(first_told, reason="greener at noon"), replace(second_told, reason="\ufffd")]
        assert tx.live_jobs() == told
    with pytest.raises(StaleVersion), store.transaction() as tx:
        tx.tell_waiting(
            [Wait(told[1], None, "nothing of this stays", Cause.NO_ROOM), Wait(first, None, "", Cause.NONE)]
        )
    with store.transaction(write=False) as tx:
        assert tx.live_jobs() == told


def test_attempts_of_many_jobs_are_those_of_each_and_every_decision_has_a_number_of_its_own(store):
    jobs = [add(store, job(number)) for number in (1, 2, 3)]
    with store.transaction() as tx:
        numbers = []
        for one in (jobs[0], jobs[1], jobs[0]):
            tx.put_decisions([Decision(one.job_id, Verdict.HOLD, START, "waits")])
            numbers.append(tx.decision_numbers([one.job_id])[one.job_id])
        assert len(set(numbers)) == 3
        tx.add_attempt(attempt_of(jobs[0]))
        tx.put_attempt(replace(attempt_of(jobs[0]), outcome="failed"))
        tx.add_attempt(attempt_of(jobs[0], 2))
        tx.add_attempt(attempt_of(jobs[2]))
    ids = [one.job_id for one in jobs]
    with store.transaction(write=False) as tx:
        assert tx.decision_numbers(ids) == {ids[0]: numbers[2], ids[1]: numbers[1]}
        assert tx.attempts_of(ids) == {name: tx.attempts(job_id=name) for name in (ids[0], ids[2])}
        assert tx.decision_numbers([]) == tx.attempts_of([]) == {}


def test_live_jobs_are_those_not_final_oldest_first(store):
    by_state = {state: add(store, job(n)) for n, state in enumerate(PATHS)}
    with store.transaction() as tx:
        for state, path in PATHS.items():
            drive(tx, by_state[state], *path)
    with store.transaction(write=False) as tx:
        live = tx.live_jobs()
    assert [found.job_id for found in live] == [by_state[state].job_id for state in PATHS if state not in FINAL_STATES]


def test_jobs_that_come_together_are_stored_as_if_they_came_one_after_another(store):
    first, again, other, plain = (job(number) for number in (1, 2, 3, 4))
    known = add(store, job(9), key="known")
    keyed = [(first, "a"), (again, "a"), (other, "b"), (job(5), "known"), (plain, None)]
    with store.transaction() as tx:
        stored = tx.add_jobs([NewJob(new, key, SHA) for new, key in keyed])
        assert stored == [first, first, other, known, plain]
        facts = [Fact(FactKind.JOB_ENDED, START, {"job": one.job_id}) for one in (first, other, plain)]
        assert [entry.seq for entry in tx.append_facts(facts)] == [1, 2, 3]
        assert tx.append_facts([]) == []
        assert tx.append_fact(facts[0]).seq == 4
        assert verify_entries(tx.entries()).require().size == 4
    with store.transaction(write=False) as tx:
        assert {one.job_id for one in tx.live_jobs()} == {one.job_id for one in (first, other, known, plain)}
        assert [one.event for one in tx.events(other.job_id)] == ["accepted"]


@pytest.mark.parametrize(
    ("second", "why"),
    [(NewJob(job(2), "a", "1" * 64), "used for another request"), (NewJob(job(1), None, SHA), "exists already")],
)
def test_one_of_many_that_is_refused_refuses_them_all(store, second, why):
    with pytest.raises(Conflict, match=why), store.transaction() as tx:
        tx.add_jobs([NewJob(job(1), "a", SHA), second])
    with store.transaction(write=False) as tx:
        assert tx.live_jobs() == []


def test_every_move_in_the_table_and_no_other(store):
    """Python refuses what the table does not hold, and what it allows is written with its event."""
    for state, event in itertools.product(JobState, JobEvent):
        with store.transaction() as tx:
            stored = tx.add_job(job(next(NUMBERS)), idempotency_key=None, request_sha256=SHA)
            stored = drive(tx, stored, *PATHS[state])
            assert stored.state is state
            if (state, event) not in TRANSITIONS:
                with pytest.raises(Conflict, match=f"{state.value} cannot take the event '{event.value}'"):
                    tx.move_job(stored, event, at=START)
                assert tx.job(stored.job_id) == stored
                continue
            moved = tx.move_job(stored, event, at=START, reason="r", exit_code=3)
            assert moved.state is TRANSITIONS[state, event]
            assert (moved.finished_at is not None) == (moved.exit_code is not None) == (moved.state in FINAL_STATES)
            assert tx.job(stored.job_id) == moved
            written = tx.events(stored.job_id)[-1]
            assert (written.at, written.event, written.state, written.reason) == (
                START,
                event.value,
                moved.state.value,
                "r",
            )


def test_the_database_itself_takes_every_move_in_the_table_and_no_other(store):
    taken = set()
    for state in JobState:
        with store.transaction() as tx:
            stored = tx.add_job(job(next(NUMBERS)), idempotency_key=None, request_sha256=SHA)
            stored = drive(tx, stored, *PATHS[state])
        for event, new in itertools.product(JobEvent, JobState):
            if move_in_database(store, stored, event, new):
                taken.add(((state, event), new))
    assert taken == set(TRANSITIONS.items())


def move_in_database(store, stored, event, new, **changes):
    """Whether the database takes this UPDATE; it is rolled back in any case."""
    values = {
        "state": new.value,
        "event": event.value,
        "version": stored.version + 1,
        "finished": 1 if new in FINAL_STATES else None,
        "id": stored.job_id,
    } | changes
    statement = (
        "UPDATE jobs SET state = :state, event = :event, version = :version, finished_at = :finished, exit_code = NULL"
        " WHERE job_id = :id"
    )
    return database_takes(store, statement, values)


def database_takes(store, statement, values=None):
    with store._engine.execution_options(write=True).connect() as connection, connection.begin() as transaction:
        try:
            connection.execute(sa.text(statement), values or {})
        except sa.exc.IntegrityError:
            return False
        finally:
            transaction.rollback()
    return True


def test_the_database_ties_finished_at_and_versions_to_the_move(store):
    stored = add(store)
    assert move_in_database(store, stored, JobEvent.REFUSED, JobState.REFUSED)
    assert not move_in_database(store, stored, JobEvent.REFUSED, JobState.REFUSED, finished=None)
    assert not move_in_database(store, stored, JobEvent.DISPATCH, JobState.DISPATCHING, finished=1)
    assert not move_in_database(store, stored, JobEvent.REFUSED, JobState.REFUSED, version=stored.version)
    assert not database_takes(store, "UPDATE jobs SET finished_at = 1")
    assert not database_takes(store, "UPDATE jobs SET exit_code = 0")
    assert not database_takes(store, "UPDATE jobs SET state = 'gone', event = 'lost', version = 1")


def test_a_job_can_only_begin_as_queued(store):
    with pytest.raises(Conflict, match="begins as queued"):
        add(store, replace(job(), state=JobState.RUNNING))
    with store.transaction(write=False) as tx:
        assert tx.jobs(JobFilter(), limit=9) == []


def test_a_stale_version_is_refused_and_changes_nothing(store):
    old = add(store)
    with store.transaction() as tx:
        new = tx.amend_job(old, attempts=2, not_before=START, reason="waits")
    for change in (
        lambda tx: tx.move_job(old, JobEvent.DISPATCH, at=START),
        lambda tx: tx.amend_job(old, attempts=7),
    ):
        with pytest.raises(StaleVersion), store.transaction() as tx:
            change(tx)
    with store.transaction(write=False) as tx:
        assert tx.job(old.job_id) == new
        assert (new.attempts, new.not_before, new.reason, new.version) == (2, START, "waits", 1)
        assert len(tx.events(old.job_id)) == 1


def test_amending_keeps_what_is_not_named_but_the_planned_start(store):
    with store.transaction() as tx:
        first = tx.amend_job(tx.add_job(job(), idempotency_key=None, request_sha256=SHA), attempts=1, not_before=START)
        second = tx.amend_job(first)
        assert (second.attempts, second.reason, second.not_before) == (1, "accepted", None)
        assert tx.job(first.job_id) == second


def test_changing_a_job_that_is_not_there_is_not_found(store):
    with store.transaction() as tx, pytest.raises(NotFound):
        tx.amend_job(job(), attempts=1)


def test_a_reason_that_is_no_text_does_not_hold_a_job_up(store):
    stored = add(store)
    with store.transaction() as tx:
        moved = tx.move_job(stored, JobEvent.REFUSED, at=START, reason="Ray said \0\ud800")
        assert moved.reason == "Ray said \ufffd\ufffd"
        assert tx.job(stored.job_id) == moved


# ----------------------------------------------------------------------------------------------------------- decisions


def test_the_newest_decision_counts(store):
    stored, other = add(store), add(store, job(2))
    with store.transaction() as tx:
        assert tx.decision(stored.job_id) is None
        for number in range(3):
            tx.put_decisions([Decision(stored.job_id, Verdict.HOLD, START, f"for reason {number}")])
        assert tx.decision(stored.job_id).reason == "for reason 2"
        assert tx.decisions([stored.job_id, other.job_id]) == {stored.job_id: tx.decision(stored.job_id)}


@once_per_example
@given(decision=strategies.decisions)
def test_any_decision_survives(store, decision):
    stored = add(store, job(next(NUMBERS)))
    decision = replace(decision, job_id=stored.job_id)
    with store.transaction() as tx:
        tx.put_decisions([decision])
        assert tx.decision(stored.job_id) == decision


# ------------------------------------------------------------------------------------------------------------ attempts


def test_a_job_has_at_most_one_open_attempt(store):
    stored = add(store)
    first, second = attempt_of(stored, 1), attempt_of(stored, 2)
    with store.transaction() as tx:
        tx.add_attempt(first)
        with pytest.raises(Conflict, match=f"open attempt {first.attempt_id}"):
            tx.add_attempt(second)
        tx.put_attempt(replace(first, outcome="expired"))
        tx.add_attempt(second)
        assert [a.attempt_id for a in tx.attempts(job_id=stored.job_id)] == [first.attempt_id, second.attempt_id]
        assert tx.attempts(open_only=True) == [second]


def test_attempts_of_a_job_are_in_turn_although_the_clock_was_set_back_between_them(store):
    stored = add(store)
    with store.transaction() as tx:
        tx.add_attempt(attempt_of(stored, 1, outcome="failed", exit_code=1))
        tx.add_attempt(replace(attempt_of(stored, 2), opened_at=START - timedelta(hours=1)))
        assert [one.number for one in tx.attempts(job_id=stored.job_id)] == [1, 2]
        assert [one.number for one in tx.attempts_of([stored.job_id])[stored.job_id]] == [1, 2]


def test_the_database_itself_refuses_a_second_open_attempt(store):
    stored = add(store)
    with store.transaction() as tx:
        tx.add_attempt(attempt_of(stored, 1, outcome="failed", exit_code=1))
        tx.add_attempt(attempt_of(stored, 2))
    assert not database_takes(store, "UPDATE attempts SET outcome = '', exit_code = NULL WHERE number = 1")
    assert database_takes(store, "UPDATE attempts SET outcome = 'x'")
    assert not database_takes(store, "UPDATE attempts SET exit_code = 1 WHERE number = 2")
    assert not database_takes(store, "UPDATE attempts SET number = 1")


def test_reopening_an_attempt_beside_an_open_one_is_a_conflict_that_undoes_the_transaction(store):
    stored = add(store)
    with store.transaction() as tx:
        tx.add_attempt(attempt_of(stored, 1, outcome="lost"))
        tx.add_attempt(attempt_of(stored, 2))
    with pytest.raises(Conflict), store.transaction() as tx:  # noqa: PT012
        tx.amend_job(stored, reason="this must not stay")
        tx.put_attempt(replace(attempt_of(stored, 1), outcome=""))
    with store.transaction(write=False) as tx:
        assert tx.job(stored.job_id) == stored


def test_a_conflict_from_the_database_cannot_be_caught_and_committed_over(store):
    stored = add(store)
    with store.transaction() as tx:
        tx.add_attempt(attempt_of(stored, 1, outcome="lost"))
        tx.add_attempt(attempt_of(stored, 2))
    with pytest.raises(Conflict), store.transaction() as tx:  # noqa: PT012
        tx.amend_job(stored, reason="this must not stay")
        with pytest.raises(Conflict):
            tx.put_attempt(replace(attempt_of(stored, 1), outcome=""))
    with store.transaction(write=False) as tx:
        assert tx.job(stored.job_id) == stored


@once_per_example
@given(attempt=strategies.attempts)
def test_any_attempt_survives(store, attempt):
    stored = add(store, job(next(NUMBERS)))
    attempt = replace(attempt, job_id=stored.job_id, attempt_id=submission_id(stored.job_id, attempt.number))
    with store.transaction() as tx:
        tx.add_attempt(attempt)
        assert tx.attempt(attempt.attempt_id) == attempt
        changed = tx.put_attempt(replace(attempt, epoch="e", accepted=True, collected=not attempt.collected))
        assert changed == replace(attempt, epoch="e", accepted=True, collected=not attempt.collected, version=1)
        assert tx.attempt(attempt.attempt_id) == changed


def test_attempts_by_what_is_still_to_do(store):
    one, two = add(store, job(1)), add(store, job(2))
    done = attempt_of(one, 1, outcome="succeeded", collected=True)
    ended, running = attempt_of(one, 2, outcome="failed"), attempt_of(two, 3)
    with store.transaction() as tx:
        for attempt in (running, ended, done):
            tx.add_attempt(attempt)
        assert tx.attempts() == [done, ended, running]
        assert tx.attempts(uncollected_only=True) == [ended, running]
        assert tx.attempts(open_only=True) == [running]
        assert tx.attempts(uncollected_only=True, open_only=True) == [running]
        assert tx.attempts(job_id=one.job_id, uncollected_only=True) == [ended]


def test_attempts_guard_their_versions(store):
    stored = add(store)
    attempt = attempt_of(stored)
    with store.transaction() as tx:
        with pytest.raises(NotFound):
            tx.put_attempt(attempt)
        with pytest.raises(NotFound):
            tx.attempt(attempt.attempt_id)
        tx.add_attempt(attempt)
        tx.put_attempt(replace(attempt, accepted=True))
        with pytest.raises(StaleVersion):
            tx.put_attempt(replace(attempt, accepted=False))
        assert tx.attempt(attempt.attempt_id).accepted is True


def test_an_attempt_needs_its_job(store):
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.add_attempt(attempt_of(job()))


# -------------------------------------------------------------------------------------------------------- finished runs


def run(name="train", seconds=60.0, **more):
    return PastRun(name, Resources(bundles=(Bundle(gpus=2),), gpu_type="A100"), seconds, 500.0, **more)


def test_finished_runs_are_numbered_and_read_from_where_one_was(store):
    stored = add(store)
    known = run(phase=Phase.FINETUNING, gpu_type="A100", profile=(0.5, 1.5)), run("other"), run(seconds=61.5)
    with store.transaction() as tx:
        for number, one in enumerate(known, 1):
            tx.add_attempt(attempt_of(stored, number, outcome="succeeded"))
            tx.add_run(submission_id(stored.job_id, number), one)
        every = tx.runs(limit=10)
        assert [replace(one, number=0) for one in every] == list(known)
        assert [one.number for one in every] == sorted({one.number for one in every})
        assert tx.runs(limit=2) == every[1:]
        assert tx.runs(after=every[0].number, limit=10) == every[1:]
        assert tx.runs(name="train", limit=10) == [every[0], every[2]]
        assert tx.runs(name="train", limit=1) == [every[2]]


def test_an_attempt_has_at_most_one_run_and_the_first_stays(store):
    stored = add(store)
    with store.transaction() as tx:
        tx.add_attempt(attempt_of(stored, outcome="succeeded"))
        tx.add_run(submission_id(stored.job_id, 1), run())
    with store.transaction() as tx:
        tx.add_run(submission_id(stored.job_id, 1), run(seconds=1.0))
    with store.transaction(write=False) as tx:
        [kept] = tx.runs(limit=10)
    assert kept.duration_s == run().duration_s != 1.0


# -------------------------------------------------------------------------------------------------------------- outbox


def claim(store, kinds=("submit",), limit=10, lease_s=30.0):
    with store.transaction() as tx:
        return tx.claim_outbox(kinds, limit=limit, lease_s=lease_s)


def enqueue(store, *keys, kind="submit"):
    with store.transaction() as tx:
        for key in keys:
            tx.enqueue(kind, key, {"for": key})


def test_actions_are_claimed_once_oldest_first_and_by_kind(store):
    enqueue(store, "b", "a", "c")
    enqueue(store, "x", kind="stop")
    first = claim(store, limit=2)
    assert [(item.kind, item.key, item.payload, item.tries) for item in first] == [
        ("submit", "b", {"for": "b"}, 0),
        ("submit", "a", {"for": "a"}, 0),
    ]
    assert [item.key for item in claim(store, kinds=("stop", "submit"))] == ["c", "x"]
    assert claim(store, kinds=("stop", "submit")) == []
    assert claim(store, kinds=()) == []


def test_the_same_action_twice_is_one_until_it_is_finished(store):
    enqueue(store, "a", "a")
    (item,) = claim(store)
    enqueue(store, "a")
    assert claim(store) == []
    with store.transaction() as tx:
        assert tx.finish_outbox(item)
        assert not tx.finish_outbox(item)
    enqueue(store, "a")
    assert len(claim(store)) == 1


def test_a_lease_that_ran_out_goes_to_the_next_and_fences_the_first(store, clock):
    enqueue(store, "a")
    (slow,) = claim(store, lease_s=0)  # over as soon as it began, on every database's clock
    (quick,) = claim(store)
    assert slow.token != quick.token
    with store.transaction() as tx:
        assert not tx.finish_outbox(slow)
        assert not tx.delay_outbox(slow, seconds=0)
    assert claim(store) == []
    with store.transaction() as tx:
        assert tx.finish_outbox(quick)
    enqueue(store, "a")
    claim(store)
    with store.transaction() as tx:
        assert not tx.finish_outbox(quick)


def test_a_lease_holds_for_its_time(store, clock):
    enqueue(store, "a")
    (item,) = claim(store, lease_s=3600)
    clock.pass_s(60)
    assert claim(store) == []
    with store.transaction() as tx:
        assert tx.finish_outbox(item)


def test_a_delayed_action_comes_back_with_one_more_try(store):
    enqueue(store, "a")
    (item,) = claim(store)
    with store.transaction() as tx:
        assert tx.delay_outbox(item, seconds=3600)
    assert claim(store) == []
    enqueue(store, "b")
    (item,) = claim(store)
    with store.transaction() as tx:
        assert tx.delay_outbox(item, seconds=0)
        assert not tx.finish_outbox(item)
    (again,) = claim(store)
    assert (again.key, again.tries) == ("b", 1)


def test_a_release_voids_claims_and_makes_all_of_a_kind_due(store):
    enqueue(store, "claimed", "delayed", "free")
    enqueue(store, "other", kind="stop")
    claimed, delayed = claim(store, limit=2, lease_s=3600)
    claim(store, kinds=("stop",), lease_s=3600)
    with store.transaction() as tx:
        assert tx.delay_outbox(delayed, seconds=3600)
        assert tx.release_outbox(["submit"]) == 3
        assert not tx.finish_outbox(claimed)
    assert [item.key for item in claim(store, kinds=("submit", "stop"))] == ["claimed", "delayed", "free"]


def test_sqlite_leases_run_by_the_injected_clock(store, clock):
    if store._engine.dialect.name != "sqlite":
        pytest.skip("a server has its own clock")
    enqueue(store, "a")
    claim(store, lease_s=30)
    clock.pass_s(29.999)
    assert claim(store) == []
    clock.pass_s(0.001)
    assert len(claim(store)) == 1


def test_eight_workers_share_actions_without_doing_one_twice(store):
    enqueue(store, *[f"k{n}" for n in range(40)])

    def work(_):
        mine = []
        while items := claim(store, limit=3):
            mine += [item.key for item in items]
        return mine

    with ThreadPoolExecutor(8) as pool:
        done = [key for keys in pool.map(work, range(8)) for key in keys]
    assert sorted(done) == sorted(f"k{n}" for n in range(40))


# ------------------------------------------------------------------------------------------------------------ clusters


def a_cluster(name, zone="DE"):
    return Cluster(name, zone, Pue(1_100_000, "2025", "measured"))


def test_clusters_keep_the_order_of_their_first_insertion(store):
    with store.transaction() as tx:
        for name in ("b", "a", "c"):
            tx.put_cluster(a_cluster(name))
        tx.put_cluster(a_cluster("b", "FR"))
        assert tx.clusters() == [a_cluster("b", "FR"), a_cluster("a"), a_cluster("c")]
        tx.remove_cluster("b")
        tx.put_cluster(a_cluster("b"))
        assert [cluster.name for cluster in tx.clusters()] == ["a", "c", "b"]


def test_a_cluster_stays_while_attempts_are_open_there(store):
    stored = add(store)
    with store.transaction() as tx:
        tx.put_cluster(a_cluster("a"))
        tx.add_attempt(attempt_of(stored, cluster="a"))
        with pytest.raises(Conflict, match="open attempt"):
            tx.remove_cluster("a")
        tx.put_attempt(replace(attempt_of(stored, cluster="a"), outcome="failed"))
        tx.remove_cluster("a")
        assert tx.clusters() == []
        with pytest.raises(NotFound):
            tx.remove_cluster("a")


@once_per_example
@given(cluster=strategies.clusters)
def test_any_cluster_survives(store, cluster):
    cluster = replace(cluster, name=f"c{next(NUMBERS)}")
    with store.transaction() as tx:
        tx.put_cluster(cluster)
        assert tx.clusters()[-1] == cluster


# ---------------------------------------------------------------------------------------------------- energy, readings


def span(owner="cs-a-a1", minute=0, device="gpu-0", energy_uj=5):
    start = START + minute * MINUTE
    return EnergySpan(
        owner, "c", "m", device, "gpu", start, start + MINUTE, energy_uj, SourceClass.COUNTER, Reporter.INDEPENDENT,
        "board", "sole-owner", 50_000, SHA, ("clock-stepped",),
    )  # fmt: skip


def add_segment(store, name, spans, sha256=SHA):
    with store.transaction() as tx:
        return tx.add_segment(
            segment_id=name, sha256=sha256, cluster="c", attempt_id="cs-a-a1", spans=spans, received_at=START
        )


def test_a_segment_is_booked_once_however_often_it_is_delivered(store):
    spans = [span(minute=1), span(minute=0, device="gpu-1"), span(minute=0), span(IDLE)]
    assert add_segment(store, "s1", spans)
    for _ in range(3):
        assert not add_segment(store, "s1", spans)
    assert not add_segment(store, "s1", [])
    assert add_segment(store, "s2", [])
    with store.transaction(write=False) as tx:
        assert tx.spans(["cs-a-a1"]) == [spans[2], spans[1], spans[0]]
        assert tx.spans([IDLE, "cs-a-a1", "nobody"]) == [
            *sorted([spans[2], spans[3]], key=lambda s: s.owner),
            *spans[1::-1],
        ]
        assert tx.spans([]) == []


def test_a_segment_with_other_content_is_a_conflict(store):
    add_segment(store, "s1", [span()])
    with pytest.raises(Conflict, match="segment s1 is known with hash"):
        add_segment(store, "s1", [span(minute=5)], sha256="1" * 64)
    with store.transaction(write=False) as tx:
        assert tx.spans(["cs-a-a1"]) == [span()]


def test_more_owners_than_a_statement_takes(store):
    add_segment(store, "s1", [span(f"o{n}", minute=n) for n in range(1200)])
    with store.transaction(write=False) as tx:
        assert tx.spans([f"o{n}" for n in range(1200)]) == [span(f"o{n}", minute=n) for n in range(1200)]


@once_per_example
@given(drawn=strategies.spans)
def test_any_span_survives(store, drawn):
    owner = f"owner-{next(NUMBERS)}"
    drawn = drawn._replace(owner=owner)
    add_segment(store, owner, [drawn])
    with store.transaction(write=False) as tx:
        assert tx.spans([owner]) == [drawn]


def reading(hour=0, mg=100_000, zone="DE", issued=START, hours=1, **more):
    start = START + hour * HOUR
    return Reading(
        zone, start, start + hours * HOUR, mg, Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.CONSUMPTION, Kind.MEASURED,
        Grade.LIVE, "p", issued_at=issued, fetched_at=START, **more,
    )  # fmt: skip


def test_readings_that_overlap_an_interval_as_of_an_instant(store):
    revised = reading(1, mg=90_000, issued=START + HOUR)
    year = reading(-4000, zone="DE", hours=8760)
    others = [reading(n) for n in range(3)]
    with store.transaction() as tx:
        assert tx.add_readings([others[2], revised, others[0], others[1], year, reading(1, zone="FR")]) == 6
        assert tx.readings("DE", START, START + 2 * HOUR) == [year, others[0], others[1], revised]
        assert tx.readings("DE", START, START + 2 * HOUR, as_of=START) == [year, others[0], others[1]]
        assert tx.readings("DE", START + HOUR, START + HOUR + MINUTE) == [year, others[1], revised]
        assert tx.readings("FR", START, START + 9 * HOUR) == [reading(1, zone="FR")]
        assert tx.readings("XX", START, START + 9 * HOUR) == []


def test_a_reading_is_stored_once_and_a_revision_beside_it(store):
    first = reading(payload_sha256="a")
    again = replace(first, fetched_at=START + HOUR, payload_sha256="b")
    revision = replace(first, intensity_mg_per_kwh=1)
    with store.transaction() as tx:
        assert tx.add_readings([first, again]) == 1
        assert tx.add_readings([again, revision, first]) == 1
        assert tx.add_readings([]) == 0
        (stored, revised) = tx.readings("DE", START, START + HOUR)
    assert stored.intensity_mg_per_kwh == first.intensity_mg_per_kwh
    assert revised == revision


def test_a_year_of_readings_in_one_call(store):
    year = [reading(hour) for hour in range(8760)]
    with store.transaction() as tx:
        assert tx.add_readings(year) == 8760
        assert tx.add_readings(year) == 0
        assert tx.readings("DE", START + HOUR, START + 3 * HOUR) == year[1:3]


@once_per_example
@given(drawn=strategies.readings)
def test_any_reading_survives(store, drawn):
    drawn = replace(drawn, zone=f"zone-{next(NUMBERS)}")
    with store.transaction() as tx:
        assert tx.add_readings([drawn]) == 1
        assert tx.readings(drawn.zone, drawn.start, drawn.end) == [drawn]


# -------------------------------------------------------------------------------------------------------------- ledger


def fact(number=0):
    return Fact(FactKind.JOB_ENDED, START, {"job": f"j{number}", "attempts": number, "text": "ä\0"})


def test_facts_are_chained_in_order(store):
    with store.transaction(write=False) as tx:
        assert tx.ledger_head() == (0, GENESIS)
        assert tx.entries() == []
    with store.transaction() as tx:
        appended = [tx.append_fact(fact(number)) for number in range(5)]
    with store.transaction() as tx:
        appended.append(tx.append_fact(fact(5)))
        assert tx.entries() == appended
        assert tx.entries(after_seq=2, limit=2) == appended[2:4]
        assert tx.entries(after_seq=6) == []
        size, head = tx.ledger_head()
    assert verify_entries(appended).require() == Checkpoint(size, head)
    assert size == 6


def test_writers_of_two_servers_at_once_leave_one_chain(store, database_url, clock):
    other = open_store(database_url, clock)  # shares no lock with the first, as another replica would not

    def write(number):
        with (store if number % 2 else other).transaction() as tx:
            tx.append_fact(fact(number))
            tx.append_fact(fact(number + 100))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    other.close()
    with store.transaction(write=False) as tx:
        assert verify_entries(tx.entries()).require().size == 48


def test_what_is_rolled_back_leaves_no_trace(store):
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:  # noqa: PT012
        tx.add_job(job(), idempotency_key=None, request_sha256=SHA)
        tx.append_fact(fact())
        tx.enqueue("submit", "a", {})
        raise ZeroDivisionError
    with store.transaction() as tx:
        assert tx.live_jobs() == []
        assert tx.ledger_head() == (0, GENESIS)
        assert tx.claim_outbox(["submit"], limit=1, lease_s=1) == []
        tx.append_fact(fact())
        assert tx.ledger_head()[0] == 1


def test_the_database_itself_lets_the_ledger_only_grow(store):
    with store.transaction() as tx:
        last = [tx.append_fact(fact(number)) for number in range(3)][-1]
    insert = "INSERT INTO ledger (seq, prev, hash, payload) VALUES (:seq, :prev, 'h', 'p')"
    if store._engine.dialect.name == "sqlite":
        values = {"seq": 3, "prev": last.prev}
        assert not database_takes(store, insert.replace("INSERT", "INSERT OR REPLACE"), values)
    else:
        assert not database_takes(store, "TRUNCATE ledger")
    assert not database_takes(store, "UPDATE ledger SET payload = 'p' WHERE seq = 2")
    assert not database_takes(store, "DELETE FROM ledger WHERE seq = 3")
    assert not database_takes(store, insert, {"seq": 5, "prev": last.hash})
    assert not database_takes(store, insert, {"seq": 0, "prev": GENESIS})
    assert not database_takes(store, insert, {"seq": 4, "prev": last.prev})
    assert database_takes(store, insert, {"seq": 4, "prev": last.hash})


def test_a_fact_without_canonical_form_is_refused_and_the_chain_stays(store):
    with pytest.raises(TypeError, match=r"job-ended\.kwh"), store.transaction() as tx:
        tx.append_fact(Fact(FactKind.JOB_ENDED, START, {"kwh": 0.1}))
    with store.transaction() as tx:
        assert tx.append_fact(fact()).seq == 1


# --------------------------------------------------------------------------------------------------------- transactions


def test_a_reading_transaction_sees_one_state(store):
    stored = add(store)
    with store.transaction(write=False) as tx:
        assert tx.live_jobs() == [stored]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(add, store, job(2)).result()
        assert tx.live_jobs() == [stored]
    with store.transaction(write=False) as tx:
        assert len(tx.live_jobs()) == 2


def test_a_reading_transaction_does_not_write(store):
    with pytest.raises(RuntimeError, match="write=False"), store.transaction(write=False) as tx:
        tx.enqueue("submit", "a", {})


def test_a_write_inside_a_write_of_the_same_thread_is_a_bug_that_is_told(store):
    with store.transaction(), pytest.raises(RuntimeError, match="inside another"), store.transaction():
        pass
    add(store)


def test_database_time_is_aware_and_in_utc(store, clock):
    now = store.database_now()
    assert now.utcoffset() == timedelta(0)
    if store._engine.dialect.name == "sqlite":
        assert now == clock.now()


def test_a_database_held_by_another_process_is_a_store_error_that_may_pass(store, database_url, clock):
    other = open_store(database_url, clock, wait_s=0.05)  # engines of their own, as two processes have
    with store.transaction():
        with pytest.raises(StoreError, match="cannot be used right now") as told, other.transaction():
            pass
        assert told.value.retryable
        with other.transaction(write=False) as tx:
            assert tx.live_jobs() == []
    assert add(other) == job()
    other.close()


@pytest.mark.postgres
def test_a_server_that_drops_connections_is_a_store_error_and_then_works_again(postgres_url, clock):
    store = open_store(postgres_url, clock)
    drop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    with pytest.raises(StoreError), store.transaction() as tx:  # noqa: PT012
        tx.append_fact(fact())
        with store._engine.connect() as connection, connection.begin():
            connection.execute(sa.text(f"{drop} AND pid <> pg_backend_pid()"))
        tx.append_fact(fact())
    with store.transaction() as tx:
        assert tx.append_fact(fact()).seq == 1
    store.close()


CHANGE = sa.text("UPDATE jobs SET reason = 'by hand'")


@pytest.mark.postgres
def test_a_row_that_somebody_else_changed_amid_a_write_is_a_store_error_that_may_pass(postgres_url, clock):
    store = open_store(postgres_url, clock)
    stored = add(store)
    with pytest.raises(StoreError, match="could not serialize") as told, store.transaction() as tx:  # noqa: PT012
        tx.job(stored.job_id)
        with store._engine.connect() as connection, connection.begin():  # which does not wait for its turn
            connection.execute(CHANGE)
        drive(tx, stored, JobEvent.DISPATCH)
    assert told.value.retryable
    with store.transaction() as tx:
        assert drive(tx, tx.job(stored.job_id), JobEvent.DISPATCH).state is JobState.DISPATCHING
    store.close()


@pytest.mark.postgres
def test_a_deadlock_with_somebody_else_is_a_store_error_that_may_pass(postgres_url, clock):
    store = open_store(postgres_url, clock)
    stored, changed, over = add(store), threading.Event(), threading.Event()

    def by_hand() -> None:
        with store._engine.connect() as connection, connection.begin():
            connection.exec_driver_sql("SET LOCAL deadlock_timeout = '1min'")  # it is ours that finds out
            connection.execute(CHANGE)
            changed.set()
            connection.exec_driver_sql("LOCK TABLE schema_info IN EXCLUSIVE MODE")
        over.set()

    other = threading.Thread(target=by_hand)
    with pytest.raises(StoreError, match="deadlock") as told, store.transaction() as tx:  # noqa: PT012
        other.start()
        assert changed.wait(10)
        drive(tx, stored, JobEvent.DISPATCH)
    assert told.value.retryable
    assert over.wait(10), "the other one goes on"
    with store.transaction() as tx:
        assert drive(tx, tx.job(stored.job_id), JobEvent.DISPATCH).state is JobState.DISPATCHING
    other.join()
    store.close()


@pytest.mark.postgres
def test_who_is_paused_amid_a_write_holds_the_others_up_for_a_time_only(postgres_url, clock):
    paused, other = open_store(postgres_url, clock, wait_s=0.6), open_store(postgres_url, clock)
    with pytest.raises(StoreError, match="cannot be used right now"), paused.transaction() as tx:  # noqa: PT012
        tx.append_fact(fact())
        add(other)
        tx.append_fact(fact())
    with paused.transaction() as tx:
        assert tx.job(job().job_id) == job()
        assert tx.append_fact(fact()).seq == 1, "nothing of it was written"
    paused.close()
    other.close()


@pytest.mark.postgres
def test_who_is_paused_amid_a_message_loses_the_turn_to_whoever_waits_for_it(postgres_url, clock):
    paused, other = open_store(postgres_url, clock, wait_s=1.5), open_store(postgres_url, clock, wait_s=1.5)
    with pytest.raises(StoreError, match="cannot be used right now"), paused.transaction() as tx:  # noqa: PT012
        tx.append_fact(fact())
        wire = tx._db._connection.connection.dbapi_connection.pgconn
        wire.enter_pipeline_mode()
        wire.send_prepare(b"", b"SELECT 1")  # what ends this is never sent: PostgreSQL counts it as no idle transaction
        wire.send_flush_request()
        wire.flush()
        add(other)
        wire.exit_pipeline_mode()
        tx.append_fact(fact())
    with other.transaction() as tx:
        assert tx.job(job().job_id) == job()
        assert tx.append_fact(fact()).seq == 1, "nothing of it was written"
    paused.close()
    other.close()


# leases ----------------------------------------------------------------------------------------------------------


def take(store, holder, **more):
    with store.transaction() as tx:
        return tx.take_lease("leader", holder, lease_s=15, **more)


def test_a_lease_is_held_by_one_until_it_runs_out_and_each_holder_begins_a_term(store, clock):
    assert (take(store, "a"), take(store, "b"), take(store, "a")) == (1, None, 1)
    if store._engine.dialect.name == "sqlite":
        clock.at += timedelta(seconds=15)
    else:
        with store.transaction() as tx:
            tx.drop_lease("leader", 1)
    assert (take(store, "b"), take(store, "a")) == (2, None)
    with store.transaction(write=False) as tx:
        assert (tx.lease_term("leader"), tx.lease_term("other")) == (2, 0)


def test_a_lease_that_ran_out_and_was_not_taken_goes_on_in_its_term(store):
    assert take(store, "a") == 1
    with store.transaction() as tx:
        tx.drop_lease("leader", 1)
    assert take(store, "a") == 1


def test_a_seized_lease_begins_a_term_whoever_holds_it_and_an_old_term_drops_nothing(store):
    assert (take(store, "a"), take(store, "b", seize=True), take(store, "b", seize=True)) == (1, 2, 3)
    with store.transaction() as tx:
        tx.drop_lease("leader", 2)
    assert take(store, "a") is None


def test_every_event_and_decision_is_a_change(store):
    with store.transaction(write=False) as tx:
        nothing = tx.newest_change()
    add(store)
    with store.transaction(write=False) as tx:
        accepted = tx.newest_change()
    assert accepted > nothing
    with store.transaction(write=False) as tx:
        assert tx.live_counts() == {JobState.QUEUED: 1}
        assert tx.oldest_queued() == job().submitted_at
        assert tx.outbox_size() == 0
