"""States of batches, by the prose of `ports.Transaction`; over SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.batch import BatchState
from carbon_sched.domain.errors import Conflict
from carbon_sched.domain.job import Attempt, Job, JobSpec, JobState, submission_id
from tests.fakes.clock import START
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]


@pytest.fixture
def attempts(store):
    """Two attempts of one job and one of another."""
    made = []
    with store.transaction() as tx:
        for job_id, numbers in (("job0000001", (1, 2)), ("job0000002", (1,))):
            tx.add_job(
                Job(job_id, JobSpec("python a.py", "a"), JobState.QUEUED, START),
                idempotency_key=None,
                request_sha256="",
            )
            for number in numbers:
                name, at = submission_id(job_id, number), START + timedelta(minutes=number)
                made.append(Attempt(name, job_id, number, "north", at, at, outcome="stopped"))
                tx.add_attempt(made[-1])
    return made


def state_of(attempt, **more):
    made = BatchState(attempt.attempt_id, 3, 10, START, START + timedelta(seconds=5), 7_000_000, 2_000)
    return replace(made, **more)


def test_the_newest_state_of_each_attempt_is_kept_in_the_order_of_the_attempts(store, attempts):
    first, second, other = map(state_of, attempts)
    with store.transaction() as tx:
        for state in (second, first, other):
            tx.put_batch_state(state)
        tx.put_batch_state(replace(first, done=4, co2e_ug=None))
    with store.transaction(write=False) as tx:
        found = tx.batch_states(["job0000001", "job0000002", "job0000003"])
        assert tx.batch_states([]) == {}
    assert found == {"job0000001": [replace(first, done=4, co2e_ug=None), second], "job0000002": [other]}


def test_a_state_of_no_attempt_is_refused(store, attempts):
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.put_batch_state(state_of(attempts[0], attempt_id="cs-nobody-a1"))
