"""The one formula: CO2e = sum of E_IT x PUE x intensity over intervals, in exact integers.

Spans are split at reading borders in proportion to time; parts sum to the whole exactly (largest remainder). Source of
the formula: GHG Protocol Scope 2 Guidance (location-based method) and ISO/IEC 21031:2024 (SCI), operational part.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from carbon_sched.domain.time import US
from carbon_sched.domain.units import UJ_PPM_MG_PER_UG

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from carbon_sched.domain.intensity import Reading


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Split a non-negative integer by integer weights; parts sum to `total` exactly (largest remainder, first on ties).

    All-zero weights raise ValueError: nobody to give it to is not the same as an equal split.
    """
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0 or total < 0:
        message = f"cannot apportion {total} by {list(weights)}"
        raise ValueError(message)
    parts = [total * weight // whole for weight in weights]
    rest = total - sum(parts)
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for index in by_remainder[:rest]:
        parts[index] += 1
    return parts


def co2e_ug(energy_uj: int, pue_ppm: int, intensity_mg_per_kwh: int) -> int:
    """Micrograms CO2e of `energy_uj` IT energy, rounded half up."""
    return each_co2e_ug((energy_uj,), pue_ppm, intensity_mg_per_kwh)[0]


def each_co2e_ug(energy_uj: Iterable[int], pue_ppm: int, intensity_mg_per_kwh: int) -> list[int]:
    """`co2e_ug` of each."""
    twice, whole, half = 2 * pue_ppm * intensity_mg_per_kwh, 2 * UJ_PPM_MG_PER_UG, UJ_PPM_MG_PER_UG
    return [(used_uj * twice + half) // whole for used_uj in energy_uj]


_END = attrgetter("end")


class Piece(NamedTuple):
    """The part of a span that one reading covers; `reading` is None where nothing was known."""

    start: datetime
    end: datetime
    energy_uj: int
    reading: Reading | None


class Cut(NamedTuple):
    """A stretch under one reading; None where nothing is known."""

    start: datetime
    end: datetime
    reading: Reading | None

    @property
    def length_us(self) -> int:
        """Microseconds."""
        return (self.end - self.start) // US


def split_at_readings(start: datetime, end: datetime, energy_uj: int, readings: Sequence[Reading]) -> list[Piece]:
    """Cut `[start, end)` at the borders of `readings` (ordered, not overlapping); energy follows time, exactly."""
    pieces = split_each_at_readings(start, end, (energy_uj,), readings)
    return [Piece(cut.start, cut.end, uj, cut.reading) for cut, (uj,) in pieces]


def split_each_at_readings(
    start: datetime, end: datetime, energy_uj: tuple[int, ...], readings: Sequence[Reading]
) -> list[tuple[Cut, tuple[int, ...]]]:
    """The same for several energies that share `[start, end)`."""
    cuts = cut_at_readings(start, end, readings)
    if len(cuts) == 1:
        return [(cuts[0], energy_uj)]
    lengths = [cut.length_us for cut in cuts]
    return list(zip(cuts, zip(*(apportion(uj, lengths) for uj in energy_uj), strict=True), strict=True))


def cut_at_readings(start: datetime, end: datetime, readings: Sequence[Reading]) -> list[Cut]:
    """`[start, end)` by what is known of it, in order."""
    first = bisect_right(readings, start, key=_END)
    if first < len(readings) and readings[first].start <= start and readings[first].end >= end:
        return [Cut(start, end, readings[first])]  # nearly always, and there are millions
    cuts: list[Cut] = []
    for reading in islice(readings, first, None):
        if reading.start >= end:
            break
        if reading.start > start:
            cuts.append(Cut(start, reading.start, None))
            start = reading.start
        cuts.append(Cut(start, min(end, reading.end), reading))
        start = cuts[-1].end
    if start < end:
        cuts.append(Cut(start, end, None))
    return cuts
