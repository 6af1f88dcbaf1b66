"""How far batches have come, in the database: the newest state of each attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from carbon_sched.domain.batch import BatchState
from carbon_sched.store.tables import attempts, batch_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.store.session import Session


class BatchRows:
    """The part of `ports.Transaction` about batches."""

    _db: Session

    def put_batch_state(self, state: BatchState) -> None:
        """Insert, or replace what the attempt told before."""
        self._db.write(delete(batch_states).where(batch_states.c.attempt_id == state.attempt_id))
        self._db.write(insert(batch_states), vars(state))

    def batch_states(self, job_ids: Sequence[str]) -> dict[str, list[BatchState]]:
        """The states of each job's attempts, oldest first; jobs without any are left out."""
        query = (
            select(attempts.c.job_id, batch_states)
            .join(batch_states, batch_states.c.attempt_id == attempts.c.attempt_id)
            .where(attempts.c.job_id.in_(job_ids))
            .order_by(attempts.c.number)
        )
        found: dict[str, list[BatchState]] = {}
        for row in self._db.rows(query):
            values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
            found.setdefault(values.pop("job_id"), []).append(BatchState(**values))
        return found
