"""Routes for jobs and the bundles they need."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from carbon_sched.api.access import Reader, Submitter
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.following import log_chunks, news, upload
from carbon_sched.api.instants import aware
from carbon_sched.api.views import decision_view, job_view
from carbon_sched.domain.access import Principal
from carbon_sched.domain.errors import InvalidInput, NotFound
from carbon_sched.domain.job import JobState, Phase
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ports import JobFilter
from carbon_sched.service.access import visible
from carbon_sched.service.boundaries import key_of
from carbon_sched.service.recall import Resolution
from carbon_sched.service.spec import label
from carbon_sched.wire import (
    DecisionView,
    JobAmendment,
    JobList,
    JobRequest,
    JobView,
    LogChunk,
    Receipt,
    ResolveRequest,
)

router = APIRouter(prefix="/v1")

MAX_PAGE = 1000
MAX_WAIT_S = 60.0


def view_of(context: Context, caller: Principal, job_id: str) -> JobView:
    """The job as the caller may see it; NotFound where they may not."""
    with context.store.transaction(write=False) as tx:
        job = visible(tx, caller, job_id)
        place = tx.queue_positions([job_id]).get(job_id) if job.state is JobState.QUEUED else None
        return job_view(job, tx.attempts(job_id=job_id), place, tx.batch_states([job_id]).get(job_id, ()))


def require_visible(context: Context, caller: Principal, job_id: str) -> None:
    """Raise NotFound for a job that is not there, or not the caller's to see."""
    with context.store.transaction(write=False) as tx:
        visible(tx, caller, job_id)


def admitted(context: Context, caller: Principal, request: JobRequest) -> JobRequest:
    """The request within the caller's boundaries: their team, its secrets, and only jobs they see to wait for."""
    for dependency in request.get("after", []):
        require_visible(context, caller, dependency.partition(":")[0])
    return context.boundaries.request(request, caller)


@router.head("/bundles/{sha256}")
def has_bundle(sha256: str, context: Ctx, _caller: Submitter) -> Response:
    """200 when the bundle is stored here, 404 when it must be uploaded."""
    return Response(status_code=200 if context.bundles.has(sha256) else 404)


@router.put("/bundles/{sha256}", status_code=204)
async def put_bundle(sha256: str, request: Request, context: Ctx, _caller: Submitter) -> Response:
    """Store the zip in the body; refused when it does not hash to `sha256` or is unsafe to unpack."""
    await upload(request, lambda chunks: context.bundles.put(sha256, chunks))
    return Response(status_code=204)


@router.post("/jobs", status_code=202, response_model=None)
def submit(
    request: JobRequest,
    context: Ctx,
    caller: Submitter,
    dry_run: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JSONResponse:
    """Accept a job; with `dry_run`, say what would be decided and store nothing."""
    request = admitted(context, caller, request)
    if dry_run:
        spec = context.accept.spec(request, submitter=caller.name)
        return JSONResponse(decision_view(context.decide.preview(spec)))
    key = key_of(caller, idempotency_key)
    job = context.accept.submit(request, submitter=caller.name, idempotency_key=key)
    view = view_of(context, caller, job.job_id) if job.attempts else job_view(job, ())
    return JSONResponse(view, status_code=202)


@router.get("/jobs")
def list_jobs(
    context: Ctx,
    caller: Reader,
    state: Annotated[list[str] | None, Query()] = None,
    team: str | None = None,
    project: str | None = None,
    phase: Phase | None = None,
    cluster: str | None = None,
    name: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> JobList:
    """Newest first."""
    where = JobFilter(
        states=frozenset(_state(value) for value in state or []),
        team=team,
        project=project,
        phase=phase and phase.value,
        cluster=cluster,
        name=name,
        since=aware("since", since),
        until=aware("until", until),
        after=after,
        teams=caller.teams,
    )
    with context.store.transaction(write=False) as tx:
        if after is not None:
            visible(tx, caller, after)
        jobs = tx.jobs(where, limit=limit)
        queued = [job.job_id for job in jobs if job.state is JobState.QUEUED]
        places = tx.queue_positions(queued) if queued else {}
        ids = [job.job_id for job in jobs]
        batches, attempts = tx.batch_states(ids), tx.attempts_of(ids)
    views = [
        job_view(job, attempts.get(job.job_id, ()), places.get(job.job_id), batches.get(job.job_id, ())) for job in jobs
    ]
    return {"jobs": views, "next": jobs[-1].job_id if len(jobs) == limit else None}


def _state(value: str) -> JobState:
    try:
        return JobState(value)
    except ValueError:
        known = ", ".join(state.value for state in JobState)
        raise InvalidInput("state", value, "is not known", f"Use one of: {known}") from None


@router.get("/jobs/{job_id}")
async def show_job(
    job_id: str,
    context: Ctx,
    caller: Reader,
    wait_version: int | None = None,
    timeout_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 25.0,
) -> JobView:
    """One job; with `wait_version`, answers once it is newer than that (or after `timeout_s`)."""
    until = context.clock.monotonic() + timeout_s
    while True:
        generation = context.signals.generation
        view = await run_in_threadpool(view_of, context, caller, job_id)
        left = until - context.clock.monotonic()
        if wait_version is None or view["version"] > wait_version or left <= 0:
            return view
        await news(context.signals, generation, left)


@router.get("/jobs/{job_id}/decision")
def show_decision(job_id: str, context: Ctx, caller: Reader) -> DecisionView:
    """Why the job is where it is, or waits: candidates and numbers."""
    with context.store.transaction(write=False) as tx:
        visible(tx, caller, job_id)
        decision = tx.decision(job_id)
    if decision is None:
        message = f"job {job_id} has not been planned yet; ask again in a moment"
        raise NotFound(message)
    return decision_view(decision)


@router.get("/jobs/{job_id}/receipt")
def show_receipt(job_id: str, context: Ctx, caller: Reader) -> Receipt:
    """Energy and emissions of the job, computed from the ledger."""
    require_visible(context, caller, job_id)
    return context.statements.receipt(job_id)


@router.get("/jobs/{job_id}/events")
def show_events(job_id: str, context: Ctx, caller: Reader) -> list[dict[str, str]]:
    """Every transition, oldest first."""
    with context.store.transaction(write=False) as tx:
        visible(tx, caller, job_id)
        rows = tx.events(job_id)
    return [
        {"at": to_rfc3339(r.at), "event": r.event, "state": r.state, "reason": r.reason, "cause": r.cause.value}
        for r in rows
    ]


@router.get("/jobs/{job_id}/logs")
async def read_logs(
    job_id: str,
    context: Ctx,
    caller: Reader,
    attempt: Annotated[int | None, Query(ge=0)] = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0.0,
) -> LogChunk:
    """Output of an attempt (the newest) from byte `offset` on, then of the next one; waits up to `wait_s` for more."""
    await run_in_threadpool(require_visible, context, caller, job_id)
    until = context.clock.monotonic() + wait_s
    async for chunk in log_chunks(context, job_id, attempt=attempt, offset=offset):
        if chunk["text"] or context.clock.monotonic() >= until:
            break
    return chunk


@router.post("/jobs/{job_id}/stop", status_code=202)
def stop(job_id: str, context: Ctx, caller: Submitter) -> JobView:
    """Stop the job wherever it is; a job that ended already is left as it is."""
    require_visible(context, caller, job_id)
    context.accept.stop(job_id)
    return view_of(context, caller, job_id)


@router.patch("/jobs/{job_id}")
def amend(job_id: str, amendment: JobAmendment, context: Ctx, caller: Submitter) -> JobView:
    """Change what a job asks for: that it starts now, or how long it may take; what is so already stays as it is."""
    require_visible(context, caller, job_id)
    context.amend.amend(job_id, amendment, by=caller.name)
    return view_of(context, caller, job_id)


@router.post("/jobs/{job_id}/resolve")
def resolve(job_id: str, request: ResolveRequest, context: Ctx, caller: Submitter) -> JobView:
    """Say what became of a lost job; `requeue` has it run again, which only a person can answer for."""
    require_visible(context, caller, job_id)
    try:
        resolution = Resolution(request["resolution"])
    except ValueError:
        known = ", ".join(one.value for one in Resolution)
        raise InvalidInput("resolution", request["resolution"], "is not known", f"Use one of: {known}") from None
    note = label("note", request.get("note", ""))
    context.recall.resolve(job_id, resolution, by=caller.name, note=note)
    return view_of(context, caller, job_id)
