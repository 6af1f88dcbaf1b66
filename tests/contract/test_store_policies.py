"""Applied policies and their budgets, by the prose of `ports.Transaction`; over SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.budget import BudgetLine, BudgetUse
from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.domain.job import Attempt, Job, JobSpec, JobState
from tests.fakes.clock import START
from tests.fakes.stores import clock, database_url, store
from tests.fakes.world import a_cluster

__all__ = ["clock", "database_url", "store"]

TEXT = "apiVersion: carbon-sched/v1\nname: acme\ndescription: 'Größe: \U0001f331'\n"


def put(store, name, content=TEXT, number=0, **more):
    with store.transaction() as tx:
        return tx.add_policy(name, content, at=START + timedelta(hours=number), by="ana", **more)


def test_the_newest_version_of_each_name_is_in_force(store):
    first, other = put(store, "acme"), put(store, "lab")
    newest = put(store, "acme", "other text", 1, reason="less waiting", restored=first.version)
    with store.transaction(write=False) as tx:
        assert tx.policies_in_force() == [newest, other]
        assert tx.policy_versions("acme") == [newest, first]
        assert tx.policy_version(first.version) == first
        assert tx.last_policy_version() == newest.version
    assert first.content == TEXT
    assert (newest.applied_at, newest.applied_by, newest.reason, newest.restored) == (
        START + timedelta(hours=1), "ana", "less waiting", first.version,
    )  # fmt: skip


def test_nothing_applied_is_version_nought(store):
    with store.transaction(write=False) as tx:
        assert (tx.last_policy_version(), tx.policies_in_force(), tx.policy_versions("acme")) == (0, [], [])
        with pytest.raises(NotFound, match="no policy version 7"):
            tx.policy_version(7)


def test_submissions_are_held_to_the_last_policy_and_the_clusters_there_are(store):
    with store.transaction() as tx:
        assert tx.rules() == (0, ())
        tx.put_cluster(a_cluster("b", "FR", 1.1))
        tx.put_cluster(a_cluster("a", "DE", 1.1))
        assert tx.rules() == (0, ("b", "a"))
    put(store, "acme")
    last = put(store, "lab")
    with store.transaction() as tx:
        tx.remove_cluster("b")
        assert tx.rules() == (last.version, ("a",))
        tx.remove_cluster("a")
        assert tx.rules() == (last.version, ())


def test_what_was_looked_at_must_still_be_the_last(store):
    first = put(store, "acme", after=0)
    with pytest.raises(Conflict, match="policies changed meanwhile"):
        put(store, "acme", "other", after=0)
    assert put(store, "acme", "other", after=first.version).version > first.version


def test_a_budget_is_reserved_once_settled_once_and_approved_once(store):
    job = Job("job0000001", JobSpec("true", "job"), JobState.QUEUED, START)
    attempt = Attempt("cs-job0000001-a1", job.job_id, 1, "a", START, START + timedelta(minutes=5))
    line = BudgetLine(attempt.attempt_id, "acme/all", START, 2**40, 2**50)
    with store.transaction() as tx:
        tx.add_job(job, idempotency_key=None, request_sha256="0" * 64)
        tx.add_attempt(attempt)
        tx.reserve_budget(line)
        tx.approve_budget(job.job_id, "acme/all", START, at=START, by="olga", reason="release")
    for again in (
        lambda tx: tx.reserve_budget(line),
        lambda tx: tx.approve_budget(job.job_id, "acme/all", START, at=START, by="bo", reason=""),
    ):
        with pytest.raises(Conflict), store.transaction() as tx:
            again(tx)
    with store.transaction() as tx:
        assert tx.budget_use("acme/all", START) == BudgetUse(0, 0, 2**40, 2**50, 1)
        assert tx.budget_use("acme/all", START + timedelta(days=31)) == BudgetUse()
        assert tx.budget_approved(job.job_id, "acme/all", START)
        assert not tx.budget_approved(job.job_id, "acme/other", START)
        assert tx.unsettled_attempts() == []  # it is open
        assert tx.settle_budgets(attempt.attempt_id, ug=5, uj=7) == 1
        assert tx.settle_budgets(attempt.attempt_id, ug=6, uj=8) == 0
        assert tx.budget_use("acme/all", START) == BudgetUse(5, 7, 0, 0, 0)
