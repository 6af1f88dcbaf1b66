"""What teams and projects used, by day: what fair share is reckoned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, select, update

from carbon_sched.ports import Usage
from carbon_sched.store.columns import clean_text
from carbon_sched.store.tables import usage

if TYPE_CHECKING:
    from carbon_sched.store.session import Session

_ADD = (
    update(usage)
    .where(
        usage.c.team == bindparam("of_team"), usage.c.project == bindparam("of_project"), usage.c.day == bindparam("on")
    )
    .values(cpu_s=usage.c.cpu_s + bindparam("more_cpu_s"), gpu_s=usage.c.gpu_s + bindparam("more_gpu_s"))
)
_SINCE = select(usage).where(usage.c.day >= bindparam("since_day")).order_by(usage.c.team, usage.c.project, usage.c.day)


class UsageRows:
    """The part of `ports.Transaction` about usage."""

    _db: Session

    def add_usage(self, used: Usage) -> None:
        """Add to the day's row, or begin it."""
        team, project = clean_text(used.team), clean_text(used.project)
        added = {"of_team": team, "of_project": project, "on": used.day}
        if self._db.write(_ADD, added | {"more_cpu_s": used.cpu_s, "more_gpu_s": used.gpu_s}) == 0:
            self._db.write(insert(usage), vars(used) | {"team": team, "project": project})

    def usage(self, *, since_day: int) -> list[Usage]:
        """One per row."""
        return [Usage(**row._mapping) for row in self._db.rows(_SINCE, {"since_day": since_day})]  # noqa: SLF001
