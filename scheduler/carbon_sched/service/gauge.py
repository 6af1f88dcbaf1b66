"""Energy of attempts from Ray's own power gauge, where no reader of ours runs: unwrapped jobs, and nodes without one.

Power is looked at every 10 s and integrated by the trapezoid rule. Rows are marked as Ray's word; where a reader of
ours read the same GPU at the same time they are evidence only (ENERGY-ATTRIBUTION.md, section 14).
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import EnergySpan, Reporter, SourceClass
from carbon_sched.domain.errors import ClusterError, NotFound
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import PPM
from carbon_sched.service.journal import Segment
from carbon_sched.service.runtime_env import is_wrapped

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, GpuPower, Store
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.keep import Keep
    from carbon_sched.service.lanes import Lanes

log = logging.getLogger(__name__)

EVERY_S = 10.0
SEALED_S = 30.0
LONGEST_S = 30.0
"""Between looks further apart than this nothing is integrated: the power in between is unknown."""
ERROR_PPM = 500_000
"""Adopted: power between two looks is not seen, and holders of a part of a GPU are charged by that part."""
KEPT = 1000
"""Of so many attempts it stays known what the gauge did not show."""
RULE = "ray-gauge"


@dataclass
class Series:
    """What one attempt drew on one GPU since the last seal: energy in uJ, and the power last seen, in mW."""

    gpu: GpuPower
    start: datetime
    seen: datetime
    power_mw: int
    energy_uj: int = 0
    samples: list[tuple[str, int]] = field(default_factory=list)

    def look(self, now: datetime, power_mw: int) -> None:
        """Add the time since the last look: the mean of both powers times the time; mW x us / 1000 = uJ."""
        elapsed_us = round((now - self.seen).total_seconds() * 1e6)
        self.energy_uj += (self.power_mw + power_mw) * elapsed_us // 2000
        self.seen, self.power_mw = now, power_mw
        self.samples.append((to_rfc3339(now), power_mw))


class Gauge:
    """One loop over running attempts that nobody of ours meters, in a lane per cluster."""

    def __init__(self, store: Store, fleet: Fleet, keep: Keep, clock: Clock, lanes: Lanes) -> None:
        self._store, self._fleet, self._keep, self._clock, self._lanes = store, fleet, keep, clock, lanes
        self._wanted: set[str] = set()
        self._series: dict[str, dict[str, Series]] = {}
        self._gaps: dict[str, dict[str, None]] = {}

    def want(self, attempt_id: str) -> None:
        """Nodes of this wrapped attempt may go unmetered: its wrapper said so. May be called from any thread."""
        self._wanted.add(attempt_id)

    def gaps(self, attempt_id: str) -> list[str]:
        """What this server could not read of the gauge while the attempt ran."""
        return list(self._gaps.get(attempt_id, ()))

    def forget(self, attempt_id: str) -> None:
        """The attempt is booked; its gaps stay known, for what was not sealed yet has it booked once more."""
        self._wanted.discard(attempt_id)

    def step(self) -> float:
        """Look at the gauge of every cluster that needs it; returns the seconds until the next look."""
        with self._store.transaction(write=False) as tx:
            begun = list(self._series)
            known = {one.attempt_id: one for one in tx.attempts(uncollected_only=True) if one.accepted}
            known |= {name: tx.attempt(name) for name in begun if name not in known}
            lanes: dict[str, list[Attempt]] = {}
            for name, attempt in known.items():
                if name in self._wanted or name in begun or not is_wrapped(tx.job(attempt.job_id).spec):
                    lanes.setdefault(attempt.cluster, []).append(attempt)
        self._lanes.run({name: partial(self._look, name, attempts) for name, attempts in lanes.items()})
        return EVERY_S

    def _look(self, cluster: str, attempts: list[Attempt]) -> None:
        running = [attempt for attempt in attempts if attempt.open]
        for attempt in attempts:
            if not attempt.open:
                self._seal(attempt)
        if not running:
            return
        try:
            gpus = self._fleet.client(self._fleet.get(cluster)).gpu_power()
        except (ClusterError, NotFound) as error:
            log.warning("power gauge not read cluster=%s: %s", cluster, error)
            for attempt in running:
                self._miss(attempt, "Ray's power gauge did not answer for a time")
            return
        for attempt in running:
            self._sample(attempt, gpus)

    def _sample(self, attempt: Attempt, gpus: list[GpuPower]) -> None:
        now = self._clock.now()
        series = self._series.setdefault(attempt.attempt_id, {})
        if any((now - one.seen).total_seconds() > LONGEST_S or now < one.seen for one in series.values()):
            self._miss(attempt, f"GPU power between looks at Ray's gauge over {LONGEST_S:g} s apart")
            self._seal(attempt)
            series = self._series.setdefault(attempt.attempt_id, {})
        for gpu in gpus:
            part = min(gpu.holders.get(attempt.attempt_id, 0), PPM)
            if gpu.power_mw is None:
                if part:
                    self._miss(attempt, "the power of GPUs, which this cluster's Ray does not show over HTTP")
            elif gpu.uuid in series:
                series[gpu.uuid].look(now, gpu.power_mw * part // PPM)
            elif part:
                power_mw = gpu.power_mw * part // PPM
                series[gpu.uuid] = Series(gpu, now, now, power_mw, samples=[(to_rfc3339(now), power_mw)])
        if any((now - one.start).total_seconds() >= SEALED_S for one in series.values()):
            self._seal(attempt, go_on=True)

    def _miss(self, attempt: Attempt, what: str) -> None:
        self._gaps.setdefault(attempt.attempt_id, {})[what] = None
        for oldest in list(self._gaps)[:-KEPT]:
            del self._gaps[oldest]

    def _seal(self, attempt: Attempt, *, go_on: bool = False) -> None:
        """Store what was integrated; with `go_on` the next part adjoins it."""
        series = self._series.pop(attempt.attempt_id, {})
        done = {uuid: one for uuid, one in series.items() if one.seen > one.start}
        if done:
            self._keep.segment(attempt, _segment(attempt, done))
        if go_on:
            self._series[attempt.attempt_id] = {
                uuid: Series(one.gpu, one.seen, one.seen, one.power_mw, samples=one.samples[-1:])
                for uuid, one in series.items()
                if one.power_mw
            }


def _segment(attempt: Attempt, series: dict[str, Series]) -> Segment:
    """What stands for a reader's segment: named by its attempt and time, hashed over the samples it was made of."""
    evidence = json.dumps({uuid: one.samples for uuid, one in sorted(series.items())}).encode()
    digest = hashlib.sha256(evidence).hexdigest()
    start, end = min(one.start for one in series.values()), max(one.seen for one in series.values())
    spans = tuple(_span(attempt, one, digest) for one in series.values())
    name = f"{RULE}-{attempt.attempt_id}-{start:%Y%m%dT%H%M%S.%f}"
    return Segment(name, digest, spans, "ray", start, end, ("gpu",), reporter=Reporter.RAY)


def _span(attempt: Attempt, one: Series, digest: str) -> EnergySpan:
    return EnergySpan(
        owner=attempt.attempt_id,
        cluster=attempt.cluster,
        machine=f"ray-{one.gpu.node_id[:12]}",
        device=f"gpu:{one.gpu.uuid}",
        device_kind="gpu",
        start=one.start,
        end=one.seen,
        energy_uj=one.energy_uj,
        source=SourceClass.INTEGRATED,
        reporter=Reporter.RAY,
        scope="board",
        rule=RULE,
        error_ppm=ERROR_PPM,
        segment_sha256=digest,
    )
