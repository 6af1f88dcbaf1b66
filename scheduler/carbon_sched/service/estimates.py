"""What is believed of a job before it runs, learnt from the metered runs of its name and of its class."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import booked
from carbon_sched.domain.job import JobEvent
from carbon_sched.domain.run import PastRun
from carbon_sched.domain.units import joules
from carbon_sched.planning.belief import belief
from carbon_sched.planning.experience import Classes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster, ClusterStatus
    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.job import Attempt, Job, JobSpec
    from carbon_sched.planning.snapshot import Belief
    from carbon_sched.ports import Store, Transaction

HISTORY = 20
"""Runs of one name that an estimate is made from; what is older had other code or data."""
CLASS_RUNS = 5000
"""Runs of all names that the classes are learnt from when a server starts."""
PARTS = 4
ACCELERATOR = "accelerator_type:"


class Estimates:
    """Beliefs from the store; what finished since the last look is read anew each time, whoever wrote it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._classes = Classes()
        self._names: dict[str, list[PastRun]] = {}
        self._last = 0
        self._made: dict[tuple[object, ...], Belief] = {}

    def learn(self, tx: Transaction) -> None:
        """Take in the runs that were stored since the last call."""
        with self._lock:
            new = tx.runs(after=self._last, limit=CLASS_RUNS)
            for run in new:
                self._classes.add(run)
                if run.name in self._names:
                    self._names[run.name] = [*self._names[run.name], run][-HISTORY:]
            self._last = max([self._last, *(run.number for run in new)])
            if new:
                self._made.clear()

    def belief(self, spec: JobSpec) -> Belief:
        """Duration distribution and power expected of a job with this spec; made once for jobs that are alike."""
        alike = (spec.name, spec.phase, spec.estimate, repr(spec.resources))  # resources hold maps, which have no hash
        with self._lock:
            known = self._made.get(alike)
            if known is None:
                known = self._made[alike] = self._new(spec)
            return known

    def keep(self, specs: Iterable[JobSpec]) -> None:
        """Forget what is known of other names than theirs; it is read anew where it is asked for again."""
        names = {spec.name for spec in specs}
        with self._lock:
            self._names = {name: runs for name, runs in self._names.items() if name in names}
            self._made = {alike: known for alike, known in self._made.items() if alike[0] in names}

    def _new(self, spec: JobSpec) -> Belief:
        if spec.name not in self._names:
            with self._store.transaction(write=False) as tx:
                known = [run for run in tx.runs(name=spec.name, limit=HISTORY) if run.number <= self._last]
                self._names[spec.name] = known
        peers = self._classes.of(spec.phase, spec.resources, spec.resources.gpu_type)
        return belief(spec, self._names[spec.name], peers)


def past_run(
    job: Job, attempt: Attempt, spans: Sequence[EnergySpan], cluster: Cluster | None, status: ClusterStatus | None
) -> PastRun | None:
    """What a collected attempt teaches; None for one that did not succeed, or whose times are not known."""
    begin, end = attempt.started_at, attempt.ended_at
    if attempt.outcome != JobEvent.SUCCEEDED.value or begin is None or end is None or end <= begin:
        return None
    duration, counted = (end - begin).total_seconds(), booked(spans)
    energy = joules(sum(span.energy_uj for span in counted))
    return PastRun(
        name=job.spec.name,
        resources=job.spec.resources,
        duration_s=duration,
        power_w=energy / duration,
        phase=job.spec.phase,
        gpu_type=_ran_on(job.spec, cluster, status),
        profile=_profile(counted, begin, end),
        start_up_s=max((begin - attempt.opened_at).total_seconds(), 0.0),
    )


def _ran_on(spec: JobSpec, cluster: Cluster | None, status: ClusterStatus | None) -> str | None:
    """The type asked for, else the only one the cluster has; None where it has several or does not say."""
    if spec.resources.gpu_type or not spec.resources.gpus:
        return spec.resources.gpu_type
    pools = {pool.gpu_type for pool in cluster.pools if pool.gpu_type} if cluster else set()
    nodes = status.nodes if status else ()
    seen = {name[len(ACCELERATOR) :] for node in nodes for name in node.resources if name.startswith(ACCELERATOR)}
    types = {name.upper() for name in pools | seen}
    return types.pop() if len(types) == 1 else None


def _profile(spans: Sequence[EnergySpan], begin: datetime, end: datetime) -> tuple[float, ...]:
    """Power in equal parts of the run over its mean; empty where the spans are too long to tell the parts apart."""
    part_s = (end - begin).total_seconds() / PARTS
    energy = [0.0] * PARTS
    for span in spans:
        first, last = ((moment - begin).total_seconds() / part_s for moment in (span.start, span.end))
        if last - first > 1:
            return ()
        for part in range(PARTS):
            inside = min(last, part + 1) - max(first, part)
            energy[part] += span.energy_uj * max(inside, 0.0) / (last - first)
    total = sum(energy)
    return tuple(PARTS * value / total for value in energy) if total > 0 else ()
