"""Jobs that are submitted again and again. The leader submits each moment's job once, whatever dies meanwhile.

A moment's job is submitted under a key of its own, and only then is the schedule moved on: a server that dies between
the two is followed by one that submits under the same key, which is the same job. Moments that passed while no server
ran are not made up for one by one: the last of them is submitted, late, and the others are left out.

A schedule outlives the token that made it, not its maker's right to submit: that is asked at every moment.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import CarbonSchedError, InvalidInput
from carbon_sched.domain.schedule import Schedule
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.service.cron import last_due, next_due

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.ports import Clock, Ids, Store, Vault
    from carbon_sched.service.accept import Accept
    from carbon_sched.service.access import Access
    from carbon_sched.wire import JobRequest

log = logging.getLogger(__name__)

LOOK_S = 10.0
"""A schedule that another server took in is seen by then."""
MOMENTS = ("earliest", "deadline")


class Schedules:
    """Takes schedules in, and submits what is due; `step` is a loop of the leader's."""

    def __init__(self, store: Store, accept: Accept, access: Access, vault: Vault, clock: Clock, ids: Ids) -> None:
        self._store, self._accept, self._access, self._vault = store, accept, access, vault
        self._clock, self._ids = clock, ids

    def add(self, request: JobRequest, *, cron: str, zone: str, submitter: str) -> Schedule:
        """Keep a schedule of a request that would be accepted now; its first job comes at the next moment.

        Raises InvalidInput for a request that names a moment itself, which the second job would miss.
        """
        for field in MOMENTS:
            if request.get(field) is not None:
                remedy = "Leave it out; --max-delay says how long each job may wait"
                raise InvalidInput(field, request.get(field), "does not go with a schedule", remedy)
        spec, now = self._accept.spec(request, submitter=submitter), self._clock.now()
        schedule = Schedule(
            schedule_id=self._ids.job_id(now),
            cron=cron,
            zone=zone,
            name=spec.name,
            team=spec.team,
            submitter=submitter,
            sealed_request=self._vault.seal(json.dumps(request)),
            created_at=now,
            next_at=next_due(cron, zone, now),
        )
        with self._store.transaction() as tx:
            tx.add_schedule(schedule)
        return schedule

    def running(self) -> list[Schedule]:
        """Those that were not stopped, oldest first."""
        with self._store.transaction(write=False) as tx:
            return tx.schedules()

    def stop(self, schedule_id: str) -> Schedule:
        """Submit no more of it; jobs that were submitted go on. NotFound where there is none."""
        with self._store.transaction() as tx:
            tx.stop_schedule(schedule_id, at=self._clock.now())
            return tx.schedule(schedule_id)

    def step(self) -> float:
        """Submit what is due; returns the seconds until the next look."""
        now = self._clock.now()
        for schedule in self.running():
            if schedule.next_at <= now:
                self._run(schedule, now)
        waits = [(schedule.next_at - self._clock.now()).total_seconds() for schedule in self.running()]
        return min([LOOK_S, *(max(0.0, wait) for wait in waits)])

    def _run(self, schedule: Schedule, now: datetime) -> None:
        due, following = last_due(schedule.cron, schedule.zone, schedule.next_at, now)
        job_id, problem = "", ""
        try:
            job_id = self._submit(schedule, due)
        except CarbonSchedError as error:
            if error.retryable:
                raise
            problem = f"{to_rfc3339(due)}: {error}"
            log.warning("scheduled job refused schedule=%s: %s", schedule.schedule_id, error)
        with self._store.transaction() as tx:
            tx.advance_schedule(schedule, next_at=following, last_job=job_id, problem=problem)

    def _submit(self, schedule: Schedule, due: datetime) -> str:
        self._access.require_submitter(schedule.submitter, schedule.team)
        request: JobRequest = json.loads(self._vault.unseal(schedule.sealed_request))
        marks = {"schedule": schedule.schedule_id, "schedule-due": to_rfc3339(due)}
        request["metadata"] = {**request.get("metadata", {}), **marks}
        # with line breaks, as no header has them: no caller's own key is like it
        key = f"schedule\n{schedule.schedule_id}\n{to_rfc3339(due)}"
        return self._accept.submit(request, submitter=schedule.submitter, idempotency_key=key).job_id
