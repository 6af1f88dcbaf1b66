"""What finished jobs teach about those to come: run times by class and size on a logarithmic scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHORTEST_S, LONGEST_S = 10.0, 60 * 86_400.0
BINS = 300
"""About 5 % a step: far finer than any job is known."""
CLASS_RUNS = 30.0
"""A class as a whole counts as this many runs of the job's own size (prototype section 2.4)."""


class Experience:
    """Histograms of run times, `[classes, sizes, BINS]`; a job is believed from its own size and its whole class.

    Nothing may be added before it has ended: what is believed of a job then rests on the past alone.
    """

    def __init__(self, classes: int, sizes: int) -> None:
        self._edges = np.geomspace(SHORTEST_S, LONGEST_S, BINS + 1)
        self._middle = np.sqrt(self._edges[1:] * self._edges[:-1])
        self._seen = np.zeros((classes, sizes, BINS))

    def add(self, classes: Ints, sizes: Ints, seconds: Floats) -> None:
        """Learn from finished runs, `[n]` each."""
        bins = np.clip(np.searchsorted(self._edges, seconds) - 1, 0, BINS - 1)
        np.add.at(self._seen, (classes, sizes, bins), 1.0)

    def beliefs(self, classes: Ints, sizes: Ints, points: int) -> Floats:
        """`[n, points]` equally likely run times in seconds, ascending; NaN where the class has never been seen."""
        whole = self._seen.sum(axis=1)
        runs = whole.sum(axis=1, keepdims=True)
        share = np.divide(whole, runs, out=np.full_like(whole, np.nan), where=runs > 0)
        chance = self._seen[classes, sizes] + CLASS_RUNS * share[classes]
        chance /= chance.sum(axis=1, keepdims=True)
        return np.stack([self._points(row, points) for row in chance]) if len(chance) else np.empty((0, points))

    def _points(self, chance: Floats, points: int) -> Floats:
        """Means of equal parts of the distribution."""
        if not np.isfinite(chance[0]):
            return np.full(points, np.nan)
        below = np.concatenate([[0.0], np.cumsum(chance)])
        integral = np.concatenate([[0.0], np.cumsum(chance * self._middle)])
        out: Floats = np.diff(np.interp(np.linspace(0.0, below[-1], points + 1), below, integral)) * points
        return out
