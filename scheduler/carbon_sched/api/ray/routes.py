"""Routes of Ray's job protocol."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import anyio
from fastapi import APIRouter, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool

from carbon_sched.api.access import Reader, Submitter
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.following import log_chunks, upload
from carbon_sched.api.jobs import admitted
from carbon_sched.api.ray.translate import Details, Submission, details, request_of, submission_id_of
from carbon_sched.domain.access import Principal
from carbon_sched.domain.errors import Conflict, InvalidInput, NotFound
from carbon_sched.domain.job import Job
from carbon_sched.ports import JobFilter, Transaction
from carbon_sched.service.access import visible

router = APIRouter(prefix="/api", tags=["Ray's job protocol"])

PROTOCOL = "4"
RAY_VERSION = "2.60.0"
"""The release whose protocol this is; Ray's clients ask whether the server knows what they want to send."""
LISTED = 1000
"""Ray lists without pages; the newest of this many are told."""
PACKAGE = re.compile(r"[A-Za-z0-9_.+-]{1,255}")


@router.get("/version")
def version(_caller: Reader) -> dict[str, str]:
    """What Ray's clients ask first."""
    return {"version": PROTOCOL, "ray_version": RAY_VERSION, "ray_commit": "", "session_name": "carbon-sched"}


@router.get("/packages/{protocol}/{name}")
def has_package(protocol: str, name: str, context: Ctx, caller: Submitter) -> Response:
    """200 when this package of the caller is stored here, 404 when it must be uploaded."""
    if _content(context, caller, _package(protocol, name)) is None:
        raise NotFound(f"Package {protocol}://{name} does not exist")
    return Response()


@router.put("/packages/{protocol}/{name}")
async def put_package(protocol: str, name: str, request: Request, context: Ctx, caller: Submitter) -> Response:
    """Store the zip in the body under the caller's name for it."""
    named = _package(protocol, name)

    def keep(sha256: str) -> None:
        with context.store.transaction() as tx:
            tx.put_package(caller.name, named, sha256=sha256, at=context.clock.now())

    await upload(request, lambda chunks: keep(context.bundles.receive(chunks)))
    return Response()


@router.post("/jobs/")
def submit(body: Submission, context: Ctx, caller: Submitter) -> dict[str, str]:
    """Accept a job; it waits its turn like any other. Hints are metadata keys `carbon-sched.*`."""
    chosen = submission_id_of(body)
    request = request_of(body, context.clock.now(), _contents(context, caller))
    request = admitted(context, caller, request)
    job = context.accept.submit(request, submitter=caller.name, idempotency_key=None, ray_id=chosen)
    submission_id = chosen or job.job_id
    return {"job_id": submission_id, "submission_id": submission_id}


@router.get("/jobs/")
def list_jobs(context: Ctx, caller: Reader) -> list[Details]:
    """The newest jobs, however they were submitted."""
    with context.store.transaction(write=False) as tx:
        jobs = tx.jobs(JobFilter(teams=caller.teams), limit=LISTED)
        names = tx.ray_names([job.job_id for job in jobs])
    shown = ((job, names.get(job.job_id, job.job_id)) for job in jobs)
    return [details(job, name) for job, name in shown if name is not None]


@router.get("/jobs/{submission_id}")
def show_job(submission_id: str, context: Ctx, caller: Reader) -> Details:
    """One job, by the id that was chosen or by ours."""
    with context.store.transaction(write=False) as tx:
        job = _job(tx, caller, submission_id)
        attempts = tx.attempts(job_id=job.job_id)
    return details(job, submission_id, attempts[-1] if attempts else None)


@router.post("/jobs/{submission_id}/stop")
def stop(submission_id: str, context: Ctx, caller: Submitter) -> dict[str, bool]:
    """Stop the job wherever it is; false for one that ended already."""
    job = _find(context, caller, submission_id)
    if not job.state.final:
        context.accept.stop(job.job_id)
    return {"stopped": not job.state.final}


@router.delete("/jobs/{submission_id}")
def delete(submission_id: str, context: Ctx, caller: Submitter) -> dict[str, bool]:
    """Take an ended job off Ray's list. What it did stays in the queue's own list and in the ledger."""
    with context.store.transaction() as tx:
        job = _job(tx, caller, submission_id)
        if not job.state.final:
            raise Conflict(f"Attempted to delete job {submission_id!r}, but it is in a non-terminal state")
        tx.hide_from_ray(job.job_id, at=context.clock.now())
    return {"deleted": True}


@router.get("/jobs/{submission_id}/logs")
def read_logs(submission_id: str, context: Ctx, caller: Reader) -> dict[str, str]:
    """All that the newest attempt wrote so far."""
    job, pieces, offset, attempt = _find(context, caller, submission_id), [], 0, None
    while True:
        chunk = context.logs.read(job.job_id, offset, 0.0, attempt)
        pieces.append(chunk["text"])
        attempt = chunk["attempt"]
        if chunk["final"] or chunk["next_offset"] == offset:
            return {"logs": "".join(pieces)}
        offset = chunk["next_offset"]


@router.websocket("/jobs/{submission_id}/logs/tail")
async def tail_logs(socket: WebSocket, submission_id: str, context: Ctx, caller: Reader) -> None:
    """Text as the job writes it; closes when the job has ended."""
    job = await run_in_threadpool(_find, context, caller, submission_id)
    await socket.accept()
    async with anyio.create_task_group() as both:
        both.start_soon(_until_gone, socket, both.cancel_scope)
        async for chunk in log_chunks(context, job.job_id):
            if chunk["text"]:
                await socket.send_text(chunk["text"])
        both.cancel_scope.cancel()
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the client closed it already
        await socket.close()


async def _until_gone(socket: WebSocket, tail: anyio.CancelScope) -> None:
    """End the tail when the client goes: while a job waits, nothing is sent that would tell."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass  # nothing that a client says to a tail means anything
    tail.cancel()


def _job(tx: Transaction, caller: Principal, submission_id: str) -> Job:
    try:
        return visible(tx, caller, tx.job_id_for_ray(submission_id))
    except NotFound:
        raise NotFound(f"Job {submission_id} does not exist") from None


def _find(context: Context, caller: Principal, submission_id: str) -> Job:
    with context.store.transaction(write=False) as tx:
        return _job(tx, caller, submission_id)


def _package(protocol: str, name: str) -> str:
    if protocol != "gcs" or not PACKAGE.fullmatch(name):
        raise InvalidInput("package", f"{protocol}://{name}", "is not a package's name", "Use gcs://NAME.zip")
    return name


def _content(context: Context, caller: Principal, name: str) -> str | None:
    """The hash of a package that is stored here, by the caller's name for it."""
    with context.store.transaction(write=False) as tx:
        sha256 = tx.package(caller.name, name)
    return sha256 if sha256 is not None and context.bundles.has(sha256) else None


def _contents(context: Context, caller: Principal) -> Callable[[Any], str]:
    def content_of(uri: Any) -> str:
        sha256 = _content(context, caller, _package(*str(uri).split("://", 1)))
        if sha256 is None:
            raise InvalidInput("runtime_env", uri, "was not uploaded here", "PUT /api/packages/gcs/... it first")
        return sha256

    return content_of
