"""The page Health: the server, its providers, the meters, and the ledger with its seals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from carbon_sched.api import clusters, ledger, server
from carbon_sched.api.access import Auditor, Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.dashboard.answers import answer
from carbon_sched.api.dashboard.pages import PageRoute, render, seen
from carbon_sched.domain.access import GRANTS, Permission
from carbon_sched.ledger.book import Book

router = APIRouter(route_class=PageRoute)

RECENT = timedelta(days=1)
SQUATTER = "squatter"


@dataclass
class Machine:
    """What the ledger holds of one machine's last day: microjoules by source, by reporter, and used by squatters.

    `counters_uj` is what counters say, `integrals_uj` what power that was read beside them comes to, of the same
    devices and time: they should agree; both are shown, none is corrected. `squatters` are names of jobs that used what
    was not theirs, by id.
    """

    name: str
    cluster: str
    last: datetime
    sources: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    reporters: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    squatted_uj: int = 0
    squatters: dict[str, str] = field(default_factory=dict)
    counters_uj: int = 0
    integrals_uj: int = 0

    @property
    def off(self) -> float | None:
        """By what share of the integral the counters say more; None where no power was read beside them."""
        return self.counters_uj / self.integrals_uj - 1 if self.integrals_uj else None

    @property
    def energy_uj(self) -> int:
        """Of jobs, in all."""
        return sum(self.sources.values())


@router.get("/health", include_in_schema=False)
def show(request: Request, context: Ctx, caller: Reader) -> Response:
    """The page; the seal is shown to who may audit."""
    now = seen(context)
    audits = Permission.AUDIT in GRANTS[caller.role]
    machines = answer(
        context,
        ("machines", now.date()),
        partial(_recently, context, now - RECENT),
        lambda book: _machines(book, now - RECENT),
    )
    return render(
        request, caller, "health.html", now=now,
        server=server.show(context, caller), faults=context.faults(),
        providers=context.grid_providers(),
        clusters=[one for one in clusters.list_clusters(context, caller) if one["problem"]],
        machines=machines if caller.teams is None else None,
        seal=ledger.newest_seal(context, caller) if audits else None,
        audits=audits,
    )  # fmt: skip


@router.get("/health/verified", include_in_schema=False)
def verified(request: Request, context: Ctx, caller: Auditor) -> Response:
    """The whole chain, walked now."""
    return render(request, caller, "verified.html", now=seen(context), found=ledger.verify(context, caller))


def _recently(context: Context, since: datetime, question: Callable[[Book], Any]) -> Any:
    jobs = context.statements.look(lambda index: [index.jobs[number].job_id for number in index.since(since)])
    return context.statements.of(jobs, question, since=since)


def _machines(book: Book, since: datetime) -> list[Machine]:
    found: dict[tuple[str, str], Machine] = {}
    for job in book.jobs.values():
        for attempt in job.attempts.values():
            if attempt.ended_at is not None and attempt.ended_at < since:
                continue
            for span in attempt.spans:
                if span.end < since:
                    continue
                machine = found.setdefault((span.cluster, span.machine), Machine(span.machine, span.cluster, span.end))
                machine.last = max(machine.last, span.end)
                machine.sources[span.source.value] += span.energy_uj
                machine.reporters[span.reporter.value] += span.energy_uj
                if SQUATTER in span.flags:
                    machine.squatted_uj += span.energy_uj
                    machine.squatters[job.job_id] = job.name
            for name, (counters_uj, integrals_uj) in attempt.compared.items():
                if (attempt.cluster, name) in found:
                    found[attempt.cluster, name].counters_uj += counters_uj
                    found[attempt.cluster, name].integrals_uj += integrals_uj
    return [found[key] for key in sorted(found)]
