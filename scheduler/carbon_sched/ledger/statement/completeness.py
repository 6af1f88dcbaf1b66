"""Row 22: every job of the selection by how it ended, and each cluster's own list of jobs beside the ledger."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.domain.units import PPM
from carbon_sched.ledger.statement.model import Completeness, Reconciled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from carbon_sched.ledger.account import Period as Cut
    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.records import AttemptRecord, JobRecord, Listing


def completeness(
    book: Book, jobs: Sequence[JobRecord], attempts: Sequence[AttemptRecord], clusters: Iterable[str], period: Cut
) -> Completeness:
    """Of these jobs and attempts; of the clusters as a whole, since nobody knows whose the jobs past us are."""
    return Completeness(
        states=tuple(sorted(Counter(job.state or "live" for job in jobs).items())),
        outcomes=tuple(sorted(Counter(attempt.outcome or "open" for attempt in attempts).items())),
        retried=sum(1 for job in jobs if len(job.attempts) > 1),
        without_energy=sum(1 for attempt in attempts if _ran(attempt) and not attempt.stretches),
        clusters=tuple(_reconciled(book, cluster, period) for cluster in sorted(set(clusters))),
    )


def _ran(attempt: AttemptRecord) -> bool:
    return attempt.started_at is not None or bool(attempt.recorded)


def _reconciled(book: Book, cluster: str, period: Cut) -> Reconciled:
    listings = [listing for listing in book.listings if listing.cluster == cluster]
    known = {name: one for job in book.jobs.values() for name, one in job.attempts.items() if one.cluster == cluster}
    listed = {name for listing in listings for name in listing.ours}
    elsewhen = {name for name in listed if book.left_out.get(name) == cluster}
    mine = {name for name in listed - elsewhen if name not in known or period.holds(known[name].opened_at)}
    past = [item for listing in listings for item in listing.others if period.holds(from_rfc3339(item["seen_at"]))]
    unknown = mine - known.keys()
    seen = len(mine) + len(past)
    return Reconciled(
        cluster=cluster,
        listings=len(listings),
        since=_first(listings),
        until=to_rfc3339(listings[-1].until) if listings else None,
        ours=len(mine - unknown),
        past_us=len(past),
        past_us_us=sum(item["lasted_us"] or 0 for item in past),
        unknown=len(unknown),
        unlisted=sum(1 for name, one in known.items() if name not in listed and _listable(one, listings, period)),
        coverage_ppm=PPM * len(mine - unknown) // seen if seen else None,
    )


def _listable(attempt: AttemptRecord, listings: Sequence[Listing], period: Cut) -> bool:
    """Whether a listing was made after it ran, within what the listings watched: it should have been in one."""
    if attempt.ended_at is None or attempt.started_at is None or not listings or not period.holds(attempt.opened_at):
        return False
    first = listings[0].since or listings[0].until
    return first <= attempt.opened_at and attempt.ended_at <= listings[-1].until


def _first(listings: Sequence[Listing]) -> str | None:
    return to_rfc3339(listings[0].since or listings[0].until) if listings else None
