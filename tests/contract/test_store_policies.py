"""Applied policies, by the prose of `ports.Transaction`; over SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.errors import Conflict, NotFound
from tests.fakes.clock import START
from tests.fakes.stores import clock, database_url, store

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


def test_what_was_looked_at_must_still_be_the_last(store):
    first = put(store, "acme", after=0)
    with pytest.raises(Conflict, match="policies changed meanwhile"):
        put(store, "acme", "other", after=0)
    assert put(store, "acme", "other", after=first.version).version > first.version
