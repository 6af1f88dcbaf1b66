"""Rows 18, 19 and 21: decisions, references, hindsight, and what was booked again with another result."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.account import account, actual, references
from carbon_sched.ledger.records import ACTUAL, HOME, ORACLE
from carbon_sched.ledger.statement.model import (
    AmendmentRow,
    CandidateRow,
    Compared,
    Comparison,
    DecisionRow,
    Hindsight,
    Restatement,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from carbon_sched.ledger.account import Account, Reference
    from carbon_sched.ledger.account import Period as Cut
    from carbon_sched.ledger.records import AttemptRecord, JobRecord, ReadingsUsed


def decision(job: JobRecord, co2e_ug: int) -> DecisionRow | None:
    """The decision that placed the job, or its newest; None before the first. `co2e_ug` is what it came to."""
    found = job.placed or job.decision
    if found is None:
        return None
    return DecisionRow(
        job=job.job_id,
        decided_at=found["at"],
        verdict=found["verdict"],
        cluster=found["cluster"],
        start=found["start"],
        policy=found["policy"],
        expected_energy_uj=found["expected_energy_uj"],
        expected_co2e_ug=found["expected_co2e_ug"],
        co2e_ug=co2e_ug,
        estimate_source=found["estimate_source"],
        candidates=len(found["candidates"]),
        reason=found["reason"],
    )


def amendments(job: JobRecord) -> list[AmendmentRow]:
    """What became of what the job asked for, oldest first."""
    return [
        AmendmentRow(job.job_id, to_rfc3339(one.at), one.by, change.field, change.before, change.after)
        for one in job.amendments
        for change in one.changes
    ]


def candidates(job: JobRecord) -> list[CandidateRow]:
    """What was considered for that decision."""
    found = job.placed or job.decision or {"candidates": ()}
    keys = ("cluster", "zone", "feasible", "start", "co2e_ug", "now_co2e_ug", "reason")
    return [CandidateRow(job.job_id, *(item[key] for key in keys)) for item in found["candidates"]]


def compared(job: JobRecord, accounts: Sequence[Account], period: Cut) -> list[Compared]:
    """The job, booked as it is now, against each reference that was recorded for it."""
    return [_compared(job, reference) for reference in references(accounts, period)]


def _compared(job: JobRecord, reference: Reference) -> Compared:
    clusters = ", ".join(dict.fromkeys(one.cluster for one in reference.accounts if one.shares))
    theirs, saved = reference.co2e_ug, reference.saved_ug
    return Compared(job.job_id, reference.role, clusters, reference.ours_ug, theirs, saved, reference.problem)


def comparisons(rows: Iterable[Compared]) -> list[Comparison]:
    """Sums by reference, over the jobs for which both sides have every intensity."""
    groups: dict[str, list[Compared]] = defaultdict(list)
    for row in rows:
        if not row.problem:
            groups[row.role].append(row)
    return [
        Comparison(role, len(group), sum(row.theirs_ug for row in group), sum(row.ours_ug for row in group))
        for role, group in sorted(groups.items())
    ]


def hindsight(rows: Iterable[Compared]) -> Hindsight:
    """Over the jobs that can be compared with both the home cluster and the best choice in hindsight."""
    by_job: dict[str, dict[str, Compared]] = defaultdict(dict)
    for row in rows:
        if not row.problem:
            by_job[row.job][row.role] = row
    both = [roles for roles in by_job.values() if HOME in roles and ORACLE in roles]
    saved_ug = sum(roles[HOME].saved_ug for roles in both)
    return Hindsight(len(both), saved_ug, sum(roles[HOME].theirs_ug - roles[ORACLE].theirs_ug for roles in both))


def restatements(job: JobRecord, attempts: Iterable[AttemptRecord], period: Cut) -> Iterator[Restatement]:
    """Each booking of an attempt that changed the figure of the one before, with both; the newest is in the totals."""
    for attempt in attempts:
        bookings = attempt.readings.get(ACTUAL, [])
        if len(bookings) < 2:
            continue
        figures = [_as_booked(attempt, booking, period) for booking in bookings[:-1]]
        figures.append(actual(attempt, period))
        for (before, first), (now, second) in pairwise(zip(figures, bookings, strict=True)):
            if (before.energy_uj, before.co2e_ug) != (now.energy_uj, now.co2e_ug):
                both = (before.energy_uj, now.energy_uj, before.co2e_ug, now.co2e_ug)
                yield Restatement(
                    job.job_id, attempt.attempt_id, to_rfc3339(second.at), _why(first, second, before, now), *both
                )


def _as_booked(attempt: AttemptRecord, booking: ReadingsUsed, period: Cut) -> Account:
    return account(attempt, booking, period, attempt.counting(booking.evidence))


def _why(first: ReadingsUsed, second: ReadingsUsed, before: Account, now: Account) -> str:
    said = []
    if before.energy_uj != now.energy_uj:
        said.append("energy came late")
    if first.readings != second.readings:
        said.append("readings were revised")
    if first.pue_ppm != second.pue_ppm:
        said.append("PUE was revised")
    return "; ".join(said) or "evidence that came later speaks of the same time"
