"""The stores that contract suites run over: the same fixture for SQLite and for PostgreSQL."""

from __future__ import annotations

import pytest

from carbon_sched.store.engine import open_store
from tests.fakes.clock import StoppedClock

BOTH = [pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=BOTH)
def database_url(request, tmp_path):
    """The URL of an empty database; each kind of database in turn."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest.fixture
def clock():
    return StoppedClock()


@pytest.fixture
def store(database_url, clock):
    opened = open_store(database_url, clock)
    yield opened
    opened.close()
