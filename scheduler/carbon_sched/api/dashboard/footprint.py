"""The page Footprint: what teams, projects, models, phases and clusters emitted in a period; life cycles; budgets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from carbon_sched.api import budgets
from carbon_sched.api.access import Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.dashboard import plots
from carbon_sched.api.dashboard.answers import answer
from carbon_sched.api.dashboard.figures import first_of_month
from carbon_sched.api.dashboard.pages import PageRoute, render, seen, team_of
from carbon_sched.domain.errors import InvalidInput, NotFound
from carbon_sched.domain.time import UTC, from_rfc3339, to_rfc3339
from carbon_sched.ledger.account import Period
from carbon_sched.ledger.book import Book
from carbon_sched.ledger.chargeback import Chargeback, chargeback
from carbon_sched.ledger.figures import co2e
from carbon_sched.ledger.lifecycle import Lifecycle, PerUnit, lifecycle
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import selected
from carbon_sched.ledger.statement.lines import days
from carbon_sched.ledger.statement.model import Day
from carbon_sched.service.answers import Answer
from carbon_sched.wire import BudgetView

router = APIRouter(route_class=PageRoute)

By = Literal["team", "project", "model", "phase", "cluster"]
BY = ("team", "project", "model", "phase", "cluster")
WEEKS = 8
DOWNLOADS = {
    "html": "HTML", "pdf": "PDF", "csv": "CSV", "json": "JSON", "parquet": "Parquet", "markdown": "Markdown",
    "codecarbon": "CodeCarbon", "inventory": "Inventory", "prometheus": "Prometheus",
}  # fmt: skip


@dataclass(frozen=True)
class Footprint:
    """Charges by one of BY, and the days of the period."""

    charges: Chargeback
    days: tuple[Day, ...]


@dataclass(frozen=True)
class Life:
    """A model's stages, and nanograms of CO2e by unit of its inference and by week."""

    stages: Lifecycle
    weeks: dict[str, list[tuple[str, int]]]


@dataclass(frozen=True)
class BudgetRow:
    """A budget in its period with its picture, by CO2e where it limits that, else by energy."""

    view: BudgetView
    chart: Markup


@router.get("/footprint", include_in_schema=False)
def show(
    request: Request,
    context: Ctx,
    caller: Reader,
    by: By = "team",
    team: str | None = None,
    since: str | None = None,
    until: str | None = None,
    model: str | None = None,
) -> Response:
    """The page; a period is of whole days, `until` the last of them."""
    now, mine = seen(context), team_of(caller, team)
    first, end = days_of(since, until, now)
    period, last = Period(first, end), end - timedelta(days=1)
    found = answer(
        context,
        ("footprint", by, period, mine),
        partial(context.statements.over, period),
        lambda book: _footprint(book, by, period, mine),
    )
    asked = {"since": to_rfc3339(first), "until": to_rfc3339(end)} | ({"team": mine} if mine else {})
    models = answer(context, ("models", mine), partial(context.statements.of, ()), lambda _: _models(context, mine))
    life = _life(context, model, mine, now)
    return render(
        request, caller, "footprint.html", now=now,
        by=by, dimensions=BY, team=mine, since=first.date().isoformat(), until=last.date().isoformat(), found=found,
        chart=_days_chart(found.value.days, first) if found else None,
        budgets=[_budget_row(view, now) for view in budgets.list_budgets(context, caller)],
        models=models.value if models else [], model=model or "", life=life,
        trends=_trends(life.value) if life else [],
        downloads=DOWNLOADS, query=urlencode(asked),
    )  # fmt: skip


def days_of(since: str | None, until: str | None, now: datetime) -> tuple[datetime, datetime]:
    """Whole days, from the first one's beginning to the last one's end; without them this month so far."""
    first = _day("since", since) if since else first_of_month(now)
    last = _day("until", until) if until else now.replace(hour=0, minute=0, second=0, microsecond=0)
    if last < first:
        raise InvalidInput("until", until or "", "is before the first day", "Choose a later day")
    return first, last + timedelta(days=1)


def _day(field: str, text: str) -> datetime:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(field, text, "is no day", "Write it as 2026-11-23") from None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _footprint(book: Book, by: str, period: Period, team: str | None) -> Footprint:
    used = [one for _, mine in selected(book, Selection(team=team, period=period)) for one in mine]
    return Footprint(chargeback(book, by, period, team=team), tuple(days(used)))


def _days_chart(found: Sequence[Day], since: datetime) -> Markup | None:
    """A column for every day up to the last with energy; None without any."""
    if not found:
        return None
    sums: dict[str, int] = {day.day: day.co2e_ug for day in found}
    first, last = since.date(), date.fromisoformat(found[-1].day)
    every = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    values = [(f"{day.day} {day:%b}", sums.get(day.isoformat(), 0)) for day in every]
    total = sum(sums.values())
    return plots.columns(values, f"CO2e by day, {co2e(total)} in all", co2e, unit="ug CO2e")


def _models(context: Context, team: str | None) -> list[str]:
    return context.statements.look(
        lambda index: sorted({job.model for job in index.jobs if job.model and team in (None, job.team)})
    )


def _life(context: Context, model: str | None, team: str | None, now: datetime) -> Answer[Life] | None:
    """A model's whole life, not that of the period; None without a model, or while it is computed."""
    if not model:
        return None
    monday = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=now.weekday())
    weeks = [monday - timedelta(weeks=number) for number in reversed(range(WEEKS))]

    def read(question: Callable[[Book], Any]) -> Any:
        """Jobs are found where the answer is computed: the ledger may be long to follow."""
        jobs = context.statements.jobs(lambda job: job.model == model)
        return context.statements.of(jobs, question, others=True)

    return answer(
        context,
        ("life", model, team, monday),
        read,
        lambda book: Life(lifecycle(book, model, team=team), _weeks(book, model, team, weeks)),
    )


def _trends(found: Life) -> list[tuple[str, Markup]]:
    """Per unit of work of the model's inference: CO2e by week."""
    return [
        (unit, plots.columns(values, f"CO2e per {unit} by week", lambda ng: f"{ng / 1e9:.3g} g", unit="ng CO2e"))
        for unit, values in found.weeks.items()
    ]


def _weeks(book: Book, model: str, team: str | None, weeks: Sequence[datetime]) -> dict[str, list[tuple[str, int]]]:
    """Nanograms of CO2e per unit, by week."""
    values: dict[str, dict[datetime, int]] = defaultdict(dict)
    for week in weeks:
        try:
            units = lifecycle(book, model, Period(week, week + timedelta(weeks=1)), team=team).per_unit
        except NotFound:
            units = ()
        for one in units:
            values[one.unit][week] = per_unit_ng(one)
    return {unit: [(f"{week.day} {week:%b}", of.get(week, 0)) for week in weeks] for unit, of in sorted(values.items())}


def per_unit_ng(one: PerUnit) -> int:
    """Nanograms of CO2e of electricity for one unit of work, rounded down."""
    return one.co2e_ug * 1_000 * 1_000_000 // one.amount_millionths if one.amount_millionths else 0


def _budget_row(view: BudgetView, now: datetime) -> BudgetRow:
    start, end = from_rfc3339(view["start"]), from_rfc3339(view["end"])
    time_share = min(1.0, (now - start) / (end - start))
    limit, used, reserved, forecast = (
        (view["limit_ug"], view["settled_ug"], view["reserved_ug"], view["forecast_ug"])
        if view["limit_ug"]
        else (view["limit_uj"], view["settled_uj"], view["reserved_uj"], view["forecast_uj"])
    )
    whole = limit or 1
    expected = None if forecast is None else forecast / whole
    return BudgetRow(view, plots.burn(used / whole, reserved / whole, time_share, expected))
