"""Runs the SQL text of one migration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

SQL = Path(__file__).parent / "sql"


def run(connection: Connection, revision: str) -> None:
    """Run every statement of the revision's file for this dialect."""
    text = (SQL / f"{revision}.{connection.dialect.name}.sql").read_text(encoding="utf-8")
    for statement in text.strip().split("\n\n"):
        connection.exec_driver_sql(statement)
