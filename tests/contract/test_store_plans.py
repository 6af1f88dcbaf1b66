"""What a plan leaves to the next one, by the prose of `ports.Transaction`; over SQLite and PostgreSQL."""

from __future__ import annotations

from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]


def test_the_last_state_of_a_plan_is_kept_alone(store):
    with store.transaction(write=False) as tx:
        assert tx.plan_state() is None
    for state in ({"format": 1, "prices": None}, {"format": 1, "prices": {"values": [[0.5, 41.25]]}}):
        with store.transaction() as tx:
            tx.put_plan_state(state)
        with store.transaction(write=False) as tx:
            assert tx.plan_state() == state
