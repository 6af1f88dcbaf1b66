"""The stream that tells open pages to look again (server-sent events): that something changed, never what."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from carbon_sched.api.access import Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.following import news

router = APIRouter()

PACE_S = 1.0
"""Pages are told at most once in this time: what happens meanwhile is one piece of news."""
QUIET_S = 15.0


@router.get("/live", response_class=Response, include_in_schema=False)
async def live(context: Ctx, _caller: Reader) -> StreamingResponse:
    """Events `news`: some job changed since the last one."""
    return StreamingResponse(_events(context), media_type="text/event-stream")


async def _events(context: Context) -> AsyncIterator[str]:
    generation = context.signals.generation
    yield "retry: 2000\n\n"
    while True:
        await news(context.signals, generation, QUIET_S)
        changed, generation = generation != context.signals.generation, context.signals.generation
        yield f"event: news\ndata: {generation}\n\n" if changed else ": quiet\n\n"
        if changed:
            await anyio.sleep(PACE_S)
