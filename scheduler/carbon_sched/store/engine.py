"""Open the store: one engine per database, one writer at a time, and the `Store` port over both.

Both databases run write transactions one after another: SQLite by BEGIN IMMEDIATE (and a lock inside the process,
which is fairer than SQLite's polling), PostgreSQL by a table lock taken before the transaction's snapshot. The ledger's
head makes writers wait for each other anyway; waiting at the beginning means no deadlock, no serialisation failure, and
reads that stay true until the commit. Readers never wait. A process that is paused amid a write keeps its turn on
PostgreSQL for a third of the time that the others wait for theirs; then the database ends its transaction, or where the
pause came between the messages of one statement, which the database has no limit for, who waits does.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from carbon_sched.domain.errors import InvalidInput, StoreError
from carbon_sched.store import schema
from carbon_sched.store.session import Session, translated
from carbon_sched.store.transaction import SqlTransaction
from carbon_sched.store.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from carbon_sched.ports import Clock, Transaction

WAIT_S = 30
"""How long a transaction waits for its turn, or for a connection, before it raises StoreError."""
POOL = {"pool_size": 32, "max_overflow": 32, "pool_use_lifo": True}
"""Connections beyond the first 32 are closed after use. Opening one costs PostgreSQL more than a submission does; with
the last one used taken first, a quiet server uses few of them."""
WAL_MODE = "journal_mode = WAL"
CACHE_KIB = 256
"""Of each connection to SQLite, whose own default is eight times that: many threads read, and the system's cache is
behind them all."""

TURNS_ASKED = 4
LOCK_NOT_AVAILABLE = "55P03"
END_IDLE = "SET LOCAL idle_in_transaction_session_timeout = '{}ms'"
END_SILENT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE datname = current_database() AND relation = 'schema_info'::regclass AND mode = 'ExclusiveLock' AND granted
  AND state = 'active' AND wait_event = 'ClientRead' AND clock_timestamp() - state_change > %s * interval '1 ms'
"""
"""Who keeps the turn amid a statement and sends nothing; who is idle between two, the database ends by `END_IDLE`."""


def open_store(url: str, clock: Clock, *, wait_s: float = WAIT_S) -> SqlStore:
    """Open `sqlite:///PATH` or `postgresql://...`, making or migrating the schema where needed.

    `clock` is the time of SQLite, which has none of its own; PostgreSQL's is the server's. Raises InvalidInput for
    another URL, SchemaTooNew, or StoreError when the database cannot be used now.
    """
    parsed = _parse(url)
    make = _sqlite if parsed.get_backend_name() == "sqlite" else _postgresql
    engine = make(parsed, wait_s)
    try:
        with translated():
            schema.prepare(engine)
    except BaseException:
        engine.dispose()
        raise
    return SqlStore(engine, clock, wait_s)


def sqlite_file(url: str) -> Path | None:
    """The file behind an SQLite URL, None for another database. Raises InvalidInput as `open_store` does."""
    parsed = _parse(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


class SqlStore:
    """The `Store` port over SQLAlchemy; may be used from any thread."""

    def __init__(self, engine: Engine, clock: Clock, wait_s: float) -> None:
        self._engine, self._clock, self._wait_s = engine, clock, wait_s
        self._reader = engine.execution_options(write=False)
        self._writer = engine.execution_options(write=True)
        self._turns = Turns()
        self._mine = threading.local()

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Transaction]:
        """Begin; commit on leaving, roll back on any exception. One write transaction per thread at a time."""
        if not write:
            with self._session(self._reader, write=False) as session:
                yield SqlTransaction(session)
            return
        with self._my_turn(), self._session(self._writer, write=True) as session:
            yield SqlTransaction(session)

    def database_now(self) -> datetime:
        """Database time."""
        with self.transaction(write=False) as tx:
            return tx._db.now()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        if getattr(self._mine, "writing", False):
            raise RuntimeError("a write transaction was begun inside another one of this thread")
        if not self._turns.take(self._wait_s):
            raise StoreError(f"the database was busy with another write for {self._wait_s} s. Try again")
        self._mine.writing = True
        try:
            yield
        finally:
            self._mine.writing = False
            self._turns.give()

    @contextmanager
    def _session(self, engine: Engine, *, write: bool) -> Iterator[Session]:
        with translated():
            connection = engine.connect()
        with connection:
            with translated():
                transaction = connection.begin()
            session = Session(connection, write=write, now=self._now_of(connection))
            try:
                yield session
                session.require_sound()
                with translated():
                    transaction.commit()
            except BaseException:
                with translated():
                    transaction.rollback()
                raise

    def _now_of(self, connection: Connection) -> Callable[[], datetime]:
        if connection.dialect.name == "sqlite":
            return self._clock.now
        return lambda: connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()


def _parse(url: str) -> URL:
    remedy = "Use sqlite:///PATH or postgresql://USER@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidInput("database", "(not shown: it may hold a password)", "is not a URL", remedy) from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise InvalidInput("database", shown, "is not a database we know", remedy)
    if parsed.database in (None, "", ":memory:"):
        raise InvalidInput("database", shown, "names no file, and a queue must outlive its process", remedy)
    return parsed


def _sqlite(url: URL, wait_s: float) -> Engine:
    _create_private(Path(str(url.database)))
    engine = create_engine(url, connect_args={"timeout": wait_s}, pool_timeout=wait_s, **POOL)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        for pragma in (WAL_MODE, "synchronous = FULL", "foreign_keys = ON", f"cache_size = -{CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _create_private(path: Path) -> None:
    """The file with mode 0600 before SQLite sees it, whose WAL inherits the mode, and in WAL mode already.

    Made under another name and linked: were it opened here, closing it would drop the locks that another connection of
    this process holds on it (POSIX locks belong to the process, not to the handle), and of two processes that turn one
    file to WAL mode together SQLite lets one wait and refuses the other at once.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
            os.close(handle)
            try:
                with closing(sqlite3.connect(temporary)) as connection:
                    connection.execute(f"PRAGMA {WAL_MODE}")
                with suppress(FileExistsError):
                    os.link(temporary, path)
            finally:
                Path(temporary).unlink()
        path.chmod(0o600)
    except (OSError, sqlite3.Error) as error:
        problem = f"the database {path} cannot be opened: {getattr(error, 'strerror', None) or error}"
        raise StoreError(f"{problem}. Check the path and its rights") from error


def _postgresql(url: URL, wait_s: float) -> Engine:
    level = "REPEATABLE READ"
    engine = create_engine(url, isolation_level=level, pool_pre_ping=True, pool_timeout=wait_s, **POOL)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.execute(f"SET lock_timeout = '{round(wait_s * 1000 / TURNS_ASKED)}ms'")
        connection.commit()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("write", False):
            _take_turn(connection, wait_s)

    return engine


def _take_turn(connection: Connection, wait_s: float) -> None:
    """Ask in some pieces, between which whoever keeps the turn in silence loses it."""
    silence_ms = round(wait_s * 1000 / 3)
    for left in reversed(range(TURNS_ASKED)):
        try:
            # LOCK takes no snapshot, so that the next statement sees what the writer before us committed
            connection.exec_driver_sql(f"{END_IDLE.format(silence_ms)}; LOCK TABLE schema_info IN EXCLUSIVE MODE")
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE or not left:
                raise
            driver: Any = connection.connection.dbapi_connection
            driver.rollback()
            driver.execute(END_SILENT, [silence_ms])
            driver.commit()
        else:
            return
