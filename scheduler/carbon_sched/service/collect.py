"""Fetch energy journals from the clusters, store their spans once, and book an attempt when its journal is complete.

Clusters are asked side by side: one that does not answer delays only what ran there.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import SourceClass
from carbon_sched.domain.errors import CarbonSchedError, ClusterError, Conflict, NotFound
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.service.batches import batch_window
from carbon_sched.service.estimates import past_run
from carbon_sched.service.journal import BadJournal
from carbon_sched.service.keep import Keep
from carbon_sched.service.pull import Pull
from carbon_sched.service.remarks import NO_RECORD, Findings
from carbon_sched.service.requests import requests_notes, requests_window
from carbon_sched.service.runtime_env import is_wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.energy import EnergySpan, Window
    from carbon_sched.domain.job import Attempt, Job
    from carbon_sched.ports import Clock, DeliveredJournals, Store
    from carbon_sched.service.batches import Batches
    from carbon_sched.service.book import Book
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.gauge import Gauge
    from carbon_sched.service.journal import Journals, Segment
    from carbon_sched.service.lanes import Lanes
    from carbon_sched.service.logs import Logs
    from carbon_sched.service.requests import Requests
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

EVERY_S = 30.0
RETRY_S = 1.0
PATIENCE_S = 60.0
"""After an attempt's end its journal is looked for this long; what is not there by then is named as missing."""
SILENT_PATIENCE_S = 600.0
"""The same while the cluster does not answer at all."""
READING_PATIENCE_S = 3600.0
"""The same while segments that were found are still being read: a server that was away has many to read."""
SETTLE_S = 2.0
LATE_BOOKED_S = 3600.0
"""Energy that comes late is booked when none came for a while, or after so long.

The while is as long as the attempt has ended then, between `SETTLE_S` and `PATIENCE_S`: what Ray still ends of a job
comes at once and is booked at once; of a process that stays, each hour is booked.
"""

UNWRAPPED = "energy of CPUs: the job brought its own image, and ran without our wrapper"


class Collect:
    """One loop over attempts whose energy is not completely booked, in a lane per cluster."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        journals: Journals,
        folders: DeliveredJournals,
        book: Book,
        batches: Batches,
        requests: Requests,
        logs: Logs,
        clock: Clock,
        signals: Signals,
        lanes: Lanes,
        gauge: Gauge,
    ) -> None:
        self._store, self._fleet, self._book, self._batches = store, fleet, book, batches
        self._requests = requests
        self._logs, self._lanes, self._gauge = logs, lanes, gauge
        self._clock, self._signals = clock, signals
        self._keep = Keep(store, clock)
        self._pull = Pull(store, journals, folders, clock, self._store_segment)
        self._pulled_at: dict[str, float] = {}
        self._ended_at: dict[str, float] = {}
        self._pauses: list[float] = []
        self._reopened_at: dict[str, float] = {}
        self._late_at: dict[str, float] = {}

    def arrived(self, attempt: Attempt, segment: Segment) -> None:
        """A node pushed a segment, and it is stored."""
        self._pull.arrived(attempt.cluster, segment)

    def step(self) -> float:
        """Pull what is due; returns the seconds until the next look."""
        with self._store.transaction(write=False) as tx:
            attempts = [attempt for attempt in tx.attempts(uncollected_only=True) if attempt.accepted]
        nodes = {attempt.node_id for attempt in attempts}
        lanes: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            if not attempt.open or self._due(attempt):
                lanes.setdefault(attempt.cluster, []).append(attempt)
        self._pauses.clear()
        late = self._lanes.run({name: partial(self._collect_all, name, lane, nodes) for name, lane in lanes.items()})
        return min([EVERY_S, *self._pauses, *[RETRY_S for _ in late]])

    def _due(self, attempt: Attempt) -> bool:
        now = self._clock.monotonic()
        if not attempt.node_id or now - self._pulled_at.get(attempt.attempt_id, 0.0) < EVERY_S:
            return False
        self._pulled_at[attempt.attempt_id] = now
        return True

    def _collect_all(self, cluster: str, attempts: list[Attempt], nodes: set[str]) -> None:
        """Whatever goes wrong with one attempt, the others go on."""
        self._pull.begin(cluster, nodes)
        for attempt in attempts:
            pause_s = RETRY_S
            try:
                pause_s = self._collect(attempt)
            except CarbonSchedError as error:
                log.warning("attempt not collected attempt=%s code=%s: %s", attempt.attempt_id, error.code, error)
            except Exception:
                log.exception("attempt met a bug attempt=%s", attempt.attempt_id)
            self._pauses.append(pause_s)

    def _collect(self, attempt: Attempt) -> float:
        """Pull once; returns the seconds until something is to be done for it again."""
        patience_s = PATIENCE_S
        try:
            cluster = self._fleet.get(attempt.cluster)
            client = self._fleet.client(cluster)
            found = self._pull.attempt(client, cluster, attempt)
            if found.missing and cluster.local is not None and not attempt.open and self._beyond_reach(attempt):
                patience_s = 0.0  # what a head left is read from this machine's disk: there is no more to wait for
            self._batches.look(client, attempt)
            self._requests.look(client, self._job(attempt), attempt)
            if not attempt.open:
                self._logs.keep(attempt)
        except NotFound:
            patience_s, lost = 0.0, f"the cluster {attempt.cluster} was removed before its journal was read"
            found = Findings([lost])
        except ClusterError as error:
            patience_s, lost = SILENT_PATIENCE_S, f"the energy journal could not be read: {error}"
            if not attempt.open and (why := self._beyond_reach(attempt)):
                patience_s, lost = 0.0, f"{why}: what of the journal was not read is gone"
            found = Findings([lost])
        if attempt.open:
            if found.gaps:
                self._gauge.want(attempt.attempt_id)
            return EVERY_S
        if found.missing and self._waited(attempt) < max(patience_s, READING_PATIENCE_S if found.unread else 0.0):
            return RETRY_S
        pause_s = self._unsettled_s(attempt)
        if not pause_s:
            self._finish(attempt, found)
        return pause_s or EVERY_S

    def _job(self, attempt: Attempt) -> Job:
        with self._store.transaction(write=False) as tx:
            return tx.job(attempt.job_id)

    def _beyond_reach(self, attempt: Attempt) -> str:
        """What the cluster says by which nothing more can be read there: another life than then, or the node gone."""
        try:
            client = self._fleet.client(self._fleet.get(attempt.cluster))
            if attempt.epoch and client.epoch().session_name != attempt.epoch:
                return f"{attempt.cluster} was restarted"
            gone = attempt.node_id and client.status().lost(attempt.node_id)
        except ClusterError:
            return ""
        return f"the node that it ran on left {attempt.cluster}" if gone else ""

    def _waited(self, attempt: Attempt) -> float:
        now = self._clock.monotonic()
        return now - self._ended_at.setdefault(attempt.attempt_id, now)

    def _store_segment(self, attempt: Attempt, segment: Segment) -> None:
        try:
            late = self._keep.segment(attempt, segment)
        except Conflict as error:
            raise BadJournal(str(error)) from None
        for one in late:
            self._reopened_at.setdefault(one, self._clock.monotonic())
        for owner in self._reopened_at.keys() & segment.owners:
            self._late_at[owner] = self._clock.monotonic()

    def _unsettled_s(self, attempt: Attempt) -> float:
        """For how many seconds more energy that came late waits for what may come yet; 0 when it is to be booked."""
        now, since = self._clock.monotonic(), self._reopened_at.get(attempt.attempt_id)
        if since is None or now - since >= LATE_BOOKED_S:
            return 0.0
        quiet_s, wanted_s = now - self._late_at.get(attempt.attempt_id, 0.0), PATIENCE_S
        if attempt.ended_at is not None:
            ended_s = (self._clock.now() - attempt.ended_at).total_seconds() - quiet_s
            wanted_s = min(PATIENCE_S, max(SETTLE_S, ended_s))
        return max(0.0, wanted_s - quiet_s)

    def _finish(self, attempt: Attempt, found: Findings) -> None:
        """Book the attempt: which readings apply, and that its energy is complete or what is missing."""
        with self._store.transaction(write=False) as tx:
            job, spans, clusters = tx.job(attempt.job_id), tx.spans([attempt.attempt_id]), tx.clusters()
            found.windows += batch_window(tx, attempt) + requests_window(tx, attempt, spans)
            found.notes += requests_notes(tx, attempt)
        found.gaps += self._gauge.gaps(attempt.attempt_id)
        found = _with_spans(found, job, spans).capped()
        facts, readings = self._book.facts(job, attempt, spans, clusters)
        cluster = next((c for c in clusters if c.name == attempt.cluster), None)
        run = past_run(job, attempt, spans, cluster, self._fleet.status(attempt.cluster))
        body = {
            "attempt": attempt.attempt_id,
            "job": job.job_id,
            "missing": found.missing,
            "notes": found.notes,
            "segments": len({span.segment_sha256 for span in spans}),
            "windows": [_window(window) for window in found.windows],
        }
        if found.overhead:
            body["overhead"] = [_window(window) for window in found.overhead]
        with self._store.transaction() as tx:
            current = tx.attempt(attempt.attempt_id)
            if current.collected:
                return
            tx.put_attempt(replace(current, collected=True, ended_at=current.ended_at or _last(spans)))
            tx.add_readings(readings)
            if run is not None:
                tx.add_run(attempt.attempt_id, run)
            for fact in (*facts, Fact(FactKind.ATTEMPT_COLLECTED, self._clock.now(), body)):
                tx.append_fact(fact)
        self._gauge.forget(attempt.attempt_id)
        self._pulled_at.pop(attempt.attempt_id, None)
        for moments in (self._ended_at, self._reopened_at, self._late_at):
            moments.pop(attempt.attempt_id, None)
        log.info("attempt booked attempt=%s spans=%d missing=%s", attempt.attempt_id, len(spans), found.missing)
        self._signals.job_changed()


def _last(spans: Sequence[EnergySpan]) -> datetime | None:
    return max((span.end for span in spans), default=None)


def _with_spans(found: Findings, job: Job, spans: Sequence[EnergySpan]) -> Findings:
    """What the recorded energy itself shows to be missing."""
    missing, notes = [*found.missing, *found.gaps], list(found.notes)
    if not is_wrapped(job.spec):
        missing = [UNWRAPPED if line == NO_RECORD else line for line in missing]
    if not spans:
        missing.append("no energy was recorded")
    elif job.spec.resources.gpus and not any(span.device_kind == "gpu" for span in spans):
        missing.append("GPUs were asked for, and no GPU energy was recorded for it")
    if any(span.source is SourceClass.ESTIMATED for span in spans):
        remedy = "`carbon-sched meter`, run as root on the machine, measures it where the hardware can"
        notes.append(f"the CPU's part is estimated from utilisation: its counters could not be read. {remedy}")
    return Findings(missing, notes, windows=found.windows, overhead=found.overhead)


def _window(window: Window) -> dict[str, object]:
    times = {"start": to_rfc3339(window.start), "end": to_rfc3339(window.end)}
    return {"name": window.name, **times, "units_millionths": dict(window.units)}
