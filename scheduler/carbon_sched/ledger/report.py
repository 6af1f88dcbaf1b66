"""The statement over many jobs: lines of exact integers, and every total as a sum of lines.

A line is what one attempt used from one class of sources, so that any grouping adds up to the whole by construction.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from carbon_sched.ledger.account import Period, actual, references
from carbon_sched.ledger.book import Book, read_book
from carbon_sched.ledger.receipt import receipt
from carbon_sched.ledger.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from carbon_sched.ledger.account import Account, Part
    from carbon_sched.ledger.records import JobRecord

__all__ = ["Book", "Period", "Report", "Selection", "read_book", "receipt", "report"]


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


@dataclass(frozen=True)
class Comparison:
    """Our choices against one reference, over the `jobs` for which both have every intensity."""

    role: str
    jobs: int
    co2e_ug: int
    ours_ug: int

    @property
    def saved_ug(self) -> int:
        """What our choices saved; negative where they cost more."""
        return self.co2e_ug - self.ours_ug


@dataclass(frozen=True)
class Unowned:
    """Energy of a machine, metered beside jobs, that no attempt owns: its pot is `idle` or `unattributed`."""

    machine: str
    pot: str
    energy_uj: int


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
    jobs, lines, compared, not_compared = [], [], _Compared(), []
    for job in book.jobs.values():
        if not selection.holds(job):
            continue
        accounts = [actual(attempt, selection.period) for attempt in selection.attempts(job)]
        mine = [line for account in accounts for line in _lines(job, account)]
        if not mine and not selection.period.holds(job.submitted_at):
            continue
        jobs.append(_job_line(job, mine))
        lines += mine
        for reference in references(accounts, selection.period):
            if reference.problem:
                not_compared.append(f"{job.job_id} with {reference.role}: {reference.problem}")
            else:
                compared.add(Comparison(reference.role, 1, reference.co2e_ug, reference.ours_ug))
    pots = sorted(book.machine_energy_uj.items()) if selection.everything else []
    return Report(
        selection=selection,
        ledger_size=book.size,
        ledger_head=book.head,
        jobs=tuple(jobs),
        lines=tuple(lines),
        comparisons=compared.all(),
        not_compared=tuple(not_compared),
        unowned=tuple(Unowned(machine, pot, energy_uj) for (machine, pot), energy_uj in pots),
    )


class _Compared:
    """Sums comparisons by role."""

    def __init__(self) -> None:
        self._by_role: dict[str, Comparison] = {}

    def add(self, new: Comparison) -> None:
        old = self._by_role.get(new.role, Comparison(new.role, 0, 0, 0))
        self._by_role[new.role] = Comparison(
            new.role, old.jobs + new.jobs, old.co2e_ug + new.co2e_ug, old.ours_ug + new.ours_ug
        )

    def all(self) -> tuple[Comparison, ...]:
        return tuple(self._by_role[role] for role in sorted(self._by_role))


def _lines(job: JobRecord, account: Account) -> list[Line]:
    groups: dict[tuple[str, str], list[Part]] = defaultdict(list)
    for part in account.parts:
        groups[part.span.source.value, part.span.reporter.value].append(part)
    attempt = account.attempt
    blank = Line(
        job=job.job_id,
        name=job.name,
        team=job.team,
        project=job.project,
        model=job.model,
        phase=job.phase,
        stage=job.stage,
        attempt=attempt.attempt_id,
        outcome=attempt.outcome or "open",
        cluster=account.cluster,
        zone=account.zone,
        pue_ppm=account.pue_ppm,
        source="",
        reporter="",
        totals=Totals(),
    )
    return [
        replace(blank, source=source, reporter=reporter, totals=_sum(map(_of_part, parts)))
        for (source, reporter), parts in sorted(groups.items())
    ]


def _of_part(part: Part) -> Totals:
    covered = part.energy_uj if part.reading is not None else 0
    return Totals(part.energy_uj, part.facility_uj, covered, part.co2e_ug or 0)


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
