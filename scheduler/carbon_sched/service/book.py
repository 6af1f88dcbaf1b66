"""Book a collected attempt: which intensity applied while it ran, and while the reference choices would have run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.records import ACTUAL, BEST_FIXED, HOME
from carbon_sched.service.outlooks import home_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.domain.job import Attempt, Job
    from carbon_sched.ports import Clock
    from carbon_sched.service.outlooks import Outlooks
    from carbon_sched.service.policies import Policies
    from carbon_sched.service.statements import Statements


@dataclass(frozen=True)
class Place:
    """Where energy is used, as far as its booking goes."""

    cluster: str
    zone: str
    pue_ppm: int
    pue_source: str


class Book:
    """Chooses readings for an attempt and its references; the arithmetic is the ledger's."""

    def __init__(self, outlooks: Outlooks, statements: Statements, policies: Policies, clock: Clock) -> None:
        self._outlooks, self._statements, self._policies, self._clock = outlooks, statements, policies, clock

    def facts(
        self, job: Job, attempt: Attempt, spans: Sequence[EnergySpan], clusters: Sequence[Cluster]
    ) -> tuple[list[Fact], list[Reading]]:
        """`readings-used` facts of one attempt and the readings they name. No spans, no facts.

        The references run the identical energy profile as if it had been dispatched at submission: on the home cluster,
        and on the best fixed cluster of the 28 days before. The time Ray took to start the job is in both. Zone and PUE
        of where it ran are those of its opening: a cluster that is described anew, or removed, changes no figure of it.
        """
        if not spans:
            return [], []
        start, end = min(span.start for span in spans), max(span.end for span in spans)
        places = {c.name: Place(c.name, c.zone, c.pue.ppm, c.pue.source) for c in clusters}
        opened = self._statements.attempt(attempt.attempt_id)
        places[attempt.cluster] = Place(opened.cluster, opened.zone, opened.pue_ppm, opened.pue_source)
        zero = timedelta(0)
        shift = job.submitted_at - attempt.opened_at
        home = self._policies.now().settings(job.spec).home or home_of(clusters)
        best = self._outlooks.best_fixed(clusters, job.submitted_at)
        choices = [(ACTUAL, attempt.cluster, zero), (HOME, home, shift), (BEST_FIXED, best, shift)]
        facts, used = [], []
        for role, name, by in choices:
            if name not in places:
                continue
            place = places[name]
            readings = self._outlooks.actual(place.zone, start + by, end + by, self._clock.now())
            used += readings
            facts.append(self._fact(job, attempt, role, place, by, readings))
        return facts, used

    def _fact(
        self, job: Job, attempt: Attempt, role: str, place: Place, shift: timedelta, readings: Sequence[Reading]
    ) -> Fact:
        body = {
            "job": job.job_id,
            "attempt": attempt.attempt_id,
            "role": role,
            "cluster": place.cluster,
            "zone": place.zone,
            "pue_ppm": place.pue_ppm,
            "pue_source": place.pue_source,
            "shift_us": round(shift / timedelta(microseconds=1)),
            "provider": ", ".join(dict.fromkeys(reading.provider for reading in readings)),
            "readings": [_reading(reading) for reading in readings],
        }
        return Fact(FactKind.READINGS_USED, self._clock.now(), body)


def _reading(reading: Reading) -> dict[str, object]:
    return {
        "start": _time(reading.start),
        "end": _time(reading.end),
        "mg_per_kwh": reading.intensity_mg_per_kwh,
        "signal": reading.signal.value,
        "basis": reading.basis.value,
        "perimeter": reading.perimeter.value,
        "kind": reading.kind.value,
        "grade": reading.grade.value,
        "provider": reading.provider,
        "model_version": reading.model_version,
        "issued_at": _time(reading.issued_at),
        "fetched_at": _time(reading.fetched_at),
        "sha256": reading.payload_sha256,
        "licence": reading.licence,
    }


def _time(value: datetime) -> str:
    return to_rfc3339(value)
