"""Schedules, by the prose of `ports.Transaction`; over SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import NotFound
from carbon_sched.domain.schedule import Schedule
from tests.fakes.clock import START
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]

NEXT = START + timedelta(hours=1)


def a_schedule(number, **more):
    made = Schedule(f"s{number}", "0 3 * * *", "UTC", "nightly", "ml", "ada", "sealed", START, NEXT)
    return replace(made, **more)


def running(store):
    with store.transaction(write=False) as tx:
        return tx.schedules()


@pytest.fixture
def two(store):
    """Two schedules, the younger one stored first."""
    made = [a_schedule(2, created_at=START + timedelta(seconds=1)), a_schedule(1)]
    with store.transaction() as tx:
        for schedule in made:
            tx.add_schedule(schedule)
    return made


def test_what_runs_is_listed_oldest_first(store, two):
    assert running(store) == two[::-1]


def test_a_stopped_one_is_known_but_runs_no_more(store, two):
    for at in (NEXT, NEXT + timedelta(hours=1)):
        with store.transaction() as tx:
            tx.stop_schedule("s1", at=at)
    assert running(store) == two[:1]
    with store.transaction(write=False) as tx:
        assert tx.schedule("s1") == replace(two[1], stopped_at=NEXT)


def test_it_goes_on_from_the_moment_that_was_read_only(store, two):
    later = NEXT + timedelta(days=1)
    with store.transaction() as tx:
        assert tx.advance_schedule(two[1], next_at=later, last_job="j1", problem="")
        assert not tx.advance_schedule(two[1], next_at=later + timedelta(days=1), last_job="j2", problem="")
    assert running(store)[0] == replace(two[1], next_at=later, last_job="j1")
    with store.transaction() as tx:
        assert tx.advance_schedule(running(store)[0], next_at=later + timedelta(days=1), last_job="", problem="refused")
    assert (running(store)[0].last_job, running(store)[0].problem) == ("j1", "refused")


def test_one_that_is_not_there(store):
    with store.transaction(write=False) as tx, pytest.raises(NotFound, match="schedules list"):
        tx.schedule("s1")
    with pytest.raises(NotFound), store.transaction() as tx:
        tx.stop_schedule("s1", at=NEXT)
