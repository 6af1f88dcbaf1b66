"""What a suspension costs a job, in seconds of running: by its user's word until suspensions of its like were metered.

Alike are jobs of one name and submitter. Each part of the cost (`domain.energy.Overhead`) is learnt by itself, from the
energy of its stretches: a job that never says when it has its state back keeps the said cost of a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from statistics import NormalDist, fmean, pvariance
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import Overhead
from carbon_sched.ledger.account import Period

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carbon_sched.domain.energy import Window
    from carbon_sched.domain.job import Job, JobSpec
    from carbon_sched.ledger.index import Index
    from carbon_sched.ledger.records import AttemptRecord
    from carbon_sched.service.statements import Statements

RESTART_S = 120.0
"""What saving, starting again and repeated work cost in seconds of running, until the job says or shows it."""
SHARES = {Overhead.LOST: 0.5, Overhead.SAVING: 0.25, Overhead.RESTART: 0.25}
"""How a said cost is divided while only some of its parts were metered."""
SCATTER = 0.5
"""Of a cost that was said, or metered once, so much of itself is its standard deviation."""
KEPT = 1_024
"""Suspended jobs of which what they show is kept."""
HISTORY = 20
"""Jobs of one name that are learnt from; what is older had other code or data."""


@dataclass(frozen=True)
class Cost:
    """Seconds of running that a suspension is expected to cost, their standard deviation, and how often it was metered.

    Where the cost is only said, `metered` is 0.
    """

    mean_s: float
    deviation_s: float
    metered: int = 0

    def upper_s(self, confidence: float) -> float:
        """Seconds that are not exceeded with this probability, taking the cost as normal."""
        return max(0.0, self.mean_s + NormalDist().inv_cdf(confidence) * self.deviation_s)


UNKNOWN = Cost(0.0, 0.0)
"""Of a job that cannot be suspended."""


@dataclass(frozen=True)
class Metered:
    """What one more suspension of a job costs, and by attempt the stretches that those so far took, where booked."""

    cost: Cost
    overheads: Mapping[str, Sequence[Window]]


@dataclass(frozen=True)
class Taken:
    """What a suspended job shows: its stretches by attempt, and of each settled one the seconds by part of the cost."""

    overheads: Mapping[str, Sequence[Window]]
    seconds: Sequence[Mapping[str, float]]


class Economics:
    """Learns from the ledger; what was computed of a job is kept while nothing new is known of it."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._taken = lru_cache(maxsize=KEPT)(self._read)

    def metered(self, job: Job) -> Metered:
        """What the ledger knows of it by now."""
        own, alike = self._statements.look(lambda index: _alike(index, job.job_id))
        samples: dict[str, list[float]] = {}
        for one in alike:
            for seconds in self._taken(*one).seconds:
                for part, value in seconds.items():
                    samples.setdefault(part, []).append(value)
        return Metered(cost(job.spec, samples), self._taken(*own).overheads if own else {})

    def _read(self, job_id: str, _newest: int) -> Taken:
        attempts = self._statements.of([job_id], lambda book: book.jobs[job_id].attempts)
        return Taken(
            {name: tuple(one.overhead) for name, one in attempts.items()},
            [seconds_of_running(one) for one in attempts.values() if one.overhead and one.settled],
        )


def _alike(index: Index, job_id: str) -> tuple[tuple[str, int] | None, list[tuple[str, int]]]:
    """The job, where it was suspended, and the newest of its like that were, each with its newest entry."""
    (number,) = index.numbers([job_id]) or [-1]
    if number < 0:
        return None, []
    job = index.jobs[number]
    own = (job_id, index.suspended[number]) if number in index.suspended else None
    alike = (
        (one.job_id, newest)
        for one, newest in ((index.jobs[each], newest) for each, newest in reversed(index.suspended.items()))
        if (one.name, one.submitter) == (job.name, job.submitter)
    )
    return own, list(islice(alike, HISTORY))


def cost(spec: JobSpec, samples: Mapping[str, Sequence[float]]) -> Cost:
    """From what was metered of each part; what was not is the part's share of the user's word, or of the default."""
    said = RESTART_S if spec.flexibility.restart_s is None else spec.flexibility.restart_s
    mean = variance = 0.0
    for part, share in SHARES.items():
        seen = samples.get(part.value, ())
        middle = fmean(seen) if seen else share * said
        mean += middle
        variance += pvariance(seen) * len(seen) / (len(seen) - 1) if len(seen) > 1 else (SCATTER * middle) ** 2
    return Cost(mean, variance**0.5, max((len(seen) for seen in samples.values()), default=0))


def seconds_of_running(attempt: AttemptRecord) -> dict[str, float]:
    """By part of the cost, its energy over the mean power of the attempt's other time; its length without a meter."""
    used = {window: _energy_uj(attempt, window) for window in map(_period, attempt.overhead)}
    taken_s = sum(_length_s(window) for window in attempt.overhead)
    work_s = _ran_s(attempt) - taken_s
    work_uj = sum(span.energy_uj for span in attempt.spans) - sum(used.values())
    found: dict[str, float] = {}
    for window in attempt.overhead:
        seconds = used[_period(window)] * work_s / work_uj if work_s > 0 and work_uj > 0 else _length_s(window)
        found[window.name] = found.get(window.name, 0.0) + seconds
    return found


def _ran_s(attempt: AttemptRecord) -> float:
    if attempt.started_at is None or attempt.ended_at is None:
        return 0.0
    return (attempt.ended_at - attempt.started_at).total_seconds()


def _period(window: Window) -> Period:
    return Period(window.start, window.end)


def _length_s(window: Window) -> float:
    return (window.end - window.start).total_seconds()


def _energy_uj(attempt: AttemptRecord, period: Period) -> int:
    inside = (period.clip(span.start, span.end, span.energy_uj) for span in attempt.spans)
    return sum(one[2] for one in inside if one is not None)
