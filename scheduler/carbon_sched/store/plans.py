"""What the last plan left to the next one, in the database: one row, replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from carbon_sched.store.tables import plan_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.store.session import Session

THE_ONE = 1
_READ = select(plan_state.c.state)


class PlanRows:
    """The part of `ports.Transaction` about plans."""

    _db: Session

    def put_plan_state(self, state: Mapping[str, Any]) -> None:
        """Replace it."""
        known = self._db.first(_READ) is not None
        self._db.write(
            update(plan_state) if known else insert(plan_state), {"state": state} | ({} if known else {"id": THE_ONE})
        )

    def plan_state(self) -> Mapping[str, Any] | None:
        """None before the first plan."""
        row = self._db.first(_READ)
        return None if row is None else row.state
