"""Hourly intensity series and the causal filling of their gaps (forecast layer: pure numpy, no I/O)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.time import utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.intp]

HOUR = timedelta(hours=1)
DAY = 24
HALF = 0.5
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def hour_of(moment: datetime) -> int:
    """Number of the UTC hour that holds the moment, counted from 1970-01-01T00Z (a Thursday)."""
    return int((utc(moment) - EPOCH) // HOUR)


@dataclass(frozen=True, eq=False)
class HourlySeries:
    """Intensity of one zone per hour: `values[i]` holds for `[start + i h, start + (i+1) h)`; NaN where unknown.

    Any unit will do (the forecaster is scale-free and answers in the unit it was given); the service uses mg/kWh.
    """

    start: datetime
    values: Floats

    def __post_init__(self) -> None:
        start = utc(self.start)
        if (start.minute, start.second, start.microsecond) != (0, 0, 0):
            raise ValueError(f"an hourly series starts on a whole hour in UTC, not at {start.isoformat()}")
        values = np.array(self.values, dtype=np.float64)
        if values.ndim != 1:
            raise ValueError(f"an hourly series has one dimension, not shape {values.shape}")
        values[~np.isfinite(values) | (values < 0)] = np.nan
        values.setflags(write=False)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "values", values)

    @property
    def end(self) -> datetime:
        """End of the last hour."""
        return self.start + len(self.values) * HOUR

    def until(self, moment: datetime) -> HourlySeries:
        """The hours that had ended by `moment`: all that a forecast issued then may see."""
        return HourlySeries(self.start, self.values[: max(hour_of(moment) - hour_of(self.start), 0)])

    def since(self, moment: datetime) -> HourlySeries:
        """The hours from the one that holds `moment` on."""
        cut = max(hour_of(moment) - hour_of(self.start), 0)
        return HourlySeries(self.start + cut * HOUR, self.values[cut:])

    def trimmed(self) -> HourlySeries:
        """Without unknown hours at either end; empty when nothing is known."""
        known = np.flatnonzero(np.isfinite(self.values))
        if len(known) == 0:
            return HourlySeries(self.start, np.empty(0))
        first, last = int(known[0]), int(known[-1])
        return HourlySeries(self.start + first * HOUR, self.values[first : last + 1])

    @staticmethod
    def from_intervals(intervals: Iterable[tuple[datetime, datetime, float]]) -> HourlySeries:
        """Average half-open `(start, end, value)` pieces of any length into hours, weighted by overlap.

        An hour is known when at least half of it is covered. Raises ValueError when there is no piece at all.
        """
        pieces = [((a - EPOCH) / HOUR, (b - EPOCH) / HOUR, value) for a, b, value in intervals]
        if not pieces:
            raise ValueError("no readings to make an hourly series of")
        begins, ends, values = np.array(pieces, dtype=np.float64).T
        first = int(begins.min())
        hour, overlap, piece = _overlaps(begins - first, ends - first)
        weight = np.bincount(hour, overlap)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.bincount(hour, overlap * values[piece]) / weight
        return HourlySeries(EPOCH + first * HOUR, np.where(weight >= HALF, means, np.nan))


def on_one_clock(series: Mapping[str, HourlySeries]) -> tuple[datetime, dict[str, Floats]]:
    """The same hours for all: the common start and `zone -> [hours]`, NaN outside a zone's own span.

    Raises ValueError when there is no series.
    """
    if not series:
        raise ValueError("no series to put on one clock")
    first = min(hour_of(one.start) for one in series.values())
    hours = max(hour_of(one.end) for one in series.values()) - first
    out = {zone: np.full(hours, np.nan) for zone in series}
    for zone, one in series.items():
        begin = hour_of(one.start) - first
        out[zone][begin : begin + len(one.values)] = one.values
    return EPOCH + first * HOUR, out


def joined(older: HourlySeries, newer: HourlySeries) -> HourlySeries:
    """Both; where both know an hour, what the newer says of it."""
    start, values = on_one_clock({"older": older, "newer": newer})
    return HourlySeries(start, np.where(np.isfinite(values["newer"]), values["newer"], values["older"]))


def _overlaps(begins: Floats, ends: Floats) -> tuple[Ints, Floats, Ints]:
    """Every hour that some `[begin, end)` (in hours) overlaps: the hour, how much of it, and which piece does."""
    first, last = begins.astype(np.intp), np.ceil(ends).astype(np.intp)
    hours = np.maximum(last - first, 0)
    piece = np.repeat(np.arange(len(begins)), hours)
    hour = np.arange(len(piece)) - np.repeat(np.cumsum(hours) - hours, hours) + first[piece]
    return hour, np.minimum(hour + 1, ends[piece]) - np.maximum(hour, begins[piece]), piece


def filled(values: Floats) -> Floats:
    """Fill unknown hours from earlier ones only, so that a later value can never leak into an earlier forecast.

    A missing hour becomes the same hour of the day before, shifted by the present departure from the day before,
    which halves every 12 hours into the gap; without a day before it repeats the last value. `values[0]` must be known.
    """
    gaps = np.flatnonzero(~np.isfinite(values))
    out = np.array(values, dtype=np.float64)
    for i in gaps:
        before = i - DAY
        shift = out[i - 1] - out[before - 1] if before >= 1 else 0.0
        out[i] = max(out[before] + 0.5 ** (1 / 12) * shift, 0.0) if before >= 1 else out[i - 1]
    return out
