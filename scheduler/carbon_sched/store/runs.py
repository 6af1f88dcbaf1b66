"""Finished runs in the database: what the next job of their name or class is expected to need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from carbon_sched.store.codec import run_from_json, run_to_json
from carbon_sched.store.tables import runs

if TYPE_CHECKING:
    from carbon_sched.domain.run import PastRun
    from carbon_sched.store.session import Session


class RunRows:
    """The part of `ports.Transaction` about what finished runs teach."""

    _db: Session

    def add_run(self, attempt_id: str, run: PastRun) -> None:
        """Insert, unless the attempt's run is known: energy that comes late has it booked again, and taught again."""
        if self._db.first(select(runs.c.id).where(runs.c.attempt_id == attempt_id)) is not None:
            return
        row = {"attempt_id": attempt_id, "name": run.name, "document": run_to_json(run)}
        self._db.write(insert(runs), row)

    def runs(self, *, name: str | None = None, after: int = 0, limit: int) -> list[PastRun]:
        """The newest `limit` with a number above `after`, oldest of them first."""
        query = select(runs).where(runs.c.id > after).order_by(runs.c.id.desc()).limit(limit)
        if name is not None:
            query = query.where(runs.c.name == name)
        rows = self._db.rows(query)
        return [run_from_json(row.document, name=row.name, number=row.id) for row in reversed(rows)]
