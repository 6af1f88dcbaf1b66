"""Attempts in the database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from carbon_sched.domain.errors import Conflict, NotFound, StaleVersion
from carbon_sched.domain.job import Attempt
from carbon_sched.store.columns import clean_text
from carbon_sched.store.tables import OPEN, UNCOLLECTED, attempts, jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from carbon_sched.store.session import Session

_OF_JOB = attempts.c.job_id == bindparam("job_id")
_BY_ID = select(attempts).where(attempts.c.attempt_id == bindparam("attempt_id"))
_OLDEST_FIRST = (attempts.c.opened_at, attempts.c.number, attempts.c.attempt_id)
_IN_TURN = (attempts.c.number,)
"""Those of one job: their times may say otherwise where the clock was set back."""
_OF_JOBS = select(attempts).where(attempts.c.job_id.in_(bindparam("job_ids", expanding=True))).order_by(*_IN_TURN)
_OPEN_OF_JOB = select(attempts.c.attempt_id).where(_OF_JOB, OPEN)
_WRITTEN_ONCE = {"attempt_id", "job_id", "number"}
_CHANGING: dict[str, Any] = {c.name: bindparam(c.name) for c in attempts.columns if c.name not in _WRITTEN_ONCE}
_UPDATE = (
    update(attempts)
    .where(attempts.c.attempt_id == bindparam("as_read_id"), attempts.c.version == bindparam("as_read_version"))
    .values(_CHANGING)
)
_SHOW_CLUSTER = update(jobs).where(jobs.c.job_id == bindparam("of_job")).values(cluster=bindparam("its_cluster"))


class AttemptRows:
    """The part of `ports.Transaction` about attempts."""

    _db: Session

    def add_attempt(self, attempt: Attempt) -> None:
        """Insert; Conflict while the job has an open one."""
        other = self._db.first(_OPEN_OF_JOB, {"job_id": attempt.job_id})
        if other is not None:
            raise Conflict(f"job {attempt.job_id} has the open attempt {other.attempt_id}. End it first")
        self._db.write(insert(attempts), vars(attempt))
        self._db.write(_SHOW_CLUSTER, {"of_job": attempt.job_id, "its_cluster": attempt.cluster})

    def attempt(self, attempt_id: str) -> Attempt:
        """By id, or NotFound."""
        row = self._db.first(_BY_ID, {"attempt_id": attempt_id})
        if row is None:
            raise NotFound(f"there is no attempt {attempt_id!r}")
        return _attempt(row)

    def attempts(
        self, *, job_id: str | None = None, open_only: bool = False, uncollected_only: bool = False
    ) -> list[Attempt]:
        """Oldest first, those of one job by number; the conditions hold together."""
        query = select(attempts).order_by(*(_OLDEST_FIRST if job_id is None else _IN_TURN))
        if job_id is not None:
            query = query.where(attempts.c.job_id == job_id)
        if open_only:
            query = query.where(OPEN)
        if uncollected_only:
            query = query.where(UNCOLLECTED)
        return [_attempt(row) for row in self._db.rows(query)]

    def attempts_of(self, job_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        """By one look, oldest first."""
        found: dict[str, list[Attempt]] = {}
        for row in self._db.rows(_OF_JOBS, {"job_ids": list(job_ids)}):
            found.setdefault(row.job_id, []).append(_attempt(row))
        return found

    def put_attempt(self, attempt: Attempt) -> Attempt:
        """Write all but identity and number, guarded by `attempt.version`."""
        new = replace(attempt, version=attempt.version + 1, reason=clean_text(attempt.reason))
        values = {name: value for name, value in vars(new).items() if name in _CHANGING}
        as_read = {"as_read_id": attempt.attempt_id, "as_read_version": attempt.version}
        if self._db.write(_UPDATE, values | as_read) == 0:
            self.attempt(attempt.attempt_id)  # NotFound where it is that
            message = f"attempt {attempt.attempt_id} changed since it was read (version {attempt.version})"
            raise StaleVersion(f"{message}. Load it again")
        return new


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name; the columns are the fields
