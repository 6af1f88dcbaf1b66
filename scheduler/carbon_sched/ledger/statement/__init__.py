"""The statement: what an auditor, a sustainability team and a model's author need after the run, from facts alone.

One pure function, `statement(book, selection)`. `model.py` says what it holds, row by row of the checklist; the other
modules each compute some of them. `formats.py` renders it. See `scheduler/STATEMENT.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.account import actual
from carbon_sched.ledger.statement import decisions, declared, lines, scores
from carbon_sched.ledger.statement.completeness import completeness
from carbon_sched.ledger.statement.elsewhere import imported
from carbon_sched.ledger.statement.lines import Used
from carbon_sched.ledger.statement.model import JobRow, Period, Statement, Unowned
from carbon_sched.ledger.statement.uncertainty import uncertainty

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.records import JobRecord
    from carbon_sched.ledger.selection import Selection
    from carbon_sched.ledger.statement.model import Compared, Embodied, Gap, Line, Series

__all__ = ["Statement", "Used", "selected", "statement"]

ASSUMED = "assumed"
"""A PUE whose source says this was stated by nobody."""


def selected(book: Book, selection: Selection) -> Iterator[tuple[JobRecord, list[Used]]]:
    """The jobs of a selection, in the order of their acceptance, each with its attempts booked within the period.

    Energy counts by when it was used; a job that used none in the period counts if it was submitted in it.
    """
    for job in book.jobs.values():
        if selection.holds(job):
            used = [Used(job, actual(attempt, selection.period)) for attempt in selection.attempts(job)]
            burning = [one for one in used if one.account.shares]
            if burning or selection.period.holds(job.submitted_at):
                yield job, used


def statement(book: Book, selection: Selection) -> Statement:
    """The statement; the same entries and selection give the same, field by field, wherever it is computed."""
    period = selection.period
    jobs: list[tuple[JobRecord, list[Used]]] = []
    job_rows: list[JobRow] = []
    rows: list[Line] = []
    gaps: list[Gap] = []
    compared: list[Compared] = []
    for job, mine in selected(book, selection):  # all that walks over a job's energy, while a cache holds it
        jobs.append((job, mine))
        job_rows.append(_job(job, mine))
        rows += lines.lines(mine)
        gaps += lines.gaps(mine, period)
        compared += decisions.compared(job, [one.account for one in mine], period)
    used = [one for _, mine in jobs for one in mine]
    made, unknown = scores.embodied(used, period)
    pues = lines.pues(used)
    series = lines.series(used)
    pots = sorted(book.machine_energy_uj.items()) if selection.everything else []
    decided = ((job, sum(one.account.co2e_ug for one in mine)) for job, mine in jobs)
    return Statement(
        selection=selection,
        boundary=declared.boundary(book),
        period=_period(used, selection),
        jobs=tuple(job_rows),
        lines=tuple(rows),
        gaps=tuple(gaps),
        unowned=tuple(Unowned(machine, pot, energy_uj) for (machine, pot), energy_uj in pots),
        pues=tuple(pues),
        series=tuple(series),
        market=declared.market(book, used),
        embodied=tuple(made),
        embodied_unknown=tuple(unknown),
        scope_classes=tuple(declared.scope_classes(book, rows, made)),
        scores=tuple(scores.scores(used, made, period)),
        inference=tuple(scores.inference(used, period)),
        decisions=tuple(row for job, co2e_ug in decided if (row := decisions.decision(job, co2e_ug))),
        amendments=tuple(row for job, _ in jobs for row in decisions.amendments(job)),
        candidates=tuple(row for job, _ in jobs for row in decisions.candidates(job)),
        compared=tuple(compared),
        comparisons=tuple(decisions.comparisons(compared)),
        hindsight=decisions.hindsight(compared),
        uncertainty=uncertainty(rows, {pue.cluster for pue in pues if ASSUMED in pue.source}),
        restatements=tuple(
            row for job, mine in jobs for row in decisions.restatements(job, (one.attempt for one in mine), period)
        ),
        completeness=completeness(
            book, [job for job, _ in jobs], [one.attempt for one in used], (one.account.cluster for one in used), period
        ),
        offsets=tuple(declared.offsets(book)),
        imported=tuple(imported(book, selection)),
        days=tuple(lines.days(used)),
        licences=_licences(series, made),
        ledger_size=book.size,
        ledger_head=book.head,
    )


def _period(used: Iterable[Used], selection: Selection) -> Period:
    times = [one.account.times for one in used if one.account.times]
    since, until = selection.period.since, selection.period.until
    return Period(
        since=to_rfc3339(since) if since else None,
        until=to_rfc3339(until) if until else None,
        first_use=to_rfc3339(min(start for start, _ in times)) if times else None,
        last_use=to_rfc3339(max(end for _, end in times)) if times else None,
    )


def _job(job: JobRecord, used: Sequence[Used]) -> JobRow:
    burning = [(one.attempt, one.account.times) for one in used if one.account.times]
    starts = [attempt.started_at or first for attempt, (first, _) in burning]
    ends = [attempt.ended_at or last for attempt, (_, last) in burning]
    return JobRow(
        job=job.job_id,
        name=job.name,
        owner=job.submitter,
        team=job.team,
        project=job.project,
        model=job.model,
        phase=job.phase,
        stage=job.stage,
        clusters=_listed(one.account.cluster for one in used),
        zones=_listed(one.account.zone for one in used),
        submitted=to_rfc3339(job.submitted_at),
        start=to_rfc3339(min(starts)) if starts else None,
        end=to_rfc3339(max(ends)) if ends else None,
        state=job.state or "live",
        settled=job.settled,
        attempts=len(used),
        energy_uj=sum(one.account.energy_uj for one in used),
        co2e_ug=sum(one.account.co2e_ug for one in used),
        suspensions=job.suspensions,
        overhead_uj=sum(one.overhead_uj for one in used),
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _licences(series: Iterable[Series], made: Iterable[Embodied]) -> tuple[str, ...]:
    """Who is to be credited, as licences ask for."""
    data = {f"{one.provider}: {one.licence or 'no licence is known'}" for one in series}
    return (*sorted(data), *sorted({f"embodied, {row.hardware}: {row.source}" for row in made}))
