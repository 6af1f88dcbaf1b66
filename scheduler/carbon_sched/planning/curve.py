"""A zone's outlook as numbers: piecewise-constant intensity on any resolution, and exact expected integrals of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.intensity import RANKING_FLOOR_MG_PER_KWH, Grade
from carbon_sched.domain.units import MG_PER_G

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.domain.intensity import Outlook

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Intensity from `edges[i]` to `edges[i+1]` (seconds from now) is `values[i]` g/kWh; the ends extend for ever.

    `ranked` are the integrals up to each edge of the intensity that decisions are ranked by (zero-carbon hours count
    as 1 g/kWh, so that a zero never swallows every other term); `booked` of the intensity as it is, the same array
    where no hour is that clean. Both in g s/kWh.
    """

    edges: Floats
    values: Floats
    ranked: Floats
    booked: Floats
    grades: tuple[Grade, ...] = ()

    @staticmethod
    def of(outlook: Outlook, now: datetime, steered: Outlook | None = None) -> Curve:
        """The curve of a non-empty outlook, ranked by `steered` if that is given."""
        if steered is not None:
            return Curve.of(outlook, now).ranked_by(Curve.of(steered, now))
        seconds = np.array(outlook.edges_s) - now.timestamp()
        values = [reading.intensity_mg_per_kwh / MG_PER_G for reading in outlook.readings]
        return Curve.from_values(seconds, values, tuple(reading.grade for reading in outlook.readings))

    @staticmethod
    def from_values(
        edges: Sequence[float] | Floats, values: Sequence[float] | Floats, grades: tuple[Grade, ...] = ()
    ) -> Curve:
        """`edges` in seconds, ascending, one more than `values` (g/kWh)."""
        at, level = np.asarray(edges, dtype=np.float64), np.asarray(values, dtype=np.float64)
        floored = np.maximum(level, RANKING_FLOOR_MG_PER_KWH / MG_PER_G)
        booked = np.concatenate([[0.0], np.cumsum(level * np.diff(at))])
        clean = (floored != level).any()
        ranked = np.concatenate([[0.0], np.cumsum(floored * np.diff(at))]) if clean else booked
        return Curve(at, level, ranked, booked, grades)

    def ranked_by(self, other: Curve) -> Curve:
        """Booked as this one, ranked and graded as the other."""
        edges = np.union1d(self.edges, other.edges)
        return Curve(
            edges,
            self.values[_pieces(self.edges, edges)],
            _at(other.edges, other.ranked, edges),
            _at(self.edges, self.booked, edges),
            tuple(other.grades[i] for i in _pieces(other.edges, edges)) if other.grades else (),
        )

    def flat(self, seconds: float) -> Curve:
        """Without any movement: at the mean of the time from now on."""
        reach = min(seconds, max(float(self.edges[-1]), 1.0))
        mean = float(np.diff(_at(self.edges, self.booked, np.array([0.0, reach])))[0]) / reach
        return Curve.from_values([0.0, reach], [mean], self.grades[-1:])

    def ranked_g(self, starts: Floats, durations: Floats, weights: Floats) -> Floats:
        """Expected grams per kilowatt of power for a run begun at each start; shape of `starts`.

        `starts` is `[m]` with `durations` and `weights` `[K]`, or `[n, m]` with `[n, K]` for n jobs at once. With D
        discrete, E[integral of f over [s, s+D)] = sum of w (F(s+d) - F(s)): the integral of survival times intensity,
        exactly.
        """
        return _expected(self.edges, self.ranked, starts, durations, weights) / 3600.0

    def booked_g(self, starts: Floats, durations: Floats, weights: Floats) -> Floats:
        """The same, of the intensity as it is."""
        return _expected(self.edges, self.booked, starts, durations, weights) / 3600.0

    def worst_grade(self, start: float, end: float) -> Grade | None:
        """The lowest quality of the values a run from `start` to `end` was scored with."""
        if not self.grades:
            return None
        first = max(int(np.searchsorted(self.edges, start, side="right")) - 1, 0)
        last = int(np.searchsorted(self.edges, end, side="left"))
        used = self.grades[min(first, len(self.grades) - 1) : max(last, first + 1)] or self.grades[-1:]
        return max(used, key=lambda grade: grade.rank)


def _expected(edges: Floats, integral: Floats, starts: Floats, durations: Floats, weights: Floats) -> Floats:
    ends = _at(edges, integral, starts[..., None] + durations[..., None, :])
    out: Floats = np.matmul(ends, weights[..., None])[..., 0]
    out -= _at(edges, integral, starts) * weights.sum(axis=-1, keepdims=True)
    return out


def _pieces(of: Floats, edges: Floats) -> NDArray[np.int64]:
    """In which piece of the first each piece of the second begins; beyond either end in the last one there."""
    found: NDArray[np.int64] = np.clip(np.searchsorted(of, edges[:-1], side="right") - 1, 0, len(of) - 2)
    return found


def _at(edges: Floats, integral: Floats, times: Floats) -> Floats:
    """The integral up to `times`; beyond either end it goes on with the slope of the last piece there."""
    out: Floats = np.interp(times, edges, integral)
    if times.size and times.min() < edges[0]:
        out += np.minimum(times - edges[0], 0.0) * (integral[1] - integral[0]) / (edges[1] - edges[0])
    if times.size and times.max() > edges[-1]:
        out += np.maximum(times - edges[-1], 0.0) * (integral[-1] - integral[-2]) / (edges[-1] - edges[-2])
    return out
