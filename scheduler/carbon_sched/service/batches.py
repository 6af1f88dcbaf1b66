"""What running batches tell of themselves, and what they used for it so far."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.batch import ITEMS, BatchState, done_by
from carbon_sched.domain.emissions import co2e_ug, split_at_readings
from carbon_sched.domain.energy import BATCH, Window, booked
from carbon_sched.domain.intensity import Signal
from carbon_sched.domain.time import EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, ClusterClient, Store, Transaction
    from carbon_sched.service.journal import Journals
    from carbon_sched.service.outlooks import Outlooks
    from carbon_sched.service.statements import Statements
    from carbon_sched_runtime.batch_file import BatchState as Told

MICRO = 1_000_000


class Batches:
    """Reads the state that a batch keeps beside its journal; one newest state per attempt is stored."""

    def __init__(
        self, store: Store, journals: Journals, outlooks: Outlooks, statements: Statements, clock: Clock
    ) -> None:
        self._store, self._journals, self._clock = store, journals, clock
        self._outlooks, self._statements = outlooks, statements

    def look(self, client: ClusterClient, attempt: Attempt) -> None:
        """Store what the attempt tells now, if it is a batch. ClusterError when the cluster gives no answer."""
        told = self._journals.batch(client, attempt, attempt.node_id) if attempt.node_id else None
        if told is None:
            return
        with self._store.transaction(write=False) as tx:
            spans = tx.spans([attempt.attempt_id])
        state = self._state(told, booked(spans))
        with self._store.transaction() as tx:
            tx.put_batch_state(state)

    def _state(self, told: Told, spans: Sequence[EnergySpan]) -> BatchState:
        return BatchState(
            told.attempt,
            told.done,
            told.total,
            since=EPOCH + timedelta(microseconds=told.start_us),
            at=EPOCH + timedelta(microseconds=told.end_us),
            energy_uj=sum(span.energy_uj for span in spans),
            co2e_ug=self._co2e_ug(told.attempt, spans),
        )

    def _co2e_ug(self, attempt_id: str, spans: Sequence[EnergySpan]) -> int | None:
        """As it would be booked now; None where an intensity is not known."""
        if not spans:
            return 0
        opened, now = self._statements.attempt(attempt_id), self._clock.now()
        start, end = min(span.start for span in spans), max(span.end for span in spans)
        readings = [
            reading
            for reading in self._outlooks.actual(opened.zone, start, end, now)
            if reading.signal is Signal.AVERAGE
        ]
        total = 0
        for span in spans:
            for piece in split_at_readings(span.start, span.end, span.energy_uj, readings):
                if piece.reading is None:
                    return None
                total += co2e_ug(piece.energy_uj, opened.pue_ppm, piece.reading.intensity_mg_per_kwh)
        return total


def batch_window(tx: Transaction, attempt: Attempt) -> list[Window]:
    """What an attempt did of its job's batch, as a stretch of work for its receipt; empty where it did nothing."""
    states = tx.batch_states([attempt.job_id]).get(attempt.job_id, [])
    for state, items in zip(states, done_by(states), strict=True):
        if state.attempt_id == attempt.attempt_id and items and state.at > state.since:
            return [Window(BATCH, state.since, state.at, {ITEMS: items * MICRO})]
    return []
