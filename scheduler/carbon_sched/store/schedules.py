"""Schedules in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, insert, select, update

from carbon_sched.domain.errors import NotFound
from carbon_sched.domain.schedule import Schedule
from carbon_sched.store.tables import RUNNING, schedules

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.store.session import Session

_RUNNING = select(schedules).where(RUNNING).order_by(schedules.c.created_at, schedules.c.schedule_id)
_BY_ID = select(schedules).where(schedules.c.schedule_id == bindparam("its_id"))
_ITS_ID = schedules.c.schedule_id == bindparam("its_id")
_ADVANCE = update(schedules).where(and_(_ITS_ID, schedules.c.next_at == bindparam("as_read")))
_STOP = update(schedules).where(and_(_ITS_ID, RUNNING)).values(stopped_at=bindparam("at"))


class ScheduleRows:
    """The part of `ports.Transaction` about schedules."""

    _db: Session

    def add_schedule(self, schedule: Schedule) -> None:
        """Insert."""
        self._db.write(insert(schedules), vars(schedule))

    def schedules(self) -> list[Schedule]:
        """Those that were not stopped."""
        return [Schedule(**row._asdict()) for row in self._db.rows(_RUNNING)]

    def schedule(self, schedule_id: str) -> Schedule:
        """By id, or NotFound."""
        row = self._db.first(_BY_ID, {"its_id": schedule_id})
        if row is None:
            raise NotFound(f"there is no schedule {schedule_id!r}. `carbon-sched schedules list` shows those there are")
        return Schedule(**row._asdict())

    def advance_schedule(self, schedule: Schedule, *, next_at: datetime, last_job: str, problem: str) -> bool:
        """Guarded by the moment that was read."""
        values = {"next_at": next_at, "problem": problem, "last_job": last_job or schedule.last_job}
        as_read = {"its_id": schedule.schedule_id, "as_read": schedule.next_at}
        return (
            self._db.write(
                _ADVANCE.values({name: bindparam(f"new_{name}") for name in values}),
                {f"new_{name}": value for name, value in values.items()} | as_read,
            )
            == 1
        )

    def stop_schedule(self, schedule_id: str, *, at: datetime) -> None:
        """Once; NotFound where there is none."""
        if self._db.write(_STOP, {"its_id": schedule_id, "at": at}) == 0:
            self.schedule(schedule_id)
