"""What a period came to: totals, days, and what was saved against each reference, as statements say it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from carbon_sched.api.context import Context
from carbon_sched.api.dashboard.answers import answer
from carbon_sched.ledger.account import Period
from carbon_sched.ledger.book import Book
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import selected
from carbon_sched.ledger.statement.decisions import compared, comparisons
from carbon_sched.ledger.statement.model import Comparison
from carbon_sched.service.answers import Answer


@dataclass(frozen=True)
class Month:
    """Sums over the `jobs` that used energy in a period, of one team or all."""

    since: datetime
    jobs: int
    energy_uj: int
    co2e_ug: int
    comparisons: tuple[Comparison, ...]


def month(context: Context, since: datetime, team: str | None) -> Answer[Month] | None:
    """What a period came to until now; None while it is computed for the first time."""
    return answer(
        context,
        ("month", since, team),
        partial(context.statements.over, Period(since)),
        lambda book: _month(book, since, team),
    )


def _month(book: Book, since: datetime, team: str | None) -> Month:
    period = Period(since)
    jobs = list(selected(book, Selection(team=team, period=period)))
    used = [one for _, mine in jobs for one in mine]
    rows = [row for job, mine in jobs for row in compared(job, [one.account for one in mine], period)]
    return Month(
        since=since,
        jobs=sum(any(one.account.shares for one in mine) for _, mine in jobs),
        energy_uj=sum(one.account.energy_uj for one in used),
        co2e_ug=sum(one.account.co2e_ug for one in used),
        comparisons=tuple(comparisons(rows)),
    )
