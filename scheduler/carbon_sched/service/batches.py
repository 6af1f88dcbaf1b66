"""What running batches tell of themselves, and what they used for it so far."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.batch import ITEMS, BatchState, done_by
from carbon_sched.domain.energy import BATCH, Window, booked
from carbon_sched.domain.time import EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import ClusterClient, Store, Transaction
    from carbon_sched.service.journal import Journals
    from carbon_sched.service.so_far import SoFar
    from carbon_sched_runtime.batch_file import BatchState as Told

MICRO = 1_000_000


class Batches:
    """Reads the state that a batch keeps beside its journal; one newest state per attempt is stored."""

    def __init__(self, store: Store, journals: Journals, so_far: SoFar) -> None:
        self._store, self._journals, self._so_far = store, journals, so_far

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
            co2e_ug=self._so_far.co2e_ug(told.attempt, [(one.start, one.end, one.energy_uj) for one in spans]),
        )


def batch_window(tx: Transaction, attempt: Attempt) -> list[Window]:
    """What an attempt did of its job's batch, as a stretch of work for its receipt; empty where it did nothing."""
    states = tx.batch_states([attempt.job_id]).get(attempt.job_id, [])
    for state, items in zip(states, done_by(states), strict=True):
        if state.attempt_id == attempt.attempt_id and items and state.at > state.since:
            return [Window(BATCH, state.since, state.at, {ITEMS: items * MICRO})]
    return []
