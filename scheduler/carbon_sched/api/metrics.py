"""GET /metrics for Prometheus: what this server counted, and what the database and the clusters say now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily

from carbon_sched.api.access import Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.domain.errors import StoreError
from carbon_sched.domain.job import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from carbon_sched.service.metrics import Metrics

router = APIRouter()


@router.get("/metrics", response_class=Response)
def metrics(context: Ctx, _caller: Reader) -> Response:
    """In Prometheus' text format; `carbon_sched_up` is 0 while the database cannot be used."""
    text = generate_latest(context.metrics.registry) + generate_latest(_Now(context))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


class _Now:
    """A registry of gauges that are read when they are asked for."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[GaugeMetricFamily]:
        context, up = self._context, 1.0
        try:
            yield from self._stored()
        except StoreError:
            up = 0.0
        yield _gauge("up", "Whether the database can be used", up)
        term = context.leadership.term
        yield _gauge("leader", "Whether this server leads", float(term is not None))
        yield _gauge("leader_term", "The term it leads in, 0 when it does not", float(term or 0))
        usable = GaugeMetricFamily("carbon_sched_cluster_usable", "Whether jobs can be sent there", labels=["cluster"])
        age = GaugeMetricFamily("carbon_sched_cluster_age_seconds", "Since its last answer", labels=["cluster"])
        for name, status in context.fleet.statuses().items():
            usable.add_metric([name], float(status.usable))
            age.add_metric([name], (context.clock.now() - status.checked_at).total_seconds())
        yield usable
        yield age

    def _stored(self) -> Iterator[GaugeMetricFamily]:
        with self._context.store.transaction(write=False) as tx:
            counts, waiting_since = tx.live_counts(), tx.oldest_queued()
            outbox, (size, _head) = tx.outbox_size(), tx.ledger_head()
        jobs = GaugeMetricFamily("carbon_sched_jobs", "Jobs that have not ended, by state", labels=["state"])
        for state in JobState:
            if not state.final:
                jobs.add_metric([state.value], counts.get(state, 0))
        yield jobs
        oldest = 0.0 if waiting_since is None else (self._context.clock.now() - waiting_since).total_seconds()
        yield _gauge("oldest_queued_seconds", "How long the oldest waiting job has waited", oldest)
        yield _gauge("outbox", "External actions that are not done yet", outbox)
        yield _gauge("ledger_entries", "Entries of the ledger", size)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"carbon_sched_{name}", about, value=value)


class Timed:
    """Middleware that measures every answer from the request to its last byte."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; note the status when it is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.request(scope["method"], _route(scope), status, time.monotonic() - start)


def _route(scope: Scope) -> str:
    """The template; depending on FastAPI's version without the prefix that its router was included with."""
    path = getattr(scope.get("route"), "path", "unknown")
    versioned = scope["path"].startswith("/v1/") and not path.startswith("/v1/")
    return f"/v1{path}" if versioned and path != "unknown" else path
