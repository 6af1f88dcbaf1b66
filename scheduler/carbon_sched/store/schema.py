"""Bring a database to this code's schema: a cheap look when it is up to date, Alembic under a lock when it is not.

`schema_info` says which migration ran last (`revision`) and which code may still use the result (`min_code`).
Migrations are additive for one version: the previous code keeps working on a newer schema, anything older is refused.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from carbon_sched.domain.errors import SchemaTooNew
from carbon_sched.store.tables import schema_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

REVISION = 14
"""The number of the newest migration that this code knows."""
MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True)
class SchemaInfo:
    """What the database says of itself."""

    revision: int
    min_code: int


def prepare(engine: Engine) -> None:
    """Make or migrate the schema if needed. Raises SchemaTooNew when this code is older than the database allows."""
    with engine.connect() as connection, connection.begin():
        if _usable(read_schema(connection)):
            return
    with engine.connect() as connection, _migrating(connection):
        if not _usable(read_schema(connection)):  # nobody else was faster
            migrate(connection)


def read_schema(connection: Connection) -> SchemaInfo | None:
    """What the database says of itself; None when it holds no schema of ours."""
    sqlite = connection.dialect.name == "sqlite"
    exists = "SELECT 1 FROM sqlite_master WHERE name = 'schema_info'" if sqlite else "SELECT to_regclass('schema_info')"
    if connection.exec_driver_sql(exists).scalar() is None:
        return None
    row = connection.execute(select(schema_info.c.revision, schema_info.c.min_code)).one()
    return SchemaInfo(row.revision, row.min_code)


def migrate(connection: Connection, target: str = "head") -> None:
    """Run the missing migrations up to `target` inside the caller's transaction."""
    # 0.4 s of imports that an up-to-date database never needs
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, target)


def _usable(found: SchemaInfo | None) -> bool:
    if found is None or found.revision < REVISION:
        return False
    if found.min_code > REVISION:
        message = (
            f"the database has schema {found.revision} and wants a carbon-sched that knows schema {found.min_code}; "
            f"this one knows {REVISION}. Install a newer carbon-sched, or restore a backup made before the upgrade"
        )
        raise SchemaTooNew(message)
    return True


@contextmanager
def _migrating(connection: Connection) -> Iterator[None]:
    """A transaction in which this process alone migrates, and sees what the one before it did."""
    if connection.dialect.name == "sqlite":
        with connection.execution_options(write=True).begin():
            yield
        return
    with connection.execution_options(isolation_level="READ COMMITTED").begin():
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('carbon-sched schema'))")
        yield
