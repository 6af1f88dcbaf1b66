"""The route by which nodes push energy segments; it asks for the attempt's own token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool

from carbon_sched.api.context import Ctx
from carbon_sched.api.following import upload

router = APIRouter(prefix="/v1")


@router.post("/journal/{attempt}/{name}", status_code=204)
async def push_segment(
    attempt: str, name: str, request: Request, context: Ctx, authorization: Annotated[str, Header()] = ""
) -> Response:
    """Take a segment as the meter wrote it; the same one again is fine, with other content it is a conflict."""
    pusher = await run_in_threadpool(context.receive.attempt, attempt, authorization.removeprefix("Bearer "))
    await upload(request, lambda chunks: context.receive.segment(pusher, name, chunks))
    return Response(status_code=204)
