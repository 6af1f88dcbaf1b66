"""Book attempts again when a provider revised its history, or measured what was only forecast or averaged when booked.

Each attempt of the last two weeks is looked at once a day. A restatement is a further `readings-used` fact of a role;
the ledger keeps both, and statements show both figures. What would have been best is known better by then, too. Values
of a lower grade replace nothing.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.intensity import Grade
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.records import ACTUAL
from carbon_sched.ledger.records import ReadingsUsed as Used

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from carbon_sched.ledger.index import Index
    from carbon_sched.ports import Clock, Store
    from carbon_sched.service.book import Book
    from carbon_sched.service.statements import Statements

log = logging.getLogger(__name__)

EVERY_S = 3600.0
AGAIN = timedelta(days=1)
WITHIN = timedelta(days=14)


class Restate:
    """One loop."""

    def __init__(self, store: Store, statements: Statements, book: Book, clock: Clock) -> None:
        self._store, self._statements, self._book, self._clock = store, statements, book, clock
        self._looked: dict[str, datetime] = {}

    def step(self) -> float:
        """Look at each attempt whose time has come; returns the seconds until the next time."""
        now = self._clock.now()
        recent = self._statements.look(lambda index: _attempts(index, now - WITHIN))
        looked = ((name, self._looked.get(name) or self._booked(name)) for name in recent)
        self._looked = {name: at for name, at in looked if at is not None}
        for name, at in list(self._looked.items()):
            if now - at >= AGAIN:
                self._looked[name] = now
                self._again(name)
        return EVERY_S

    def _booked(self, attempt_id: str) -> datetime | None:
        """When a collected attempt was booked last."""
        attempt = self._statements.attempt(attempt_id)
        used = attempt.newest(ACTUAL)
        return used.at if attempt.collected and used and used.readings else None

    def _again(self, attempt_id: str) -> None:
        with self._store.transaction(write=False) as tx:
            attempt = tx.attempt(attempt_id)
            job, spans, clusters = tx.job(attempt.job_id), tx.spans([attempt_id]), tx.clusters()
        if not attempt.collected:
            return
        facts, readings = self._book.facts(job, attempt, spans, clusters)
        record = self._statements.attempt(attempt_id)
        better = [fact for fact in facts if _better(record.newest(fact.body["role"]), fact.body)]
        if not better:
            return
        with self._store.transaction() as tx:
            tx.add_readings(readings)
            for fact in better:
                tx.append_fact(fact)
        log.info("attempt restated attempt=%s roles=%s", attempt_id, [fact.body["role"] for fact in better])


def _attempts(index: Index, since: datetime) -> list[str]:
    """Those of jobs that used energy, or began or ended, since then."""
    jobs = set(index.since(since))
    return [name for name, (number, _) in index.attempts.items() if number in jobs]


def _better(before: Used | None, body: Mapping[str, Any]) -> bool:
    """Whether a role is booked otherwise now, and with no value of a lower grade than the worst of before."""
    if before is None:
        return True
    now = [(item["start"], item["end"], item["mg_per_kwh"]) for item in body["readings"]]
    then = [(to_rfc3339(r.start), to_rfc3339(r.end), r.intensity_mg_per_kwh) for r in before.readings]
    same = (before.cluster, before.pue_ppm, then) == (body["cluster"], body["pue_ppm"], now)
    worst = max(reading.grade.rank for reading in before.readings)
    return not same and all(Grade(item["grade"]).rank <= worst for item in body["readings"])
