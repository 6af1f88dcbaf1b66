"""A curve of intensities over time, drawn in characters: a line, and a band where a value is uncertain. Pure."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.time import from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, tzinfo

    from carbon_sched.wire import IntensityView

LINE, BAND = "•", "░"
PLAIN = str.maketrans({LINE: "*", BAND: ":"})
"""For outputs that cannot show the others."""
AXIS = 6
"""Columns left of the curve: the figures of the vertical axis and a blank."""
HEIGHT = 8
FLAT = 1e-9
"""Of the highest value; what differs by less differs by the rounding of sums."""
LABEL = 8
"""Columns that a time below the curve needs at least."""
TICKS_H = (1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 672, 1344)


@dataclass(frozen=True)
class Column:
    """Mean, low and high of one column, g/kWh; low and high equal the mean where nothing is uncertain."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Stretch:
    """A value that holds from `start` to `end`."""

    start: datetime
    end: datetime
    value: Column


def curve(stretches: Sequence[Stretch], zone: tzinfo, width: int = 80, height: int = HEIGHT) -> list[str]:
    """Lines of at most `width` characters; the newest times right, times below in `zone`. There are no gaps."""
    start, end = stretches[0].start, stretches[-1].end
    columns = _columns(stretches, start, end, width - AXIS)
    bottom, top = min(c.low for c in columns), max(c.high for c in columns)
    flat = top - bottom <= FLAT * abs(top)
    step = 1.0 if flat else (top - bottom) / (height - 1)
    digits = 0 if top >= 10 else 1 if top >= 1 else 2
    rows = []
    for row in range(height - 1, -1, -1):
        cells = "".join(_cell(column, row, bottom, step) for column in columns)
        shown = row in (0, height - 1) or (height > 4 and row == height // 2)
        axis = f"{bottom + row * step:{AXIS - 1}.{digits}f} " if shown else " " * AXIS
        rows.append((axis + cells).rstrip())
    return [*rows, *_times(start, end, len(columns), zone)]


def stretch(view: IntensityView) -> Stretch:
    """A reading as the curve takes it, in g/kWh."""
    mean, low, high = view["g_per_kwh"], view["low_g_per_kwh"], view["high_g_per_kwh"]
    value = Column(mean, mean if low is None else low, mean if high is None else high)
    return Stretch(from_rfc3339(view["start"]), from_rfc3339(view["end"]), value)


def _columns(stretches: Sequence[Stretch], start: datetime, end: datetime, count: int) -> list[Column]:
    """Time-weighted means over equal parts of `[start, end)`."""
    spans = [
        _Span((one.start - start).total_seconds(), (one.end - start).total_seconds(), one.value) for one in stretches
    ]
    ends = [span.end for span in spans]
    length = (end - start).total_seconds() / count
    columns = []
    for index in range(count):
        first = bisect.bisect_right(ends, index * length)
        last = bisect.bisect_left(ends, (index + 1) * length) + 1
        columns.append(_mean(spans[first:last], index * length, (index + 1) * length))
    return columns


@dataclass(frozen=True)
class _Span:
    """A stretch in seconds from the beginning."""

    start: float
    end: float
    value: Column


def _mean(spans: Iterable[_Span], start: float, end: float) -> Column:
    inside = [(min(s.end, end) - max(s.start, start), s.value) for s in spans]
    total = sum(length for length, _ in inside)
    mean, low, high = (
        sum(length * getattr(value, name) for length, value in inside) / total for name in ("mean", "low", "high")
    )
    return Column(mean, low, high)


def _cell(column: Column, row: int, bottom: float, step: float) -> str:
    mean, low, high = (round((value - bottom) / step) for value in (column.mean, column.low, column.high))
    if row == mean:
        return LINE
    return BAND if low <= row <= high else " "


def _times(start: datetime, end: datetime, count: int, zone: tzinfo) -> list[str]:
    """Marks at whole local hours, a day's name at its midnight."""
    per_hour = count / ((end - start) / timedelta(hours=1))
    every = next((hours for hours in TICKS_H if hours * per_hour >= LABEL), TICKS_H[-1])
    line = ""
    at = start.astimezone(zone).replace(minute=0, second=0, microsecond=0)
    while at < end:
        column = AXIS + round((at - start) / timedelta(hours=1) * per_hour)
        if column >= max(AXIS, len(line) + (2 if line else 0)) and at.hour % min(every, 24) == 0:
            text = f"{at:%b} {at.day}" if at.hour == 0 else f"{at:%H:%M}"
            if column + len(text) <= AXIS + count:
                line = line.ljust(column) + text
        at += timedelta(hours=1)
    return [line] if line else []
