"""Laying readings side by side over a period: best layer first, holes filled by the next (pure)."""

from __future__ import annotations

import bisect
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING

from carbon_sched.domain.time import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from carbon_sched.domain.intensity import Reading


_start = attrgetter("start")


def tile(layers: Iterable[Sequence[Reading]], start: datetime, end: datetime) -> tuple[list[Reading], list[Interval]]:
    """Cover `[start, end)` from the layers, earlier layers first; returns the ordered pieces and the holes left.

    Each layer is ordered and free of overlaps. Readings are cut at the borders of what earlier layers cover.
    """
    pieces: list[Reading] = []
    holes = [Interval(start, end)] if start < end else []
    for layer in layers:
        if not holes:
            break
        starts, ends = [reading.start for reading in layer], [reading.end for reading in layer]
        left: list[Interval] = []
        for hole in holes:
            found = list(layer[bisect.bisect_right(ends, hole.start) : bisect.bisect_left(starts, hole.end)])
            if found:
                found[0] = clip(found[0], hole.start, hole.end)
                found[-1] = clip(found[-1], hole.start, hole.end)
            pieces += found
            left += _gaps(found, hole)
        holes = left
    return sorted(pieces, key=_start), holes


def _gaps(found: Sequence[Reading], hole: Interval) -> list[Interval]:
    gaps, at = [], hole.start
    for reading in found:
        if reading.start > at:
            gaps.append(Interval(at, reading.start))
        at = reading.end
    return [*gaps, Interval(at, hole.end)] if at < hole.end else gaps


def overlaps(left: Sequence[Reading], right: Sequence[Reading]) -> Iterator[tuple[Reading, Reading, float]]:
    """Pairs that overlap and for how many seconds, in order of time; both sides ordered and free of overlaps."""
    i = j = 0
    while i < len(left) and j < len(right):
        one, other = left[i], right[j]
        length = (min(one.end, other.end) - max(one.start, other.start)).total_seconds()
        if length > 0:
            yield one, other, length
        if one.end <= other.end:
            i += 1
        else:
            j += 1


def clip(reading: Reading, start: datetime, end: datetime) -> Reading:
    """The part of `reading` inside `[start, end)`, which must not be empty."""
    first, last = max(reading.start, start), min(reading.end, end)
    inside = first == reading.start and last == reading.end
    return reading if inside else replace(reading, start=first, end=last)


def seconds(readings: Iterable[Reading]) -> float:
    """Time covered by readings that do not overlap."""
    return sum((reading.end - reading.start).total_seconds() for reading in readings)


def mean_mg_per_kwh(readings: Sequence[Reading]) -> float | None:
    """Time-weighted mean intensity; None for no readings."""
    lengths = [(reading.end - reading.start).total_seconds() for reading in readings]
    covered = sum(lengths)
    if not covered:
        return None
    return sum(r.intensity_mg_per_kwh * length for r, length in zip(readings, lengths, strict=True)) / covered
