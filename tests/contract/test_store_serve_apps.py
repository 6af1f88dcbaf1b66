"""Services and their counts, by the prose of `ports.Transaction`; over SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import Conflict, NotFound, StaleVersion
from carbon_sched.domain.job import Attempt, Job, JobSpec, JobState
from carbon_sched.domain.serve_app import AppSpec, ServeApp, Site
from carbon_sched_runtime.request_counts import Counts
from tests.fakes.clock import START
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]

SPEC = AppSpec("chat", "/chat", "sealed", {"team": "nlp", "resources": {"workers": 2}}, "0" * 64, 60.0, {"north": 20.0})
SITE = Site(1, "north", "job0000001", START, 50.5, START + timedelta(seconds=5), "http://n/chat", "digest", START)
ATTEMPT = "cs-job0000001-a1"


def minute(number):
    return START + timedelta(minutes=number)


def test_a_service_is_kept_as_it_was_given(store):
    app = ServeApp(SPEC, "ada", START, 3, SITE, replace(SITE, number=2), (replace(SITE, number=3),), "trouble", True)
    with store.transaction() as tx:
        tx.add_app(app)
        tx.add_app(ServeApp(replace(SPEC, name="another"), "eve", START))
    with store.transaction(write=False) as tx:
        assert tx.app("chat") == app
        assert [one.name for one in tx.apps()] == ["another", "chat"]
        with pytest.raises(NotFound, match="no service 'nothing'"):
            tx.app("nothing")


def test_names_are_taken_once_and_changes_are_guarded(store):
    app = ServeApp(SPEC, "ada", START)
    with store.transaction() as tx:
        tx.add_app(app)
        changed = tx.put_app(replace(app, current=SITE))
    assert (changed.version, changed.current) == (1, SITE)
    with pytest.raises(StaleVersion), store.transaction() as tx:
        tx.put_app(replace(app, problem="late"))
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.add_app(app)
    with store.transaction() as tx:
        tx.remove_app("chat")
        tx.remove_app("chat")
        assert tx.apps() == []
        with pytest.raises(NotFound):
            tx.put_app(changed)


@pytest.fixture
def counted(store):
    """Counts of four minutes of one attempt."""
    with store.transaction() as tx:
        job = Job("job0000001", JobSpec("true", "a"), JobState.QUEUED, START)
        tx.add_job(job, idempotency_key=None, request_sha256="")
        tx.add_attempt(Attempt(ATTEMPT, job.job_id, 1, "north", START, START))
        for number in range(4):
            counts = Counts(number, 0, number, number, 5, 9, {10: number} if number else {})
            tx.add_request_counts(ATTEMPT, minute(number), {"0000aaaa": counts})
        tx.add_request_counts(ATTEMPT, minute(3), {"0000bbbb": Counts()})  # the same instant: the first stays
    return store


def instants(store, **where):
    with store.transaction(write=False) as tx:
        return [at for at, _ in tx.request_counts([ATTEMPT, "cs-other-a1"], **where).get(ATTEMPT, [])]


def test_counts_come_back_from_the_newest_before_an_instant_on(counted):
    assert instants(counted) == [minute(0), minute(1), minute(2), minute(3)]
    assert instants(counted, since=minute(2)) == [minute(1), minute(2), minute(3)]
    assert instants(counted, since=minute(9)) == [minute(3)]
    assert instants(counted, since=START - timedelta(days=1)) == instants(counted)
    with counted.transaction(write=False) as tx:
        assert tx.request_counts([ATTEMPT])[ATTEMPT][2][1] == {"0000aaaa": Counts(2, 0, 2, 2, 5, 9, {10: 2})}


def test_old_counts_are_forgotten_and_the_newest_ones_stay(counted):
    with counted.transaction() as tx:
        tx.forget_request_counts(ATTEMPT, before=minute(2))
    assert instants(counted) == [minute(2), minute(3)]
    with counted.transaction() as tx:
        tx.forget_request_counts(ATTEMPT, before=minute(99))
        tx.forget_request_counts("cs-other-a1", before=minute(99))
    assert instants(counted) == [minute(3)]
