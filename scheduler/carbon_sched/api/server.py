"""Routes about the server itself."""

from __future__ import annotations

import os
import sys
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Response
from typing_extensions import TypedDict

from carbon_sched import __version__
from carbon_sched.api.access import Admin, Reader
from carbon_sched.api.context import Ctx
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.wire import ServerView

public = APIRouter()
router = APIRouter(prefix="/v1")


class Shutdown(TypedDict, total=False):
    """Body of POST /v1/server/shutdown."""

    stop_local_clusters: bool


@public.get("/healthz")
def health() -> dict[str, Any]:
    """Alive, and which version, on which Python."""
    return {"ok": True, "version": __version__, "python": ".".join(map(str, sys.version_info[:2]))}


@public.get("/readyz")
def ready(response: Response, context: Ctx) -> dict[str, Any]:
    """200 when it can do its work, 503 with what keeps it from it; and whether it is the one that leads."""
    faults = context.faults()
    response.status_code = 503 if faults else 200
    return {"ready": not faults, "faults": faults, "leader": context.leadership.leads()}


@router.get("/server")
def show(context: Ctx, _caller: Reader) -> ServerView:
    """What runs here."""
    with context.store.transaction(write=False) as tx:
        size, head = tx.ledger_head()
        live = sum(tx.live_counts().values())
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started_at": to_rfc3339(context.started_at),
        "url": context.url,
        "data_dir": str(context.data_dir),
        "database": context.database,
        "jobs_live": live,
        "leader": context.leadership.leads(),
        "local_clusters": [cluster.name for cluster in context.fleet.all() if cluster.local is not None],
        "ledger_size": size,
        "ledger_head": head,
    }


@router.post("/server/shutdown", status_code=202)
def shutdown(request: Shutdown, background: BackgroundTasks, context: Ctx, _caller: Admin) -> dict[str, bool]:
    """End gracefully after this answer; waiting jobs stay in the database and go on with the next server."""
    background.add_task(context.shutdown, stop_local_clusters=request.get("stop_local_clusters", False))
    return {"stopping": True}
