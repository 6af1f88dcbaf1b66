"""Book a collected attempt: which intensity applied while it ran, and while the reference choices would have run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import from_rfc3339, to_rfc3339
from carbon_sched.ledger.records import ACTUAL, BEST_FIXED, HOME, ORACLE
from carbon_sched.service.hindsight import LONGEST, SLOT, least, profile, tiled
from carbon_sched.service.outlooks import home_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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

    def __init__(
        self,
        outlooks: Outlooks,
        statements: Statements,
        policies: Policies,
        clock: Clock,
        direct: Callable[[str, datetime, datetime, datetime], Sequence[Reading]] = lambda *_: (),
    ) -> None:
        """`direct` knows combustion-only readings of a zone in `[start, end)` by now; with holes."""
        self._outlooks, self._statements, self._policies, self._clock = outlooks, statements, policies, clock
        self._direct = direct

    def facts(
        self, job: Job, attempt: Attempt, spans: Sequence[EnergySpan], clusters: Sequence[Cluster]
    ) -> tuple[list[Fact], list[Reading]]:
        """`readings-used` facts of one attempt and the readings they name. No spans, no facts.

        The references run the identical energy profile as if it had been dispatched at submission: on the home cluster,
        and on the best fixed cluster of the 28 days before. The time Ray took to start the job is in both. The third is
        the best of all that was allowed, known only now. Zone and PUE
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
        choices += self._in_hindsight(job, spans, places)
        facts, used = [], []
        for role, name, by in choices:
            if name not in places:
                continue
            place = places[name]
            readings = self._outlooks.actual(place.zone, start + by, end + by, self._clock.now())
            used += readings
            direct = self._direct(place.zone, start, end, self._clock.now()) if role == ACTUAL else ()
            facts.append(self._fact(job, attempt, role, place, by, readings, direct))
        return facts, used

    def _in_hindsight(
        self, job: Job, spans: Sequence[EnergySpan], places: Mapping[str, Place]
    ) -> list[tuple[str, str | None, timedelta]]:
        """The best start on the best cluster, of those the decision allowed and of times that are over by now."""
        decision = self._statements.of([job.job_id], lambda book: book.jobs[job.job_id].placed)
        if decision is None or decision.get("latest_start") is None:
            return []
        start, end = min(span.start for span in spans), max(span.end for span in spans)
        shape = profile(spans, start)
        first, now = job.submitted_at, self._clock.now()
        last = min(from_rfc3339(decision["latest_start"]), now - (end - start), first + LONGEST)
        if last < first or end - start > LONGEST:
            return []
        found = []
        for name in dict.fromkeys(item["cluster"] for item in decision["candidates"] if item["feasible"]):
            place = places.get(name)
            until = last + len(shape) * SLOT
            readings = self._outlooks.actual(place.zone, first, until, now) if place else []
            if place and tiled(readings, first, until):
                sum_, at = least(shape, readings, first, last)
                found.append((sum_ * place.pue_ppm, name, at - start))
        return [(ORACLE, *min(found)[1:])] if found else []

    def _fact(
        self,
        job: Job,
        attempt: Attempt,
        role: str,
        place: Place,
        shift: timedelta,
        readings: Sequence[Reading],
        direct: Sequence[Reading],
    ) -> Fact:
        body: dict[str, object] = {
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
        if direct:
            body["direct"] = [_reading(reading) for reading in direct]
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
