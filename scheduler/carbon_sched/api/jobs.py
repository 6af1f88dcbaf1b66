"""Routes for jobs and the bundles they need."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import anyio.from_thread
from fastapi import APIRouter, Header, Query, Request, Response

from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.instants import aware
from carbon_sched.api.views import decision_view, job_view
from carbon_sched.domain.errors import InvalidInput, NotFound
from carbon_sched.domain.job import Job, JobState
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ports import JobFilter
from carbon_sched.wire import DecisionView, JobList, JobRequest, JobView, LogChunk, Receipt

router = APIRouter()

MAX_PAGE = 1000
MAX_WAIT_S = 60.0


def _view(context: Context, job_id: str) -> JobView:
    with context.store.transaction(write=False) as tx:
        return job_view(tx.job(job_id), tx.attempts(job_id=job_id))


@router.head("/bundles/{sha256}")
def has_bundle(sha256: str, context: Ctx) -> Response:
    """200 when the bundle is stored here, 404 when it must be uploaded."""
    return Response(status_code=200 if context.bundles.has(sha256) else 404)


@router.put("/bundles/{sha256}", status_code=204)
async def put_bundle(sha256: str, request: Request, context: Ctx) -> Response:
    """Store the zip in the body; refused when it does not hash to `sha256` or is unsafe to unpack."""
    stream = request.stream()

    def chunks() -> Iterator[bytes]:
        while chunk := anyio.from_thread.run(_next, stream):
            yield chunk

    await anyio.to_thread.run_sync(lambda: context.bundles.put(sha256, chunks()))
    return Response(status_code=204)


async def _next(stream: Any) -> bytes:
    async for chunk in stream:
        if chunk:
            return bytes(chunk)
    return b""


@router.post("/jobs", status_code=202, response_model=None)
def submit(
    request: JobRequest,
    response: Response,
    context: Ctx,
    dry_run: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobView | DecisionView:
    """Accept a job; with `dry_run`, say what would be decided and store nothing."""
    if dry_run:
        spec = context.accept.spec(request, submitter=context.submitter)
        response.status_code = 200
        return decision_view(context.decide.preview(spec))
    job = context.accept.submit(request, submitter=context.submitter, idempotency_key=idempotency_key)
    return _view(context, job.job_id)


@router.get("/jobs")
def list_jobs(
    context: Ctx,
    state: Annotated[list[str] | None, Query()] = None,
    team: str | None = None,
    project: str | None = None,
    phase: str | None = None,
    cluster: str | None = None,
    name: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> JobList:
    """Newest first."""
    where = JobFilter(
        frozenset(_state(value) for value in state or []),
        team,
        project,
        phase,
        cluster,
        name,
        aware("since", since),
        aware("until", until),
        after,
    )
    with context.store.transaction(write=False) as tx:
        jobs = tx.jobs(where, limit=limit)
        views = [job_view(job, tx.attempts(job_id=job.job_id)) for job in jobs]
    return {"jobs": views, "next": jobs[-1].job_id if len(jobs) == limit else None}


def _state(value: str) -> JobState:
    try:
        return JobState(value)
    except ValueError:
        known = ", ".join(state.value for state in JobState)
        raise InvalidInput("state", value, "is not known", f"Use one of: {known}") from None


@router.get("/jobs/{job_id}")
def show_job(
    job_id: str,
    context: Ctx,
    wait_version: int | None = None,
    timeout_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 25.0,
) -> JobView:
    """One job; with `wait_version`, answers once it is newer than that (or after `timeout_s`)."""
    until = context.clock.monotonic() + timeout_s
    while True:
        generation = context.signals.generation
        view = _view(context, job_id)
        left = until - context.clock.monotonic()
        if wait_version is None or view["version"] > wait_version or left <= 0:
            return view
        context.signals.wait_for_change(generation, left)


@router.get("/jobs/{job_id}/decision")
def show_decision(job_id: str, context: Ctx) -> DecisionView:
    """Why the job is where it is, or waits: candidates and numbers."""
    with context.store.transaction(write=False) as tx:
        tx.job(job_id)
        decision = tx.decision(job_id)
    if decision is None:
        message = f"job {job_id} has not been planned yet; ask again in a moment"
        raise NotFound(message)
    return decision_view(decision)


@router.get("/jobs/{job_id}/receipt")
def show_receipt(job_id: str, context: Ctx) -> Receipt:
    """Energy and emissions of the job, computed from the ledger."""
    return context.statements.receipt(job_id)


@router.get("/jobs/{job_id}/events")
def show_events(job_id: str, context: Ctx) -> list[dict[str, str]]:
    """Every transition, oldest first."""
    with context.store.transaction(write=False) as tx:
        tx.job(job_id)
        rows = tx.events(job_id)
    return [{"at": to_rfc3339(r.at), "event": r.event, "state": r.state, "reason": r.reason} for r in rows]


@router.get("/jobs/{job_id}/logs")
def read_logs(
    job_id: str,
    context: Ctx,
    attempt: Annotated[int | None, Query(ge=0)] = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0.0,
) -> LogChunk:
    """Output of an attempt (the newest) from byte `offset` on, then of the next one; waits up to `wait_s` for more."""
    return context.logs.read(job_id, offset, wait_s, attempt)


@router.post("/jobs/{job_id}/stop", status_code=202)
def stop(job_id: str, context: Ctx) -> JobView:
    """Stop the job wherever it is; a job that ended already is left as it is."""
    job: Job = context.accept.stop(job_id)
    return _view(context, job.job_id)
