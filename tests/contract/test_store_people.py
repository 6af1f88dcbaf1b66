"""Pseudonyms and the erasure of names, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from carbon_sched.domain.access import Credential, Kind, Role
from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import Job, JobEvent, JobSpec, JobState
from carbon_sched.domain.schedule import Schedule
from carbon_sched.ledger.verify import verify_entries
from carbon_sched.store.tables import metadata
from tests.fakes.clock import START
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]

NAME = "a\u00efda+%_@x.org"


def work_of(store, person, job_id, *, end=True):
    """A job and the fact of it, as the service writes them."""
    job = Job(job_id, JobSpec("true", "j", submitter=person), JobState.QUEUED, START)
    with store.transaction() as tx:
        stored = tx.add_job(job, idempotency_key=f"{person}\nkey-{job_id}", request_sha256="0" * 64)
        tx.append_fact(Fact(FactKind.JOB_ACCEPTED, START, {"job": job_id, "submitter": tx.pseudonym(person)}))
        if end:
            tx.move_job(stored, JobEvent.REFUSED, at=START)


def token_of(store, person, clock, token_id, by="root"):
    now = clock.now()
    token = Credential(token_id, Kind.API, person, Role.ADMIN, None, now, by, now + timedelta(days=1))
    with store.transaction() as tx:
        tx.add_credential(token, sha256=token_id)


def erase(store, person):
    with store.transaction() as tx:
        return tx.erase_person(person, now=START)


def whole_database(store):
    """Every row of every table, as text."""
    with store._engine.connect() as connection:
        return {table.name: str(connection.execute(sa.select(table)).all()) for table in metadata.sorted_tables}


def test_pseudonyms_are_stable_and_name_nobody(store):
    with store.transaction() as tx:
        ada, bob = tx.pseudonym("ada"), tx.pseudonym("bob")
        assert tx.pseudonym("ada") == ada
    assert ada != bob
    assert "ada" not in ada


def test_an_erased_name_is_nowhere_and_the_chain_is_what_it_was(store, clock):
    work_of(store, NAME, "job0000001")
    work_of(store, "bob", "job0000002")
    token_of(store, NAME, clock, "t1")
    token_of(store, "bob", clock, "t2", by=NAME)
    with store.transaction() as tx:
        tx.add_policy("p", "version: 1", at=START, by=NAME, reason="why")
        tx.add_schedule(Schedule("s1", "0 3 * * *", "UTC", "nightly", "", NAME, "sealed", START, START))
        tx.stop_schedule("s1", at=START)
        tx.put_package(NAME, "x.zip", sha256="0" * 64, at=START)
        tx.approve_budget("job0000001", "p/b", START, at=START, by=NAME, reason="why")
        tx.revoke_credential("t1", at=START)
        before = tx.entries()
    assert [name for name, rows in whole_database(store).items() if NAME in rows]

    pseudonym = erase(store, NAME)

    assert [name for name, rows in whole_database(store).items() if NAME in rows] == []
    with store.transaction() as tx:
        assert tx.entries() == before
        assert verify_entries(before).ok
        assert (tx.job("job0000001").spec.submitter, tx.job("job0000002").spec.submitter) == (pseudonym, "bob")
        assert tx.pseudonym(NAME) not in {pseudonym, tx.pseudonym("bob")}, "a number is never given twice"


def test_who_may_still_act_is_not_erased(store, clock):
    work_of(store, "ada", "job0000001", end=False)
    with pytest.raises(Conflict, match="not ended: job0000001"):
        erase(store, "ada")
    with store.transaction() as tx:
        tx.add_schedule(Schedule("s1", "0 3 * * *", "UTC", "nightly", "", "ada", "sealed", START, START))
    with pytest.raises(Conflict, match="schedules that go on: s1"):
        erase(store, "ada")
    token_of(store, "ada", clock, "t1")
    with pytest.raises(Conflict, match="Revoke t1 first"):
        erase(store, "ada")
    with store.transaction(write=False) as tx:
        assert tx.job("job0000001").spec.submitter == "ada"


@pytest.mark.parametrize("name", ["nobody", "", "a\0b", "\ud800"])
def test_a_name_that_the_ledger_does_not_know(store, name):
    with pytest.raises(NotFound, match="stands in the ledger"):
        erase(store, name)
