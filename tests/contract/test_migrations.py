"""Migrations give the schema that the code describes, and databases that earlier versions left stay usable."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from carbon_sched.domain.errors import InvalidInput, SchemaTooNew, StoreError
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import JobEvent, JobState
from carbon_sched.ledger.verify import verify_entries
from carbon_sched.ports import JobFilter
from carbon_sched.store import ddl, schema
from carbon_sched.store.engine import open_store
from tests.fakes.clock import START, StoppedClock
from tests.fakes.stores import clock, database_url, store

__all__ = ["clock", "database_url", "store"]

FIXTURES = Path(__file__).parent / "fixtures"

# What PostgreSQL knows of a schema, as sorted text.
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'public'"""
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace"""
INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
TRIGGERS = "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
FUNCTIONS = "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
CATALOGUE = (COLUMNS, CONSTRAINTS, INDEXES, TRIGGERS, FUNCTIONS)


def in_any_order(text):
    """SQLite writes a column that was added later behind the constraints of its table's text."""
    if not text.startswith("table"):
        return text
    head, _, parts = text.partition("(")
    return head + str(sorted(part.strip() for part in parts.rstrip(")").split(",")))


def described(connection):
    """Everything in the schema but Alembic's own table."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all()
    else:
        rows = [(n, *row) for n, sql in enumerate(CATALOGUE) for row in connection.exec_driver_sql(sql).all()]
    plain = [in_any_order(re.sub(r"\s+", " ", " | ".join(map(str, row)))) for row in rows]
    return sorted(line for line in plain if "alembic_version" not in line)


def test_migrated_equals_fresh(store, database_url, postgres_server, tmp_path):
    with store._engine.connect() as connection:
        migrated = described(connection)
    dialect = store._engine.dialect.name
    if dialect == "sqlite":
        url = f"sqlite:///{tmp_path / 'fresh.sqlite'}"
    else:
        url = postgres_server.url(postgres_server.create_database())
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in ddl.statements(dialect):
            connection.exec_driver_sql(statement)
        fresh = described(connection)
    engine.dispose()
    assert migrated == fresh
    assert any("jobs_move" in line for line in fresh)


def test_the_number_of_the_newest_migration(store):
    with store._engine.connect() as connection:
        assert schema.read_schema(connection) == schema.SchemaInfo(revision=schema.REVISION, min_code=1)
        head = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    files = sorted(path.stem for path in (schema.MIGRATIONS / "versions").glob("v*.py"))
    assert len(files) == schema.REVISION == int(head)


def set_schema(store, revision, min_code):
    with store._engine.execution_options(write=True).connect() as connection, connection.begin():
        connection.execute(sa.text(f"UPDATE schema_info SET revision = {revision}, min_code = {min_code}"))


def test_a_newer_schema_is_used_while_it_allows_this_code(store, database_url, clock):
    set_schema(store, schema.REVISION + 1, schema.REVISION)
    open_store(database_url, clock).close()


def test_a_newer_schema_that_wants_newer_code_is_refused(store, database_url, clock):
    set_schema(store, schema.REVISION + 2, schema.REVISION + 1)
    with pytest.raises(SchemaTooNew, match="Install a newer carbon-sched"):
        open_store(database_url, clock)


def test_processes_that_open_a_new_database_together_migrate_it_once(database_url, clock):
    start = threading.Barrier(6)

    def opened(_):
        start.wait()
        store = open_store(database_url, clock)
        with store.transaction() as tx:
            tx.append_fact(Fact(FactKind.JOB_ENDED, START, {}))
        store.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(opened, range(6)))
    store = open_store(database_url, clock)
    with store.transaction(write=False) as tx:
        assert tx.ledger_head()[0] == 6
    store.close()


def test_a_new_file_is_in_wal_mode_before_others_can_open_it(tmp_path, monkeypatch):
    """Of two processes that turn one file to WAL mode together, SQLite refuses one without waiting."""
    seen, link = [], os.link
    monkeypatch.setattr(os, "link", lambda made, name: (seen.append(Path(made).read_bytes()[18:20]), link(made, name)))
    open_store(f"sqlite:///{tmp_path / 's.sqlite'}", StoppedClock()).close()
    assert seen == [b"\x02\x02"], "the header's versions for writing and reading: 2 is WAL"
    assert [path.name for path in tmp_path.iterdir()] == ["s.sqlite"]


def test_an_up_to_date_database_opens_without_alembic(tmp_path):
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    open_store(url, StoppedClock()).close()
    code = f"""
import sys
from carbon_sched.store.engine import open_store
open_store({url!r}, None).close()
sys.exit("alembic" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def restored(name, folder):
    """A file made from a fixture's SQL text."""
    path = folder / f"{name}.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / f"{name}.sqlite.sql").read_text(encoding="utf-8"))
    return path


def test_the_first_versions_database_opens_and_goes_on(tmp_path):
    store = open_store(f"sqlite:///{restored('first', tmp_path)}", StoppedClock())
    with store.transaction() as tx:
        waiting, done = tx.jobs(JobFilter(), limit=9)
        assert (done.state, done.exit_code, done.attempts) == (JobState.SUCCEEDED, 0, 1)
        assert done.spec.entrypoint == "python train.py 'ü \U0001f600'"
        assert (waiting.state, waiting.not_before) == (JobState.QUEUED, START + timedelta(hours=6))
        assert [event.event for event in tx.events(done.job_id)] == [
            "accepted", "dispatch", "submitted", "started", "succeeded",
        ]  # fmt: skip
        assert tx.decision(done.job_id).candidates[0].co2e_g == 1.5
        assert [cluster.name for cluster in tx.clusters()] == ["local", "north"]
        (attempt,) = tx.attempts()
        assert (attempt.collected, attempt.outcome) == (True, "succeeded")
        assert [span.energy_uj for span in tx.spans([attempt.attempt_id])] == [123_456_789_012]
        assert len(tx.readings("SE", START, START + timedelta(minutes=1))) == 1
        assert verify_entries(tx.entries()).require().size == 3
        assert tx.pseudonym("ada") == "person-1"
        assert tx.pseudonym("bob") == "person-2"
        (action,) = tx.claim_outbox(["submit"], limit=9, lease_s=1)
        assert action.payload == {"some": ["payload"]}
        assert tx.move_job(waiting, JobEvent.DISPATCH, at=START).state is JobState.DISPATCHING
        tx.append_fact(Fact(FactKind.JOB_ENDED, START, {}))
        assert verify_entries(tx.entries()).require().size == 4
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/x",
        "sqlite://",
        "sqlite:///:memory:",
        "nonsense",
        "sqlite+aiosqlite:///x",
        "postgresql+asyncpg://x",
    ],
)
def test_a_database_we_do_not_know_is_refused(url):
    with pytest.raises(InvalidInput, match="Use sqlite"):
        open_store(url, StoppedClock())


def test_a_password_never_stands_in_an_error():
    with pytest.raises(InvalidInput) as told:
        open_store("mysql://me:hunter2@host/x", StoppedClock())
    assert "hunter2" not in str(told.value)
    with pytest.raises(StoreError) as told:
        open_store("postgresql://me:hunter2@127.0.0.1:1/x", StoppedClock())
    assert "hunter2" not in str(told.value)


def test_the_file_is_private_whatever_the_umask(tmp_path):
    path = tmp_path / "new folder" / "s.sqlite"
    store = open_store(f"sqlite:///{path}", StoppedClock())
    with store.transaction() as tx:
        tx.enqueue("a", "b", {})
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file
    assert path.parent.stat().st_mode & 0o777 == 0o700
    store.close()


def test_opening_a_file_again_leaves_the_locks_that_this_process_holds(tmp_path):
    """Closing any handle on a file drops all POSIX locks of the process on it.

    Without them, another process that closes the database takes itself for the last one and deletes the log in which
    our commits lie. So the store must never open the file by itself.
    """
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    first = open_store(url, StoppedClock())
    with first.transaction() as tx:
        tx.enqueue("a", "before", {})
    open_store(url, StoppedClock()).close()
    assert claimed_by_another_process(url) == "['before']\n"
    with first.transaction() as tx:
        tx.enqueue("a", "after", {})
    assert claimed_by_another_process(url) == "['after']\n"
    first.close()


def claimed_by_another_process(url):
    code = f"""
from carbon_sched.store.engine import open_store
from tests.fakes.clock import StoppedClock
store = open_store({url!r}, StoppedClock())
with store.transaction() as tx:
    print([item.key for item in tx.claim_outbox(["a"], limit=9, lease_s=60)])
store.close()
"""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_sqlite_syncs_every_commit(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 's.sqlite'}", StoppedClock())
    with store._engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    store.close()


@pytest.mark.parametrize("content", [b"this is no database, but a letter" * 99])
def test_a_file_that_is_no_database_is_told(tmp_path, content):
    path = tmp_path / "s.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:///{path}", StoppedClock())
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path / 'file' / 's.sqlite'}", StoppedClock())
