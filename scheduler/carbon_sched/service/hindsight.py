"""The best allowed choice in hindsight: where and when, of all a job was allowed, its energy would have emitted least.

Found on a grid of quarter hours; what is then booked for it is exact, by the identical method as every other choice.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.intensity import Reading

SLOT = timedelta(minutes=15)
LONGEST = timedelta(days=14)
"""Windows and runs beyond this are cut: further back nothing is kept at hand."""


def profile(spans: Sequence[EnergySpan], start: datetime) -> NDArray[np.float64]:
    """Energy by quarter hours from `start` on, any unit; a span counts where it begins (it is five minutes at most)."""
    slots = [int((span.start - start) // SLOT) for span in spans]
    shape = np.zeros(max(slots) + 1)
    np.add.at(shape, slots, [float(span.energy_uj) for span in spans])
    return shape


def least(
    shape: NDArray[np.float64], readings: Sequence[Reading], first: datetime, last: datetime
) -> tuple[float, datetime]:
    """The least sum of energy times intensity over all starts in `[first, last]`, a quarter hour apart, and its start.

    `readings` are ordered and tile `[first, last + run)`.
    """
    starts = int((last - first) // SLOT) + 1
    edges = np.array([(reading.end - first).total_seconds() for reading in readings])
    values = np.array([float(reading.intensity_mg_per_kwh) for reading in readings])
    middles = (np.arange(starts + len(shape) - 1) + 0.5) * SLOT.total_seconds()
    index = np.minimum(np.searchsorted(edges, middles, side="right"), len(values) - 1)
    sums = np.correlate(values[index], shape, mode="valid")
    best = int(np.argmin(sums))
    return float(sums[best]), first + best * SLOT


def tiled(readings: Sequence[Reading], start: datetime, end: datetime) -> bool:
    """Whether readings cover `[start, end)` without a hole."""
    if not readings or readings[0].start > start or readings[-1].end < end:
        return False
    return all(left.end == right.start for left, right in pairwise(readings))
