"""Fetch energy journals from the clusters, store their spans once, and book an attempt when its journal is complete.

Clusters are asked side by side: one that does not answer delays only what ran there.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import IDLE, UNATTRIBUTED
from carbon_sched.domain.errors import CarbonSchedError, ClusterError, Conflict, NotFound
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.service.journal import BadJournal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, ClusterClient, Store, Transaction
    from carbon_sched.service.book import Book
    from carbon_sched.service.estimates import Estimates
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.journal import AttemptRecord, Journals, Segment
    from carbon_sched.service.lanes import Lanes
    from carbon_sched.service.logs import Logs
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

MACHINE_POTS = frozenset({IDLE, UNATTRIBUTED})
EVERY_S = 30.0
RETRY_S = 1.0
PATIENCE_S = 60.0
"""After an attempt's end its journal is looked for this long; what is not there by then is named as missing."""
SILENT_PATIENCE_S = 600.0
"""The same while the cluster does not answer at all."""


class Collect:
    """One loop over attempts whose energy is not completely booked, in a lane per cluster."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        journals: Journals,
        book: Book,
        estimates: Estimates,
        logs: Logs,
        clock: Clock,
        signals: Signals,
        lanes: Lanes,
    ) -> None:
        self._store, self._fleet, self._journals, self._book = store, fleet, journals, book
        self._estimates, self._logs, self._lanes = estimates, logs, lanes
        self._clock, self._signals = clock, signals
        self._known: dict[str, set[str]] = {}
        self._pulled_at: dict[str, float] = {}
        self._ended_at: dict[str, float] = {}
        self._waiting = False

    def step(self) -> float:
        """Pull what is due; returns the seconds until the next look."""
        with self._store.transaction(write=False) as tx:
            attempts = [attempt for attempt in tx.attempts(uncollected_only=True) if attempt.accepted]
        lanes: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            if not attempt.open or self._due(attempt):
                lanes.setdefault(attempt.cluster, []).append(attempt)
        self._waiting = False
        late = self._lanes.run({name: partial(self._collect_all, lane) for name, lane in lanes.items()})
        return RETRY_S if self._waiting or late else EVERY_S

    def _due(self, attempt: Attempt) -> bool:
        now = self._clock.monotonic()
        if not attempt.node_id or now - self._pulled_at.get(attempt.attempt_id, 0.0) < EVERY_S:
            return False
        self._pulled_at[attempt.attempt_id] = now
        return True

    def _collect_all(self, attempts: list[Attempt]) -> None:
        """Whatever goes wrong with one attempt, the others go on."""
        for attempt in attempts:
            try:
                done = self._collect(attempt)
            except CarbonSchedError as error:
                done = False
                log.warning("attempt not collected attempt=%s code=%s: %s", attempt.attempt_id, error.code, error)
            except Exception:
                done = False
                log.exception("attempt met a bug attempt=%s", attempt.attempt_id)
            if not done:
                self._waiting = True

    def _collect(self, attempt: Attempt) -> bool:
        """Pull once; True when nothing more is to be done for now."""
        patience_s = PATIENCE_S
        try:
            client = self._fleet.client(self._fleet.get(attempt.cluster))
            missing = self._pull(client, attempt)
            if not attempt.open:
                self._logs.keep(attempt)
        except NotFound:
            patience_s, missing = 0.0, [f"the cluster {attempt.cluster} was removed before its journal was read"]
        except ClusterError as error:
            patience_s, missing = SILENT_PATIENCE_S, [f"the energy journal could not be read: {error}"]
            if not attempt.open and self._forgotten(attempt):
                patience_s = 0.0
                missing = [f"{attempt.cluster} was restarted: what of the journal was not read is gone"]
        if attempt.open:
            return True
        if missing and self._waited(attempt) < patience_s:
            return False
        self._finish(attempt, missing)
        return True

    def _forgotten(self, attempt: Attempt) -> bool:
        """Whether the cluster says that it lives another life than the one the attempt ran in."""
        try:
            client = self._fleet.client(self._fleet.get(attempt.cluster))
            return bool(attempt.epoch) and client.epoch().session_name != attempt.epoch
        except ClusterError:
            return False

    def _waited(self, attempt: Attempt) -> float:
        now = self._clock.monotonic()
        return now - self._ended_at.setdefault(attempt.attempt_id, now)

    def _pull(self, client: ClusterClient, attempt: Attempt) -> list[str]:
        """Store every segment not seen yet; returns what is known to be missing."""
        if not attempt.node_id:
            return [] if attempt.open else ["the node it ran on is not known"]
        known = self._known.setdefault(attempt.attempt_id, set())
        missing = []
        for name in self._journals.segment_names(client, attempt):
            if name in known:
                continue
            try:
                self._store_segment(attempt, self._journals.segment(client, attempt, name))
            except BadJournal as error:
                log.warning("energy segment refused attempt=%s segment=%s: %s", attempt.attempt_id, name, error)
                missing.append(f"segment {name} was refused: {error}")
                continue
            known.add(name)
        if attempt.open:
            return missing
        return missing + self._incomplete(self._journals.record(client, attempt, attempt.node_id))

    def _incomplete(self, record: AttemptRecord | None) -> list[str]:
        """What the wrapper itself says is not there."""
        if record is None:
            return ["the wrapper left no record"]
        if not record.complete:
            return ["the wrapper did not finish its energy journal", *record.faults]
        return list(record.faults)

    def _store_segment(self, attempt: Attempt, segment: Segment) -> None:
        """Rows of attempts on this cluster, and the machine's idle rows; each is stored once, whoever delivers it.

        A segment speaks for the whole machine, so the same one arrives through every attempt that ran there.
        """
        with self._store.transaction() as tx:
            here = {owner for owner in segment.owners if _cluster_of(tx, owner) == attempt.cluster}
            mine = [span for span in segment.spans if span.owner in here]
            machine = [span for span in segment.spans if span.owner in MACHINE_POTS]
            for key, spans in ((f"{attempt.cluster}/{segment.name}", mine), (segment.name, machine)):
                self._store_spans(tx, attempt, segment, key, spans)

    def _store_spans(
        self, tx: Transaction, attempt: Attempt, segment: Segment, key: str, spans: Sequence[EnergySpan]
    ) -> None:
        try:
            new = tx.add_segment(
                segment_id=key,
                sha256=segment.sha256,
                cluster=attempt.cluster,
                attempt_id=attempt.attempt_id,
                spans=spans,
                received_at=self._clock.now(),
            )
        except Conflict:
            message = f"{segment.name} was delivered before with other content"
            raise BadJournal(message) from None
        if not new:
            return
        attempts = dict.fromkeys(span.owner for span in spans if span.owner not in MACHINE_POTS)
        for owner in attempts:
            body = {"attempt": owner, "cluster": attempt.cluster, **_evidence(segment, spans, {owner})}
            tx.append_fact(Fact(FactKind.ENERGY_RECORDED, self._clock.now(), body))
        if not attempts and spans:
            body = {"machine": spans[0].machine, "cluster": attempt.cluster, **_evidence(segment, spans, MACHINE_POTS)}
            tx.append_fact(Fact(FactKind.MACHINE_ENERGY_RECORDED, self._clock.now(), body))

    def _finish(self, attempt: Attempt, missing: list[str]) -> None:
        """Book the attempt: which readings apply, and that its energy is complete or what is missing."""
        with self._store.transaction(write=False) as tx:
            job, spans, clusters = tx.job(attempt.job_id), tx.spans([attempt.attempt_id]), tx.clusters()
        if not spans:
            missing = [*missing, "no energy was recorded"]
        facts, readings = self._book.facts(job, attempt, spans, clusters)
        body = {
            "attempt": attempt.attempt_id,
            "job": job.job_id,
            "missing": missing,
            "segments": len({span.segment_sha256 for span in spans}),
        }
        with self._store.transaction() as tx:
            current = tx.attempt(attempt.attempt_id)
            if current.collected:
                return
            tx.put_attempt(replace(current, collected=True, ended_at=current.ended_at or _last(spans)))
            tx.add_readings(readings)
            for fact in (*facts, Fact(FactKind.ATTEMPT_COLLECTED, self._clock.now(), body)):
                tx.append_fact(fact)
        self._known.pop(attempt.attempt_id, None)
        self._pulled_at.pop(attempt.attempt_id, None)
        self._ended_at.pop(attempt.attempt_id, None)
        self._estimates.forget(job.spec.name)
        log.info("attempt booked attempt=%s spans=%d missing=%s", attempt.attempt_id, len(spans), missing)
        self._signals.job_changed()


def _cluster_of(tx: Transaction, owner: str) -> str | None:
    """The cluster of an attempt; None for owners that are no attempts of ours."""
    try:
        return tx.attempt(owner).cluster
    except NotFound:
        return None


def _last(spans: Sequence[EnergySpan]) -> datetime | None:
    return max((span.end for span in spans), default=None)


def _evidence(segment: Segment, spans: Sequence[EnergySpan], owners: Collection[str]) -> dict[str, object]:
    """What a fact says of one segment's energy for these owners."""
    rows = [_span(span) for span in spans if span.owner in owners]
    return {"segment": segment.name, "sha256": segment.sha256, "spans": rows}


def _span(span: EnergySpan) -> dict[str, object]:
    return {
        "owner": span.owner,
        "machine": span.machine,
        "device": span.device,
        "kind": span.device_kind,
        "start": to_rfc3339(span.start),
        "end": to_rfc3339(span.end),
        "energy_uj": span.energy_uj,
        "source": span.source.value,
        "reporter": span.reporter.value,
        "scope": span.scope,
        "rule": span.rule,
        "error_ppm": span.error_ppm,
        "flags": list(span.flags),
    }
