"""Routes for jobs that are submitted again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from carbon_sched.api.access import Reader, Submitter
from carbon_sched.api.context import Ctx
from carbon_sched.api.jobs import admitted
from carbon_sched.domain.errors import NotFound
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.wire import ScheduleRequest, ScheduleView

if TYPE_CHECKING:
    from carbon_sched.domain.schedule import Schedule

router = APIRouter(prefix="/v1")


@router.post("/schedules", status_code=201)
def add_schedule(request: ScheduleRequest, context: Ctx, caller: Submitter) -> ScheduleView:
    """Submit the request whenever `cron` is due; refused where the request would be refused now."""
    job = admitted(context, caller, request["request"])
    zone = request.get("zone", "UTC")
    return _view(context.schedules.add(job, cron=request["cron"], zone=zone, submitter=caller.name))


@router.get("/schedules")
def list_schedules(context: Ctx, caller: Reader) -> list[ScheduleView]:
    """Those of the caller's teams that were not stopped, oldest first."""
    return [_view(one) for one in context.schedules.running() if caller.sees(one.team)]


@router.delete("/schedules/{schedule_id}")
def stop_schedule(schedule_id: str, context: Ctx, caller: Submitter) -> ScheduleView:
    """Submit no more of it; jobs that were submitted go on."""
    with context.store.transaction(write=False) as tx:
        known = tx.schedule(schedule_id)
    if not caller.sees(known.team):
        raise NotFound(f"there is no schedule {schedule_id!r}. `carbon-sched schedules list` shows those there are")
    return _view(context.schedules.stop(schedule_id))


def _view(schedule: Schedule) -> ScheduleView:
    return {
        "schedule_id": schedule.schedule_id,
        "name": schedule.name,
        "team": schedule.team,
        "submitter": schedule.submitter,
        "cron": schedule.cron,
        "zone": schedule.zone,
        "created_at": to_rfc3339(schedule.created_at),
        "next_at": to_rfc3339(schedule.next_at),
        "last_job": schedule.last_job or None,
        "problem": schedule.problem,
        "stopped_at": None if schedule.stopped_at is None else to_rfc3339(schedule.stopped_at),
    }
