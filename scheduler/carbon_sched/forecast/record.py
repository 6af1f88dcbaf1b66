"""The track record of each zone: what would have been forecast lately, judged by what came true (pure, no I/O).

Recomputed from the history instead of stored: every forecast judged here is made as it would have been made at its
issue time, so the record needs no table of past forecasts and cannot be flattered by leaving some out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast import baselines, skill
from carbon_sched.forecast.batch import rolling_bands
from carbon_sched.forecast.series import DAY, HourlySeries, filled, hour_of, on_one_clock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.forecast.series import Floats

LEADS = 48
LEAST_ISSUES = 7 * DAY


@dataclass(frozen=True)
class TrackRecord:
    """How a zone's forecasts of the last weeks did. Shares are 0..1; `issues` is how many were judged.

    captured, damped_captured  share of a perfect forecast's saving (4 h job, 24 h window), by ours and by the damped
                               profile; NaN where nothing could be saved
    possible                   what a perfect forecast would have saved
    mape_pct                   mean absolute error of the first day, percent
    covered                    share of hours of the first two days that fell into the 10-90 band
    """

    issues: int
    captured: float
    damped_captured: float
    possible: float
    mape_pct: float
    covered: float


def track_records(
    histories: Mapping[str, HourlySeries], now: datetime, *, days: int = 28, lag: int = 1
) -> dict[str, TrackRecord]:
    """Judge the forecasts issued in the last `days` days whose first day has come true by `now`.

    Zones with less than a week of such issues, or without two days of history before them, are left out. `lag` is the
    usual age in hours of a zone's newest known hour.
    """
    known = {zone: series.until(now) for zone, series in histories.items()}
    known = {zone: series for zone, series in known.items() if np.isfinite(series.values).any()}
    if not known:
        return {}
    start, values = on_one_clock(known)
    last = hour_of(now) - hour_of(start) - DAY
    first = max(last - days * DAY, 2 * DAY)
    if last - first < LEAST_ISSUES:
        return {}
    bands = rolling_bands(values, start, first, last, leads=LEADS, lag=lag)
    records = {zone: _record(band, values[zone], first) for zone, band in bands.items()}
    return {zone: record for zone, record in records.items() if record is not None}


def _record(band: NDArray[np.float32], truth: Floats, first: int) -> TrackRecord | None:
    begin = int(np.flatnonzero(np.isfinite(truth))[0])
    begun = max(begin + 2 * DAY - first, 0)
    band, first = band[begun:], first + begun
    if len(band) < LEAST_ISSUES:
        return None
    ours = skill.captured_saving(band[..., 0], truth, first)
    issues = np.arange(first, first + len(band)) - begin
    damped = baselines.damped_profile(filled(truth[begin:]), issues, DAY)
    return TrackRecord(
        issues=len(band),
        captured=ours.share,
        damped_captured=skill.captured_saving(damped, truth, first).share,
        possible=ours.possible,
        mape_pct=skill.mape(band[..., 0], truth, first),
        covered=float(skill.coverage(band[..., 1], band[..., 3], truth, first).mean()),
    )
