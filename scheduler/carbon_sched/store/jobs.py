"""Jobs, their events and decisions in the database."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, func, insert, or_, select, tuple_, update

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.errors import Conflict, NotFound, StaleVersion
from carbon_sched.domain.job import Job, JobEvent, JobState
from carbon_sched.ports import EventRow, NewJob, Wait
from carbon_sched.store.codec import decision_from_json, decision_to_json, spec_from_json, spec_to_json
from carbon_sched.store.columns import clean_text
from carbon_sched.store.tables import ACCEPTED, AMENDED, FINISHED, LIVE, decisions, job_events, jobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row

    from carbon_sched.domain.decision import Decision
    from carbon_sched.domain.job import JobSpec
    from carbon_sched.ports import JobFilter
    from carbon_sched.store.session import Session

_OLDEST_FIRST = (jobs.c.submitted_at, jobs.c.job_id)
_NEWEST_FIRST = (jobs.c.submitted_at.desc(), jobs.c.job_id.desc())
_BY_ID = select(jobs).where(jobs.c.job_id == bindparam("job_id"))
_TAKEN = select(jobs).where(
    or_(
        jobs.c.idempotency_key.in_(bindparam("keys", expanding=True)),
        jobs.c.job_id.in_(bindparam("job_ids", expanding=True)),
    )
)
_INSERT, _INSERT_EVENT, _INSERT_DECISION = insert(jobs), insert(job_events), insert(decisions)
_WITHOUT_SPEC = select(*(column for column in jobs.c if column is not jobs.c.spec))
_LIVE = select(jobs.c.job_id, jobs.c.version).where(LIVE).order_by(*_OLDEST_FIRST)
_BY_IDS = _WITHOUT_SPEC.where(jobs.c.job_id.in_(bindparam("job_ids", expanding=True)))
_SPECS = select(jobs.c.job_id, jobs.c.spec).where(jobs.c.job_id.in_(bindparam("job_ids", expanding=True)))
_IDS_AT_ONCE = 50
"""Rows are read with the interpreter's lock held: few at a time, so that answers need not wait for a long queue."""
_AS_READ = and_(jobs.c.job_id == bindparam("as_read_id"), jobs.c.version == bindparam("as_read_version"))
_UPDATE = update(jobs).where(_AS_READ)
_AMENDED = ("version", "attempts", "not_before", "reason", "cause")
_AMEND = _UPDATE.values({name: bindparam(name) for name in _AMENDED})
_EVENTS = select(job_events).where(job_events.c.job_id == bindparam("job_id")).order_by(job_events.c.id)
_NEWEST_DECISION = (
    select(decisions.c.document)
    .where(decisions.c.job_id == bindparam("job_id"))
    .order_by(decisions.c.id.desc())
    .limit(1)
)
_DECISION_NUMBERS = (
    select(decisions.c.job_id, func.max(decisions.c.id).label("number"))
    .where(decisions.c.job_id.in_(bindparam("job_ids", expanding=True)))
    .group_by(decisions.c.job_id)
)
_NEWEST_DECISIONS = select(decisions.c.job_id, decisions.c.document).where(
    decisions.c.id.in_(_DECISION_NUMBERS.with_only_columns(func.max(decisions.c.id)))
)

_QUEUE = (
    select(jobs.c.job_id, func.row_number().over(order_by=(jobs.c.priority.desc(), *_OLDEST_FIRST)).label("place"))
    .where(LIVE, jobs.c.state == JobState.QUEUED.value)
    .subquery()
)
_PLACES = select(_QUEUE).where(_QUEUE.c.job_id.in_(bindparam("job_ids", expanding=True)))
_LIVE_COUNTS = select(jobs.c.state, func.count().label("jobs")).where(LIVE).group_by(jobs.c.state)
_OLDEST_QUEUED = (
    select(jobs.c.submitted_at).where(LIVE, jobs.c.state == JobState.QUEUED.value).order_by(*_OLDEST_FIRST).limit(1)
)
_NEWEST_CHANGE = select(
    select(func.max(job_events.c.id)).scalar_subquery().label("event"),
    select(func.max(decisions.c.id)).scalar_subquery().label("decision"),
)


class JobRows:
    """The part of `ports.Transaction` about jobs, events and decisions."""

    _db: Session

    def add_job(self, job: Job, *, idempotency_key: str | None, request_sha256: str) -> Job:
        """Insert, or return the job stored first under this key; see `ports.Transaction`."""
        return self.add_jobs([NewJob(job, idempotency_key, request_sha256)])[0]

    def add_jobs(self, new: Sequence[NewJob]) -> list[Job]:
        """One look for what is there, then one insert of jobs and one of events."""
        ids, keyed = self._taken(new)
        answers, stored = list[Job](), list[NewJob]()
        for one in new:
            known = None if one.idempotency_key is None else keyed.get(one.idempotency_key)
            if known is None:
                if one.job.job_id in ids:
                    raise Conflict(f"job {one.job.job_id} exists already. Draw another id")
                known = replace(one, job=replace(one.job, reason=clean_text(one.job.reason)))
                stored.append(known)
                ids.add(one.job.job_id)
                if one.idempotency_key is not None:
                    keyed[one.idempotency_key] = known
            elif known.request_sha256 != one.request_sha256:
                message = f"the idempotency key {one.idempotency_key!r} was used for another request"
                raise Conflict(f"{message} ({known.job.job_id}). Use a new key for a new request")
            answers.append(known.job)
        self._db.write_many(_INSERT, [_insert_values(one) for one in stored])
        self._db.write_many(_INSERT_EVENT, [vars(_accepted(one.job)) for one in stored])
        return answers

    def _taken(self, new: Sequence[NewJob]) -> tuple[set[str], dict[str, NewJob]]:
        """The ids of these jobs that are in use, and what is stored under their keys."""
        keys = [one.idempotency_key for one in new if one.idempotency_key is not None]
        rows = self._db.rows(_TAKEN, {"keys": keys, "job_ids": [one.job.job_id for one in new]})
        found = [NewJob(_job(row), row.idempotency_key, row.request_sha256) for row in rows]
        return {one.job.job_id for one in found}, {one.idempotency_key: one for one in found if one.idempotency_key}

    def job(self, job_id: str) -> Job:
        """By id, or NotFound."""
        row = self._db.first(_BY_ID, {"job_id": job_id})
        if row is None:
            raise NotFound(f"there is no job {job_id!r}. `carbon-sched list` shows those there are")
        return _job(row)

    def jobs(self, where: JobFilter, *, limit: int) -> list[Job]:
        """Newest first. Raises NotFound when `where.after` is no job."""
        conditions = _conditions(where)
        if where.after is not None:
            last = self.job(where.after)
            conditions.append(tuple_(*_OLDEST_FIRST) < (last.submitted_at, last.job_id))
        query = select(jobs).where(*conditions).order_by(*_NEWEST_FIRST).limit(limit)
        return [_job(row) for row in self._db.rows(query)]

    def live_jobs(self, known: Mapping[str, Job] = MappingProxyType({})) -> list[Job]:
        """Not in a final state, oldest first; those that are as they are known are not read again."""
        live = [(row.job_id, row.version) for row in self._db.rows(_LIVE)]
        same = {job_id: job for job_id, version in live if (job := known.get(job_id)) and job.version == version}
        found = same | self.jobs_by_id([job_id for job_id, _ in live if job_id not in same], known)
        return [found[job_id] for job_id, _ in live]

    def jobs_by_id(self, job_ids: Sequence[str], known: Mapping[str, Job] = MappingProxyType({})) -> dict[str, Job]:
        """One look, and another one for specs that are not known; so many jobs at a time."""
        pieces = (job_ids[first : first + _IDS_AT_ONCE] for first in range(0, len(job_ids), _IDS_AT_ONCE))
        return {job.job_id: job for piece in pieces for job in self._found(piece, known)}

    def _found(self, job_ids: Sequence[str], known: Mapping[str, Job]) -> list[Job]:
        rows = self._db.rows(_BY_IDS, {"job_ids": list(job_ids)})
        there = ((row, known.get(row.job_id)) for row in rows)
        specs = {row.job_id: job.spec for row, job in there if job and job.amendments == row.amendments}
        specs |= self._specs([row.job_id for row in rows if row.job_id not in specs])
        return [_job(row, specs[row.job_id]) for row in rows]

    def _specs(self, job_ids: list[str]) -> dict[str, JobSpec]:
        rows = self._db.rows(_SPECS, {"job_ids": job_ids}) if job_ids else ()
        return {row.job_id: spec_from_json(row.spec) for row in rows}

    def queue_positions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Counted by the database over the index of live jobs."""
        return {row.job_id: row.place for row in self._db.rows(_PLACES, {"job_ids": list(job_ids)})}

    def live_counts(self) -> dict[JobState, int]:
        """By state, over the index of live jobs."""
        return {JobState(row.state): row.jobs for row in self._db.rows(_LIVE_COUNTS)}

    def oldest_queued(self) -> datetime | None:
        """The submission time of the first one."""
        row = self._db.first(_OLDEST_QUEUED)
        return None if row is None else row.submitted_at

    def move_job(
        self,
        job: Job,
        event: JobEvent,
        *,
        at: datetime,
        reason: str = "",
        cause: Cause = Cause.NONE,
        exit_code: int | None = None,
    ) -> Job:
        """Apply `event` and append its row; guarded by `job.version`, the table of moves and the database's trigger."""
        moved = job.moved(event, at=at, reason=clean_text(reason), cause=cause, exit_code=exit_code)
        changes = {
            "state": moved.state.value,
            "event": event.value,
            "finished_at": moved.finished_at,
            "exit_code": moved.exit_code,
        }
        self._update(job, moved, changes)
        self._add_event(EventRow(job.job_id, at, event.value, moved.state.value, moved.reason, cause))
        return moved

    def amend_job(
        self,
        job: Job,
        *,
        attempts: int | None = None,
        not_before: datetime | None = None,
        reason: str | None = None,
        cause: Cause | None = None,
    ) -> Job:
        """Change what is no transition; None leaves a field as it is, but for `not_before`, which is always written."""
        amended = replace(
            job,
            version=job.version + 1,
            attempts=job.attempts if attempts is None else attempts,
            not_before=not_before,
            reason=job.reason if reason is None else clean_text(reason),
            cause=job.cause if cause is None else cause,
        )
        self._update(job, amended, {"attempts": amended.attempts, "not_before": amended.not_before})
        return amended

    def amend_spec(self, job: Job, spec: JobSpec, *, at: datetime, reason: str) -> Job:
        """Write the spec, count the amendment, and append its event."""
        amended = replace(job, version=job.version + 1, spec=spec, amendments=job.amendments + 1)
        self._update(job, amended, {"spec": spec_to_json(spec), "amendments": amended.amendments})
        self._add_event(EventRow(job.job_id, at, AMENDED, job.state.value, clean_text(reason)))
        return amended

    def tell_waiting(self, waits: Sequence[Wait]) -> None:
        """One statement, run for each."""
        if self._db.write_many(_AMEND, [_amendment(wait) for wait in waits]) < len(waits):
            raise StaleVersion("one of the waiting jobs changed since it was read. Load them again")

    def events(self, job_id: str) -> list[EventRow]:
        """Oldest first."""
        rows = self._db.rows(_EVENTS, {"job_id": job_id})
        return [EventRow(row.job_id, row.at, row.event, row.state, row.reason, row.cause) for row in rows]

    def newest_change(self) -> tuple[int, int]:
        """The last keys of events and decisions: both are counted up and never removed."""
        row = self._db.first(_NEWEST_CHANGE)
        return (0, 0) if row is None else (row.event or 0, row.decision or 0)

    def put_decisions(self, new: Sequence[Decision]) -> None:
        """Append."""
        rows = [{"job_id": one.job_id, "decided_at": one.decided_at, "document": decision_to_json(one)} for one in new]
        self._db.write_many(_INSERT_DECISION, rows)

    def decision(self, job_id: str) -> Decision | None:
        """The newest one."""
        row = self._db.first(_NEWEST_DECISION, {"job_id": job_id})
        return None if row is None else decision_from_json(row.document)

    def decisions(self, job_ids: Sequence[str]) -> dict[str, Decision]:
        """By one look."""
        rows = self._db.rows(_NEWEST_DECISIONS, {"job_ids": list(job_ids)})
        return {row.job_id: decision_from_json(row.document) for row in rows}

    def decision_numbers(self, job_ids: Sequence[str]) -> dict[str, int]:
        """The key of the newest one of each."""
        return {row.job_id: row.number for row in self._db.rows(_DECISION_NUMBERS, {"job_ids": list(job_ids)})}

    def _update(self, job: Job, new: Job, changes: dict[str, Any]) -> None:
        values = changes | {"version": new.version, "reason": new.reason, "cause": new.cause}
        as_read = {"as_read_id": job.job_id, "as_read_version": job.version}
        if self._db.write(_UPDATE.values({name: bindparam(name) for name in values}), values | as_read) == 0:
            self.job(job.job_id)  # NotFound where it is that
            raise StaleVersion(f"job {job.job_id} changed since it was read (version {job.version}). Load it again")

    def _add_event(self, row: EventRow) -> None:
        self._db.write(_INSERT_EVENT, vars(row))


def _amendment(wait: Wait) -> dict[str, Any]:
    job = wait.job
    return {
        "as_read_id": job.job_id,
        "as_read_version": job.version,
        "version": job.version + 1,
        "attempts": job.attempts,
        "not_before": wait.not_before,
        "reason": clean_text(wait.reason),
        "cause": wait.cause,
    }


def _accepted(job: Job) -> EventRow:
    return EventRow(job.job_id, job.submitted_at, ACCEPTED, job.state.value, job.reason)


def _conditions(where: JobFilter) -> list[ColumnElement[bool]]:
    exact = [
        (jobs.c.team, where.team),
        (jobs.c.project, where.project),
        (jobs.c.phase, where.phase),
        (jobs.c.cluster, where.cluster),
        (jobs.c.name, where.name),
    ]
    conditions: list[ColumnElement[bool]] = [column == value for column, value in exact if value is not None]
    if where.teams is not None:
        conditions.append(jobs.c.team.in_(sorted(where.teams)))
    if where.states:
        conditions.append(jobs.c.state.in_(sorted(state.value for state in where.states)))
        kinds = {state.final for state in where.states}
        if len(kinds) == 1:  # said again in the words of the partial indexes, so that they can be used
            conditions.append(FINISHED if kinds == {True} else LIVE)
    if where.since is not None:
        conditions.append(jobs.c.submitted_at >= where.since)
    if where.until is not None:
        conditions.append(jobs.c.submitted_at < where.until)
    return conditions


def _insert_values(new: NewJob) -> dict[str, Any]:
    job, spec = new.job, new.job.spec
    return {
        "idempotency_key": new.idempotency_key,
        "request_sha256": new.request_sha256,
        "job_id": job.job_id,
        "state": job.state.value,
        "event": ACCEPTED,
        "version": job.version,
        "reason": job.reason,
        "cause": job.cause,
        "priority": job.priority,
        "attempts": job.attempts,
        "amendments": job.amendments,
        "submitted_at": job.submitted_at,
        "not_before": job.not_before,
        "finished_at": job.finished_at,
        "exit_code": job.exit_code,
        "spec": spec_to_json(spec),
        "name": spec.name,
        "team": spec.team,
        "project": spec.project,
        "phase": spec.phase.value,
    }


def _job(row: Row[Any], spec: JobSpec | None = None) -> Job:
    return Job(
        job_id=row.job_id,
        spec=spec or spec_from_json(row.spec),
        state=JobState(row.state),
        submitted_at=row.submitted_at,
        version=row.version,
        reason=row.reason,
        cause=row.cause,
        priority=row.priority,
        attempts=row.attempts,
        amendments=row.amendments,
        not_before=row.not_before,
        finished_at=row.finished_at,
        exit_code=row.exit_code,
    )
