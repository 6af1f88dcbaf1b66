"""Bringing one provider's shape to another's level, so that zones can be ranked by one method (pure).

A national operator often publishes finer steps and longer forecasts than the provider that covers every zone, but
counts emissions differently. Its values say *when* a zone is clean; the common provider says *how* clean. What is
rescaled says so in `model_version`, and is never kind `measured`.
"""

from __future__ import annotations

import bisect
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.intensity import MAX_INTENSITY_MG_PER_KWH, Comparability, Grade, Kind, Reading
from carbon_sched.grid.tiling import mean_mg_per_kwh, overlaps, seconds, tile

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_OVERLAP = timedelta(hours=3)
"""Below this the ratio of two providers' levels is mostly chance."""
MIN_FOR_YEARLY = timedelta(hours=24)
"""A yearly level says nothing about a few hours: the ratio needs a whole day of the shape at least."""

AT_LEVEL, IN_STEPS = "at the level of", "in steps of"
"""How `model_version` says that a value was rescaled, and after whom."""


def refined(lead: Sequence[Reading], national: Sequence[Reading]) -> list[Reading]:
    """`lead` with the finer steps of `national` inside its intervals, each interval's mean kept.

    An interval is refined where `national` covers it with at least two steps and a mean above zero.
    """
    out: list[Reading] = []
    starts, ends = [step.start for step in national], [step.end for step in national]
    for reading in lead:
        near = national[bisect.bisect_right(ends, reading.start) : bisect.bisect_left(starts, reading.end)]
        steps, holes = tile([near], reading.start, reading.end)
        mean = mean_mg_per_kwh(steps)
        if holes or len(steps) < 2 or not mean:
            out.append(reading)
            continue
        mark = f"{reading.model_version} {IN_STEPS} {steps[0].provider}".strip()
        out += [
            _scaled(step, reading, reading.intensity_mg_per_kwh / mean, mark, _worse(reading, step)) for step in steps
        ]
    return out


def at_level_of(lead: Sequence[Reading], national: Sequence[Reading]) -> list[Reading]:
    """`national` scaled to the mean level of `lead` over the time that both cover; empty when that is too little."""
    common = level = own = 0.0
    for ours, theirs, length in overlaps(lead, national):
        common += length
        level += ours.intensity_mg_per_kwh * length
        own += theirs.intensity_mg_per_kwh * length
    if common < MIN_OVERLAP.total_seconds():
        return []
    if not level or not own:
        return []
    mark = f"{AT_LEVEL} {lead[0].provider} (x{level / own:.3f})"
    return [_scaled(reading, lead[0], level / own, mark, reading.grade) for reading in national]


def at_yearly_level(yearly: Reading, national: Sequence[Reading]) -> list[Reading]:
    """`national` scaled so that its mean is the yearly average of the zone; empty when it covers less than a day.

    The grade is that of an own forecast (the shape is the provider's, the level our guess), or the yearly value's where
    that is not even the zone's own.
    """
    own = mean_mg_per_kwh(national)
    if not own or seconds(national) < MIN_FOR_YEARLY.total_seconds():
        return []
    ratio = yearly.intensity_mg_per_kwh / own
    mark = f"{AT_LEVEL} {yearly.provider} {yearly.model_version} (x{ratio:.3f})"
    grade = Grade.OWN_FORECAST if yearly.grade is Grade.ZONE_YEAR else yearly.grade
    return [_scaled(reading, yearly, ratio, mark, grade) for reading in national]


def _scaled(step: Reading, like: Reading, ratio: float, mark: str, grade: Grade) -> Reading:
    kind = Kind.FORECAST if step.kind is Kind.FORECAST else Kind.ESTIMATED
    return replace(
        step,
        intensity_mg_per_kwh=_times(step.intensity_mg_per_kwh, ratio),
        low_mg_per_kwh=None if step.low_mg_per_kwh is None else _times(step.low_mg_per_kwh, ratio),
        high_mg_per_kwh=None if step.high_mg_per_kwh is None else _times(step.high_mg_per_kwh, ratio),
        signal=like.signal,
        basis=like.basis,
        perimeter=like.perimeter,
        kind=kind,
        grade=grade,
        provider=step.provider,
        model_version=mark,
    )


def _times(intensity_mg_per_kwh: int, ratio: float) -> int:
    return min(round(intensity_mg_per_kwh * ratio), MAX_INTENSITY_MG_PER_KWH)


def _worse(left: Reading, right: Reading) -> Grade:
    return max(left.grade, right.grade, key=lambda grade: grade.rank)


def derived(reading: Reading) -> bool:
    """Whether it was rescaled here; else it is what its provider said."""
    return AT_LEVEL in reading.model_version or IN_STEPS in reading.model_version


def native(readings: Sequence[Reading], like: Comparability) -> list[Reading]:
    """Those that may be ranked with values of `like` as they are."""
    return [r for r in readings if r.basis is like.basis and r.perimeter is like.perimeter and r.signal is like.signal]
