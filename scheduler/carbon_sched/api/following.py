"""Waiting for what jobs do, and receiving what people send, without holding a thread per waiting client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import anyio
import anyio.from_thread
import anyio.to_thread
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from carbon_sched.domain.errors import TooSlow

if TYPE_CHECKING:
    from fastapi import Request

    from carbon_sched.api.context import Context
    from carbon_sched.service.signals import Signals
    from carbon_sched.wire import LogChunk

UPLOADS = 16
SILENCE_S = 30.0
_UPLOADS: WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = WeakKeyDictionary()
"""A limiter belongs to the loop it is made in."""
FRESH_S = 0.4
"""How often a running job's output is looked for; `service.logs` asks clusters no more often either."""


async def news(signals: Signals, seen: int, timeout_s: float) -> None:
    """Return once some job changed after generation `seen`, or after `timeout_s`."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    with signals.heard_by(lambda: loop.call_soon_threadsafe(changed.set)), contextlib.suppress(asyncio.TimeoutError):
        if signals.generation == seen:
            await asyncio.wait_for(changed.wait(), timeout_s)


async def log_chunks(
    context: Context, job_id: str, *, attempt: int | None = None, offset: int = 0
) -> AsyncIterator[LogChunk]:
    """Output from there on as it comes, attempt after attempt, until the job has ended. The last chunk is `final`."""
    while True:
        chunk = await run_in_threadpool(context.logs.read, job_id, offset, 0.0, attempt)
        attempt, offset = chunk["attempt"], chunk["next_offset"]
        yield chunk
        if chunk["final"]:
            return
        if not chunk["text"]:
            await news(context.signals, context.signals.generation, FRESH_S)


async def upload(request: Request, receive: Callable[[Iterator[bytes]], object]) -> None:
    """Hand the body to `receive` piece by piece, in a thread of those that only uploads use.

    Raises TooSlow for a sender who is silent for long: the threads are few.
    """
    stream: Any = request.stream()

    def chunks() -> Iterator[bytes]:
        while chunk := anyio.from_thread.run(_next, stream):
            yield chunk

    threads = _UPLOADS.setdefault(asyncio.get_running_loop(), anyio.CapacityLimiter(UPLOADS))
    await anyio.to_thread.run_sync(lambda: receive(chunks()), limiter=threads)


async def _next(stream: Any) -> bytes:
    try:
        with anyio.fail_after(SILENCE_S):
            async for chunk in stream:
                if chunk:
                    return bytes(chunk)
    except TimeoutError:
        raise TooSlow(f"nothing more came for {SILENCE_S:g} s; send it again") from None
    except ClientDisconnect:
        raise TooSlow("the sender went away before the end; send it again") from None
    return b""
