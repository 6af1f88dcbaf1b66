"""The report: the statement's lines and comparisons in brief. Every total is a sum of lines.

A line is what one attempt used from one class of sources, so that any grouping adds up to the whole by construction.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from carbon_sched.ledger.statement import selected
from carbon_sched.ledger.statement.decisions import compared, comparisons
from carbon_sched.ledger.statement.lines import lines, summed
from carbon_sched.ledger.statement.model import Unowned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.records import JobRecord
    from carbon_sched.ledger.selection import Selection
    from carbon_sched.ledger.statement.lines import Used
    from carbon_sched.ledger.statement.model import Comparison


@dataclass(frozen=True)
class Totals:
    """Sums in exact integers. `co2e_ug` is that of `covered_uj`, the IT energy whose intensity is known."""

    energy_uj: int = 0
    facility_uj: int = 0
    covered_uj: int = 0
    co2e_ug: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.energy_uj + other.energy_uj,
            self.facility_uj + other.facility_uj,
            self.covered_uj + other.covered_uj,
            self.co2e_ug + other.co2e_ug,
        )


@dataclass(frozen=True)
class Line:
    """What one attempt used from one class of sources, as told by one kind of reporter."""

    job: str
    name: str
    team: str
    project: str
    model: str
    phase: str
    stage: str
    attempt: str
    outcome: str
    cluster: str
    zone: str
    pue_ppm: int
    source: str
    reporter: str
    totals: Totals


@dataclass(frozen=True)
class JobLine:
    """One selected job, also when it used nothing."""

    job: str
    name: str
    team: str
    project: str
    phase: str
    state: str
    settled: bool
    attempts: int
    totals: Totals
    missing: tuple[str, ...]


GROUPINGS = ("team", "project", "model", "phase", "cluster", "source", "reporter")


@dataclass(frozen=True)
class Report:
    """A statement as of the ledger's entry `ledger_size` with hash `ledger_head`.

    `unowned` is apart from the totals, and only there when nothing was left out: a machine belongs to no team or phase.
    """

    selection: Selection
    ledger_size: int
    ledger_head: str
    jobs: tuple[JobLine, ...]
    lines: tuple[Line, ...]
    comparisons: tuple[Comparison, ...]
    not_compared: tuple[str, ...]
    unowned: tuple[Unowned, ...]

    @property
    def totals(self) -> Totals:
        """The sum of all lines."""
        return _sum(line.totals for line in self.lines)

    def by(self, grouping: str) -> list[tuple[str, Totals]]:
        """Totals for each value of one of GROUPINGS, in the order of the values."""
        groups: dict[str, list[Totals]] = defaultdict(list)
        for line in self.lines:
            groups[getattr(line, grouping)].append(line.totals)
        return [(value, _sum(totals)) for value, totals in sorted(groups.items())]


def report(book: Book, selection: Selection) -> Report:
    """The statement for a selection; the same book and selection give the same report, field by field."""
    found = [(job, [one.account for one in used], _lines(used)) for job, used in selected(book, selection)]
    rows = [row for job, accounts, _ in found for row in compared(job, accounts, selection.period)]
    pots = sorted(book.machine_energy_uj.items()) if selection.everything else []
    return Report(
        selection=selection,
        ledger_size=book.size,
        ledger_head=book.head,
        jobs=tuple(_job_line(job, mine) for job, _, mine in found),
        lines=tuple(line for _, _, mine in found for line in mine),
        comparisons=tuple(comparisons(rows)),
        not_compared=tuple(f"{row.job} with {row.role}: {row.problem}" for row in rows if row.problem),
        unowned=tuple(Unowned(machine, pot, energy_uj) for (machine, pot), energy_uj in pots),
    )


def _lines(used: Iterable[Used]) -> list[Line]:
    """The statement's lines, summed over what a report does not tell apart."""
    labels = [field.name for field in fields(Line) if field.name != "totals"]
    return [
        Line(
            **{name: getattr(line, name) for name in labels},
            totals=Totals(line.energy_uj, line.facility_uj, line.covered_uj, line.co2e_ug),
        )
        for one in used
        for _, line in summed(lines([one]), ("source", "reporter"))
    ]


def _job_line(job: JobRecord, lines: list[Line]) -> JobLine:
    missing = dict.fromkeys(text for attempt in job.attempts.values() for text in attempt.missing)
    return JobLine(
        job=job.job_id,
        name=job.name,
        team=job.team,
        project=job.project,
        phase=job.phase,
        state=job.state or "live",
        settled=job.settled,
        attempts=len(job.attempts),
        totals=_sum(line.totals for line in lines),
        missing=tuple(missing),
    )


def _sum(totals: Iterable[Totals]) -> Totals:
    return sum(totals, Totals())
