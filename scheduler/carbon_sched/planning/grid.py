"""The slots a plan is made on: fine enough to use the outlook's steps, few enough to plan thousands of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from carbon_sched.planning.curve import Curve

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

NICE_STEPS_S = (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
MOST_STARTS = 400
MOST_SLOTS = 1600
MOST_PRICES = 240


@dataclass(frozen=True)
class Grid:
    """Slot i covers `[origin_s + i step_s, ...)`, in seconds from now; slot `now` is the one that contains this moment.

    Borders lie on whole multiples of `coarse` slots since 1970, as the steps of every outlook do; so a slot never
    straddles a step of the forecast.
    """

    origin_s: float
    step_s: float
    coarse: int
    now: int
    starts: int

    @staticmethod
    def of(now_epoch_s: float, latest_s: float, longest_s: float, curves: Iterable[Curve]) -> Grid:
        """The grid for starts up to `latest_s` from now and expected runs up to `longest_s`."""
        wanted = max(latest_s / MOST_STARTS, (latest_s + longest_s) / MOST_SLOTS)
        step = next((float(nice) for nice in NICE_STEPS_S if nice >= wanted), float(NICE_STEPS_S[-1]))
        resolution = min((_resolution(curve) for curve in curves), default=3600.0)
        reach = (latest_s + min(longest_s, MOST_SLOTS * step)) / MOST_PRICES
        coarse = max(1, round(resolution / step)) if resolution >= step else 1
        coarse *= max(1, -(-int(reach) // int(max(coarse * step, 1))))
        origin = -(now_epoch_s % (coarse * step))
        now = floor(-origin / step)
        return Grid(origin, step, coarse, now, now + floor(latest_s / step) + 2)

    def slot(self, seconds: float) -> int:
        """The slot that contains a moment, at the earliest the present one."""
        return max(self.now, floor((seconds - self.origin_s) / self.step_s + 1e-9))

    def slots(self, seconds: Floats) -> Ints:
        """`slot` of many moments."""
        out: Ints = np.maximum(self.now, np.floor((seconds - self.origin_s) / self.step_s + 1e-9)).astype(np.int64)
        return out

    def slot_after(self, seconds: float) -> int:
        """The first slot that begins no earlier than a moment."""
        return max(self.now, ceil((seconds - self.origin_s) / self.step_s - 1e-9))

    def time(self, slot: int) -> float:
        """When a slot begins, in seconds from now; the present slot begins now."""
        return max(0.0, self.origin_s + slot * self.step_s)

    def length(self, seconds: float) -> int:
        """Slots that a run of this length takes, at least one."""
        return max(1, int(np.ceil(seconds / self.step_s - 1e-9)))


def _resolution(curve: Curve) -> float:
    """The usual length of an outlook's steps in seconds; the long-term average at its end does not count."""
    lengths = np.diff(curve.edges)[:-1]
    return float(np.median(lengths)) if len(lengths) else 3600.0
