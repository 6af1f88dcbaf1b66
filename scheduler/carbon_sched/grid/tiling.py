"""Laying readings side by side over a period: best layer first, holes filled by the next (pure)."""

from __future__ import annotations

import bisect
from dataclasses import replace
from typing import TYPE_CHECKING

from carbon_sched.domain.time import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from carbon_sched.domain.intensity import Reading


def tile(layers: Iterable[Sequence[Reading]], start: datetime, end: datetime) -> tuple[list[Reading], list[Interval]]:
    """Cover `[start, end)` from the layers, earlier layers first; returns the ordered pieces and the holes left.

    Each layer is ordered and free of overlaps. Readings are cut at the borders of what earlier layers cover.
    """
    pieces: list[Reading] = []
    holes = [Interval(start, end)] if start < end else []
    for layer in layers:
        if not holes:
            break
        ends = [reading.end for reading in layer]
        left: list[Interval] = []
        for hole in holes:
            found = _within(layer, ends, hole)
            pieces += found
            left += _gaps(found, hole)
        holes = left
    return sorted(pieces, key=lambda reading: reading.start), holes


def _within(layer: Sequence[Reading], ends: Sequence[datetime], hole: Interval) -> list[Reading]:
    found = []
    for index in range(bisect.bisect_right(ends, hole.start), len(layer)):
        if layer[index].start >= hole.end:
            break
        found.append(clip(layer[index], hole.start, hole.end))
    return found


def _gaps(found: Sequence[Reading], hole: Interval) -> list[Interval]:
    gaps, at = [], hole.start
    for reading in found:
        if reading.start > at:
            gaps.append(Interval(at, reading.start))
        at = reading.end
    return [*gaps, Interval(at, hole.end)] if at < hole.end else gaps


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
    covered = seconds(readings)
    if not covered:
        return None
    return sum(r.intensity_mg_per_kwh * (r.end - r.start).total_seconds() for r in readings) / covered
