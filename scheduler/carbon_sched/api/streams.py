"""Server-sent events (WHATWG HTML, section 9.2): what a job becomes and writes, as it happens."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from carbon_sched.api.access import Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.following import FRESH_S, news
from carbon_sched.api.jobs import view_of
from carbon_sched.domain.access import Principal
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import FINAL_STATES

router = APIRouter(prefix="/v1")

QUIET_S = 15.0
"""After so long without an event a comment is sent, so that proxies see a living connection."""
FINAL = frozenset(state.value for state in FINAL_STATES)
ID = re.compile(r"(\d{1,18})-(\d{1,9})-(\d{1,18})", re.ASCII)


@dataclass
class Place:
    """How far a reader has come: the job's version, and the log's attempt (0: before any) and byte."""

    version: int = -1
    attempt: int = 0
    offset: int = 0

    @classmethod
    def after(cls, event_id: str | None) -> Place:
        """Behind the event with this id, as a browser sends it when it comes back."""
        if event_id is None:
            return cls()
        match = ID.fullmatch(event_id)
        if match is None:
            raise InvalidInput("Last-Event-ID", event_id, "is no id of ours", "Leave it out to read from the start")
        return cls(*map(int, match.groups()))


@router.get("/jobs/{job_id}/stream", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def stream(
    job_id: str,
    context: Ctx,
    caller: Reader,
    logs: bool = True,  # noqa: FBT001, FBT002 - a query parameter
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Events `state` (a JobView, at every change) and `log` (a LogChunk), to an `end` when nothing more will come."""
    place = Place.after(last_event_id)
    await run_in_threadpool(view_of, context, caller, job_id)
    return StreamingResponse(_events(context, caller, job_id, place, logs=logs), media_type="text/event-stream")


async def _events(context: Context, caller: Principal, job_id: str, place: Place, *, logs: bool) -> AsyncIterator[str]:
    quiet_since = context.clock.monotonic()
    while True:
        generation, found = context.signals.generation, []
        view = await run_in_threadpool(view_of, context, caller, job_id)
        if view["version"] > place.version:
            place.version = view["version"]
            found.append(_event("state", view, place))
        ended = view["state"] in FINAL
        if logs:
            chunk = await run_in_threadpool(context.logs.read, job_id, place.offset, 0.0, place.attempt)
            place.attempt, place.offset = chunk["attempt"], chunk["next_offset"]
            ended = ended and chunk["final"]
            if chunk["text"]:
                found.append(_event("log", chunk, place))
        if ended:
            found.append(_event("end", {}, place))
        elif context.clock.monotonic() - quiet_since > QUIET_S:
            found.append(": quiet\n\n")
        if found:
            quiet_since = context.clock.monotonic()
            yield "".join(found)
        if ended:
            return
        await news(context.signals, generation, FRESH_S)


def _event(name: str, data: Any, place: Place) -> str:
    """One event; JSON on one line holds no line break that would end it."""
    return f"id: {place.version}-{place.attempt}-{place.offset}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
