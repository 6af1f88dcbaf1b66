"""What Ray's job protocol needs beside the queue: submission ids that people chose, and packages by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, select, update

from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.store.tables import jobs, ray_jobs, ray_packages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.store.session import Session

_BY_NAME = select(ray_jobs.c.job_id).where(ray_jobs.c.submission_id == bindparam("submission_id"))
_NAME_OF = select(ray_jobs).where(ray_jobs.c.job_id == bindparam("job_id"))
_JOB = select(jobs.c.job_id).where(jobs.c.job_id == bindparam("job_id"))
_THIS = ray_jobs.c.job_id == bindparam("its_id")
_PACKAGE = select(ray_packages.c.sha256).where(
    ray_packages.c.owner == bindparam("owner"), ray_packages.c.name == bindparam("name")
)
_REPLACE_PACKAGE = update(ray_packages).where(
    ray_packages.c.owner == bindparam("its_owner"), ray_packages.c.name == bindparam("its_name")
)


class RayRows:
    """The part of `ports.Transaction` about Ray's job protocol."""

    _db: Session

    def name_for_ray(self, job_id: str, submission_id: str) -> None:
        """Conflict where another job answers to it."""
        taken = self._db.first(_BY_NAME, {"submission_id": submission_id}) or self._db.first(
            _JOB, {"job_id": submission_id}
        )
        if taken is not None:
            message = f"Job with submission_id {submission_id} already exists. Please use a different submission_id."
            raise Conflict(message)
        self._db.write(insert(ray_jobs), {"job_id": job_id, "submission_id": submission_id})

    def job_id_for_ray(self, submission_id: str) -> str:
        """By a given name, else by its own id."""
        named = self._db.first(_BY_NAME, {"submission_id": submission_id})
        if named is not None:
            return str(named.job_id)
        given = self._db.first(_NAME_OF, {"job_id": submission_id})
        deleted = given is not None and given.deleted_at is not None
        if deleted or self._db.first(_JOB, {"job_id": submission_id}) is None:
            raise NotFound(f"Job {submission_id} does not exist")
        return submission_id

    def ray_names(self, job_ids: Sequence[str]) -> dict[str, str | None]:
        """None for those deleted."""
        rows = self._db.rows(select(ray_jobs).where(ray_jobs.c.job_id.in_(job_ids)))
        return {row.job_id: row.submission_id for row in rows}

    def hide_from_ray(self, job_id: str, *, at: datetime) -> None:
        """Its submission id is free again."""
        hidden = {"submission_id": None, "deleted_at": at}
        if self._db.write(update(ray_jobs).where(_THIS).values(hidden), {"its_id": job_id}) == 0:
            self._db.write(insert(ray_jobs), {"job_id": job_id, **hidden})

    def put_package(self, owner: str, name: str, *, sha256: str, at: datetime) -> None:
        """Insert or replace."""
        values = {"sha256": sha256, "stored_at": at}
        if self._db.write(_REPLACE_PACKAGE.values(values), {"its_owner": owner, "its_name": name}) == 0:
            self._db.write(insert(ray_packages), {"owner": owner, "name": name, **values})

    def package(self, owner: str, name: str) -> str | None:
        """The hash of its content."""
        row = self._db.first(_PACKAGE, {"owner": owner, "name": name})
        return None if row is None else str(row.sha256)
