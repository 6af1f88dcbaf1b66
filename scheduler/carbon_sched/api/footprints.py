"""Routes for a model's life cycle, a service's stays, for comparing jobs, and for what teams are charged."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from carbon_sched.api.access import Reader
from carbon_sched.api.context import Ctx
from carbon_sched.api.instants import aware
from carbon_sched.ledger.account import Period
from carbon_sched.ledger.book import Book
from carbon_sched.ledger.chargeback import chargeback
from carbon_sched.ledger.compare import JOB, Compared, compare, mentioned, sides_of
from carbon_sched.ledger.lifecycle import lifecycle

router = APIRouter(prefix="/v1")


@router.get("/lifecycle")
def show_lifecycle(
    context: Ctx,
    caller: Reader,
    model: str,
    team: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[str, Any]:
    """A model's making, evaluation and inference so far, of one team's jobs or of all."""
    period, mine = Period(aware("since", since), aware("until", until)), caller.team_of(team)
    jobs = context.statements.jobs(lambda job: job.model == model)
    return asdict(context.statements.of(jobs, lambda book: lifecycle(book, model, period, team=mine), others=True))


@router.get("/service")
def show_service(context: Ctx, caller: Reader, name: str) -> dict[str, Any]:
    """Where an online service ran, from when to when and why, as the ledger says."""
    return asdict(context.statements.service(name, caller.sees))


@router.get("/compare")
def show_comparison(
    context: Ctx,
    caller: Reader,
    side: Annotated[list[str], Query()],
    per: str = JOB,
    pue_ppm: Annotated[int | None, Query(ge=1_000_000, le=10_000_000)] = None,
    mg_per_kwh: Annotated[int | None, Query(ge=0, le=10_000_000)] = None,
    paired: bool = False,  # noqa: FBT001, FBT002 - a query parameter
) -> dict[str, Any]:
    """Sides of jobs beside each other; each `side` lists ids or names with commas, `paired` ones in equal order."""

    def compared(book: Book) -> Compared:
        sides = sides_of(book, side, caller.sees)
        return compare(book, sides, per=per, pue_ppm=pue_ppm, mg_per_kwh=mg_per_kwh, paired=paired)

    words = mentioned(side)
    jobs = context.statements.jobs(lambda job: job.job_id in words or job.name in words)
    return asdict(context.statements.of(jobs, compared))


@router.get("/chargeback")
def show_chargeback(
    context: Ctx,
    caller: Reader,
    by: Literal["team", "project", "model", "phase", "cluster"] = "team",
    team: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[str, Any]:
    """What each is charged for in a period, on independent evidence."""
    period, mine = Period(aware("since", since), aware("until", until)), caller.team_of(team)
    return asdict(context.statements.over(period, lambda book: chargeback(book, by, period, team=mine)))
