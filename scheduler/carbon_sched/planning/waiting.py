"""Whether a job waits: the earliest of the cheapest starts, and a gate that spares classes with little to gain.

Asking every job for a large gain costs most where shifting pays (3 % at every look lose 12 points of the oracle),
since the gain that is left shrinks from hour to hour. So it is asked of the class instead: of the mean of what its jobs
of the last eight weeks were promised when they were first looked at. Only while too few are known is the job itself
asked, once, when it is first looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

TIE = 1e-9
WINDOW_DAYS = 56
"""Of eight weeks and not four: a few windy ones in winter closed the gate for Poland, where waiting pays."""
ENOUGH_JOBS = 20


def best_start(costs: Floats) -> Ints:
    """Column of the earliest of the cheapest starts per row; `costs` `[n, m]`, infinite where not allowed."""
    least = costs.min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # a row of infinities has no best start: the first will do
        out: Ints = np.argmax((costs <= least * (1 + TIE)) | (costs == least), axis=1)
    return out


def promised(at_once: Floats, best: Floats) -> Floats:
    """Share of the grams at once that the best start saves, 0 where nothing is known."""
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = 1.0 - best / at_once
    return np.where(np.isfinite(gain), np.maximum(gain, 0.0), 0.0)


@dataclass(frozen=True)
class Day:
    """What the jobs first seen on one day would emit at once, what waiting promised to save of it, and their number."""

    grams: float = 0.0
    saved: float = 0.0
    jobs: int = 0


@dataclass(frozen=True)
class Gate:
    """What each class of jobs was promised of late; a value, every note makes a new one.

    `days[key]` holds one record per day number, no older than eight weeks behind the newest.
    """

    days: Mapping[str, Mapping[int, Day]] = field(default_factory=dict)

    def expected(self, key: str, today: int) -> float | None:
        """Mean gain promised to the class in the eight weeks before `today`; None while too few jobs are known."""
        past = [day for number, day in self.days.get(key, {}).items() if today - WINDOW_DAYS <= number < today]
        grams, jobs = sum(day.grams for day in past), sum(day.jobs for day in past)
        return sum(day.saved for day in past) / grams if jobs >= ENOUGH_JOBS and grams > 0 else None

    def least_gain(self, key: str, today: int, required: float) -> float:
        """What a job of the class must be promised to wait: nothing, everything, or `required` of itself."""
        usual = self.expected(key, today)
        if usual is None:
            return required
        return 0.0 if usual >= required else float("inf")

    def noted(self, key: str, today: int, at_once: Floats, gain: Floats) -> Gate:
        """With jobs first looked at today: what they would emit at once (grams) and the share waiting promises."""
        known = np.isfinite(at_once)
        if not known.any():
            return self
        old = self.days.get(key, {})
        was = old.get(today, Day())
        grams, saved = float(at_once[known].sum()), float((at_once * gain)[known].sum())
        now = Day(was.grams + grams, was.saved + saved, was.jobs + int(known.sum()))
        kept = {number: day for number, day in old.items() if today - WINDOW_DAYS <= number}
        return Gate({**self.days, key: {**kept, today: now}})
