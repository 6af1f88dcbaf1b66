"""What services answered, and what each request used: the replicas' own sums beside the energy of their attempt.

The energy of a window is all that was booked to the service's attempts in it, idle time included; divided by the
requests and the output tokens of the same window it is what one of them used. Windows begin and end where the sums were
read. Ray Serve counts requests too: its word stands beside the middleware's, and for it where an app has no middleware.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import REQUESTS, Window, booked
from carbon_sched.domain.errors import NotFound
from carbon_sched.domain.job import Phase
from carbon_sched.ledger.account import Period
from carbon_sched_runtime.request_counts import SERVE, Counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.job import Attempt, Job
    from carbon_sched.domain.serve_app import ServeApp
    from carbon_sched.ports import Clock, ClusterClient, Store, Transaction
    from carbon_sched.service.journal import Journals
    from carbon_sched.service.so_far import SoFar

KEPT = timedelta(days=7)
"""Windows reach back so far; the sums of an attempt as a whole stay."""
BOUNDARY = (
    "IT energy of the service's replicas as metered on their machines: whole GPUs they hold, their share of CPUs and "
    "memory, idle time included. Not in it: Serve's own processes, network, clients, the making of model and hardware"
)
LATE = "Serve passes its metrics on up to 20 s late"
MICRO = 1_000_000
Sums = dict[str, Counts]


@dataclass(frozen=True)
class Answered:
    """What a service's attempts answered and used over `[since, until)`; `co2e_ug` None where it is not known.

    `counts` are the middleware's, or of no `replicas` Serve's own, which are `by_serve` (None: they are not read).
    """

    since: datetime
    until: datetime
    replicas: int
    counts: Counts
    by_serve: Counts | None
    energy_uj: int
    co2e_ug: int | None


class Requests:
    """Reads the sums of replicas (the collect loop calls `look`), and divides energy by them."""

    def __init__(self, store: Store, journals: Journals, so_far: SoFar, clock: Clock) -> None:
        self._store, self._journals, self._so_far, self._clock = store, journals, so_far, clock

    def look(self, client: ClusterClient, job: Job, attempt: Attempt) -> None:
        """Store what the replicas of an attempt's service answered so far. ClusterError when the cluster is silent."""
        if job.spec.phase is not Phase.INFERENCE_ONLINE or not attempt.node_id:
            return
        at = self._clock.now()
        record = self._journals.record(client, attempt, attempt.node_id)
        others = [node.node_id for node in record.nodes] if record else []
        told: Sums = {}
        for node in (attempt.node_id, *others):
            told |= self._journals.requests(client, attempt, node)
        if not told:
            return
        with self._store.transaction() as tx:
            known = tx.request_counts([attempt.attempt_id], since=at).get(attempt.attempt_id, [])
            sums = (known[-1][1] if known else {}) | told  # a replica's file goes with its node, its sums stay
            if not known or sums != known[-1][1] or attempt.open:
                tx.add_request_counts(attempt.attempt_id, at, sums)
                tx.forget_request_counts(attempt.attempt_id, before=at - KEPT)

    def answered(self, app: ServeApp, since: datetime) -> Answered:
        """The newest window of a service that begins about `since`, and for which energy is known to its end.

        NotFound while no replica told of a request in it.
        """
        with self._store.transaction(write=False) as tx:
            ids = [one.attempt_id for site in app.everywhere for one in tx.attempts(job_id=site.job_id)]
            series, spans = tx.request_counts(ids, since=since), booked(tx.spans(ids))
        metered = {one: max((span.end for span in spans if span.owner == one), default=None) for one in ids}
        parts = [
            part
            for attempt_id, sums in series.items()
            if (end := metered[attempt_id]) is not None
            if (part := self._part(attempt_id, sums, [s for s in spans if s.owner == attempt_id], end)) is not None
        ]
        if not parts:
            remedy = "Its app counts them with carbon_sched.serve.Middleware; the first figures come after a minute"
            raise NotFound(f"no replica of {app.name} has told of requests whose energy is metered yet. {remedy}")
        return reduce(_joined, parts)

    def _part(
        self, attempt_id: str, sums: Sequence[tuple[datetime, Sums]], spans: Sequence[EnergySpan], metered: datetime
    ) -> Answered | None:
        """One attempt's window: from the first sums to the last whose energy is known."""
        covered = [one for one in sums if one[0] <= metered]
        first, last = covered[0] if covered else None, covered[-1] if covered else None
        if first is None or last is None or first[0] == last[0]:
            return None
        by_serve = last[1][SERVE] - first[1].get(SERVE, Counts()) if SERVE in last[1] else None
        replicas = _replicas(last[1])
        counts = _sum(replicas) - _sum(_replicas(first[1])) if replicas else by_serve or Counts()
        if not replicas and not counts.requests:
            return None
        period = Period(first[0], last[0])
        clipped = [part for span in spans if (part := period.clip(span.start, span.end, span.energy_uj)) is not None]
        energy = sum(energy for _, _, energy in clipped)
        co2e = self._so_far.co2e_ug(attempt_id, clipped)
        return Answered(first[0], last[0], len(replicas), counts, by_serve, energy, co2e)


def requests_window(tx: Transaction, attempt: Attempt, spans: Iterable[EnergySpan]) -> list[Window]:
    """What an attempt's service answered in all, as a stretch of work for its receipt and its model's life cycle."""
    series = tx.request_counts([attempt.attempt_id]).get(attempt.attempt_id, [])
    starts = [span.start for span in spans]
    if not series or not starts:
        return []
    start, end, counts = min(starts), series[-1][0], _total(series[-1][1])
    units = {
        "requests": counts.requests, "input-tokens": counts.input_tokens, "output-tokens": counts.output_tokens,
    }  # fmt: skip
    done = {unit: amount * MICRO for unit, amount in units.items() if amount}
    return [Window(REQUESTS, start, end, done)] if done and end > start else []


def requests_notes(tx: Transaction, attempt: Attempt) -> list[str]:
    """What stands beside every figure per request of an attempt's service: boundary, tokens, batch size, latencies."""
    series = tx.request_counts([attempt.attempt_id]).get(attempt.attempt_id, [])
    sums = series[-1][1] if series else {}
    counts = _total(sums)
    if not counts.requests:
        return []
    batch, p50, p95 = counts.batch_size, counts.latency_s(0.5), counts.latency_s(0.95)
    told = f"{counts.input_tokens} tokens in and {counts.output_tokens} out"
    if batch is not None and p50 is not None and p95 is not None:
        told += f", mean batch size {batch:.3g}, p50 {1000 * p50:.3g} ms, p95 {1000 * p95:.3g} ms"
    note = f"{counts.requests} requests, {counts.failed} failed, {told}. Boundary: {BOUNDARY}"
    return [note, *([reconciled(counts, sums[SERVE])] if SERVE in sums and _replicas(sums) else [])]


def reconciled(counts: Counts, by_serve: Counts) -> str:
    """How far Ray Serve's own count is from the middleware's, in a sentence."""
    apart = by_serve.requests - counts.requests
    word = f"{apart} more than" if apart > 0 else f"{-apart} fewer than" if apart else "as many as"
    return f"Ray Serve's own metrics count {by_serve.requests} requests, {word} the middleware ({LATE})"


def _replicas(sums: Sums) -> Sums:
    return {name: counts for name, counts in sums.items() if name != SERVE}


def _total(sums: Sums) -> Counts:
    """By the middleware of all replicas; of an app without one by Serve's own word."""
    return _sum(_replicas(sums) or sums)


def _sum(sums: Sums) -> Counts:
    return reduce(Counts.__add__, sums.values(), Counts())


def _joined(one: Answered, other: Answered) -> Answered:
    known = None if one.co2e_ug is None or other.co2e_ug is None else one.co2e_ug + other.co2e_ug
    return Answered(
        min(one.since, other.since),
        max(one.until, other.until),
        one.replicas + other.replicas,
        one.counts + other.counts,
        None if one.by_serve is None or other.by_serve is None else one.by_serve + other.by_serve,
        one.energy_uj + other.energy_uj,
        known,
    )
