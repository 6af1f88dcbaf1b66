"""What is believed of a job before it runs, learnt from the metered runs of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.energy import booked
from carbon_sched.domain.job import JobState
from carbon_sched.domain.units import joules
from carbon_sched.planning.belief import PastRun, belief
from carbon_sched.ports import JobFilter

if TYPE_CHECKING:
    from carbon_sched.domain.job import JobSpec
    from carbon_sched.planning.snapshot import Belief
    from carbon_sched.ports import Store, Transaction

HISTORY = 20


class Estimates:
    """Beliefs from the store; the history of a name is read once and kept until one of its jobs ends."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._history: dict[str, tuple[PastRun, ...]] = {}

    def belief(self, spec: JobSpec) -> Belief:
        """Duration distribution and power expected of a job with this spec."""
        if spec.name not in self._history:
            with self._store.transaction(write=False) as tx:
                self._history[spec.name] = _past_runs(tx, spec.name)
        return belief(spec, self._history[spec.name])

    def forget(self, name: str) -> None:
        """A job of this name was metered: read its history anew next time."""
        self._history.pop(name, None)


def _past_runs(tx: Transaction, name: str) -> tuple[PastRun, ...]:
    where = JobFilter(states=frozenset({JobState.SUCCEEDED}), name=name)
    runs = []
    for job in tx.jobs(where, limit=HISTORY):
        attempts = [attempt for attempt in tx.attempts(job_id=job.job_id) if attempt.collected]
        if not attempts or attempts[-1].started_at is None or attempts[-1].ended_at is None:
            continue
        duration = (attempts[-1].ended_at - attempts[-1].started_at).total_seconds()
        energy = joules(sum(span.energy_uj for span in booked(tx.spans([attempts[-1].attempt_id]))))
        if duration > 0:
            runs.append(PastRun(duration_s=duration, power_w=energy / duration, spec=job.spec))
    return tuple(runs)
