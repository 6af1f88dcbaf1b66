"""How far a batch has come: what its attempts say of its items, and what they used for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

ITEMS = "items"
"""The unit of work in which a batch counts, in windows of its receipt and figures per unit."""
LEAST_S = 1.0
"""A batch that still runs is not through: it needs so many seconds at least."""


@dataclass(frozen=True)
class BatchState:
    """One attempt's last word: `done` of `total` items have their answers at `at`, whichever attempt made them.

    It works since `since`; what was metered of it by then is `energy_uj`, which emitted `co2e_ug` (None: not known).
    """

    attempt_id: str
    done: int
    total: int
    since: datetime
    at: datetime
    energy_uj: int
    co2e_ug: int | None


@dataclass(frozen=True)
class BatchProgress:
    """A batch as its attempts together tell it; None where nothing can be said yet."""

    done: int
    total: int
    at: datetime
    energy_uj: int
    co2e_ug: int | None
    expected_end: datetime | None


def done_by(states: Sequence[BatchState]) -> list[int]:
    """What each attempt did, oldest first: what was done after it and not before, so that no item counts twice."""
    found, before = [], 0
    for state in states:
        found.append(max(0, state.done - before))
        before = max(before, state.done)
    return found


def progress(states: Sequence[BatchState], *, running: bool) -> BatchProgress | None:
    """From the states of a batch's attempts, oldest first; None without any.

    While it runs its end is expected at the pace of the newest attempt.
    """
    if not states:
        return None
    newest, parts = states[-1], [state.co2e_ug for state in states]
    known = [part for part in parts if part is not None]
    return BatchProgress(
        done=newest.done,
        total=newest.total,
        at=newest.at,
        energy_uj=sum(state.energy_uj for state in states),
        co2e_ug=sum(known) if len(known) == len(parts) else None,
        expected_end=_expected_end(newest, done_by(states)[-1]) if running else None,
    )


def left_s(states: Sequence[BatchState]) -> float | None:
    """Seconds of work before the batch is through, at the pace of all its attempts; None while that is not known."""
    mine = sum(done_by(states))
    if not mine:
        return None
    worked_s = sum((state.at - state.since).total_seconds() for state in states)
    return max(LEAST_S, worked_s / mine * (states[-1].total - states[-1].done))


def _expected_end(newest: BatchState, mine: int) -> datetime | None:
    left = newest.total - newest.done
    if not left:
        return newest.at
    pace_s = (newest.at - newest.since).total_seconds() / mine if mine else 0.0
    return newest.at + timedelta(seconds=pace_s * left) if pace_s else None
