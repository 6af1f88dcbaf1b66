"""What each team (project, model, ...) is charged for: only what rests on independent evidence, the rest shown beside.

Independent is the word of a meter that is not the job's own: a job's own side could report less than it used.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import Reporter
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import selected
from carbon_sched.ledger.statement.lines import lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from carbon_sched.ledger.account import Period
    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.statement.model import Line

BY = ("team", "project", "model", "phase", "cluster")


@dataclass(frozen=True)
class Amount:
    """Sums of lines. `covered_uj` is the IT energy whose intensity is known, `co2e_ug` that of it."""

    energy_uj: int
    facility_uj: int
    covered_uj: int
    co2e_ug: int


@dataclass(frozen=True)
class Charge:
    """One team's month: `charged` rests on independent evidence; `self_reported` on the word of the job's own side.

    `ray` is what Ray's gauge showed where nobody else read. The three add up to all that the ledger booked.
    """

    value: str
    jobs: int
    charged: Amount
    self_reported: Amount
    ray: Amount


@dataclass(frozen=True)
class Chargeback:
    """Charges in the order of their names; `total` is their sum."""

    by: str
    since: str | None
    until: str | None
    rows: tuple[Charge, ...]
    total: Charge
    ledger_size: int
    ledger_head: str


def chargeback(book: Book, by: str, period: Period, *, team: str | None = None) -> Chargeback:
    """Charges by one of BY over a period, of every team or of one; adjoining periods add up to the whole."""
    used = [one for _, mine in selected(book, Selection(team=team, period=period)) for one in mine]
    groups: dict[str, list[Line]] = defaultdict(list)
    every = lines(used)
    for line in every:
        groups[getattr(line, by)].append(line)
    return Chargeback(
        by=by,
        since=to_rfc3339(period.since) if period.since else None,
        until=to_rfc3339(period.until) if period.until else None,
        rows=tuple(_charge(value, group) for value, group in sorted(groups.items())),
        total=_charge("total", every),
        ledger_size=book.size,
        ledger_head=book.head,
    )


def _charge(value: str, group: list[Line]) -> Charge:
    def of(reporter: Reporter) -> Amount:
        return _amount(line for line in group if line.reporter == reporter.value)

    jobs = len({line.job for line in group})
    return Charge(value, jobs, of(Reporter.INDEPENDENT), of(Reporter.SELF_REPORTED), of(Reporter.RAY))


def _amount(group: Iterable[Line]) -> Amount:
    sums = [(line.energy_uj, line.facility_uj, line.covered_uj, line.co2e_ug) for line in group]
    return Amount(*(sum(column) for column in zip(*sums, strict=True))) if sums else Amount(0, 0, 0, 0)
