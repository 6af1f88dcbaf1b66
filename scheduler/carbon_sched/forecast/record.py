"""The track record of each zone: its forecasts of the last weeks, judged by what came true (pure, no I/O).

Nothing is made for the record: a zone's learner keeps the error of every forecast that its own coefficients of an
earlier day made of an hour they had not seen. So it cannot be flattered by leaving some out, and costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast import baselines, skill
from carbon_sched.forecast.calibration import MEMORY_H
from carbon_sched.forecast.series import DAY, EPOCH, HOUR, filled, hour_of
from carbon_sched.forecast.trace import hardened, softened

if TYPE_CHECKING:
    from carbon_sched.forecast.features import Ints
    from carbon_sched.forecast.learner import Learner
    from carbon_sched.forecast.model import ZoneState
    from carbon_sched.forecast.series import Floats, HourlySeries

LEAST_ISSUES = 7 * DAY
BAND_H = 48
"""The band is judged up to so many hours ahead."""


@dataclass(frozen=True)
class TrackRecord:
    """How a zone's forecasts of the last weeks did. Shares are 0..1; `issues` is how many were judged.

    captured, damped_captured  share of a perfect forecast's saving (4 h job, 24 h window), by ours and by the damped
                               profile; NaN where nothing could be saved
    possible                   what a perfect forecast would have saved
    mape_pct                   mean absolute error of the first day, percent
    covered                    share of hours of the first two days that fell into the 10-90 band; NaN without a band
    """

    issues: int
    captured: float
    damped_captured: float
    possible: float
    mape_pct: float
    covered: float


def track_record(state: ZoneState, history: HourlySeries, *, days: int = 28) -> TrackRecord | None:
    """Judge the forecasts issued hourly in the last `days` days of what was learnt, whose first day has come true.

    `history` is what the zone learnt from. None while there is less than a week of them.
    """
    learner = state.learner
    known = history.until(EPOCH + learner.learnt * HOUR).trimmed()
    last = hour_of(known.end) - DAY + 1
    first = max(last - min(days * DAY, MEMORY_H - DAY), hour_of(known.start) + 2 * DAY)
    if last <= first:
        return None
    made = _made(state, known, np.arange(first, last))
    judged = int(np.isfinite(made).all(axis=1).sum())
    if judged < LEAST_ISSUES:
        return None
    truth, begun = known.values, first - hour_of(known.start)
    damped = baselines.damped_profile(filled(truth), np.arange(begun, begun + len(made)), DAY)
    damped[~np.isfinite(made)] = np.nan
    ours = skill.captured_saving(made, truth, begun)
    return TrackRecord(
        issues=judged,
        captured=ours.share,
        damped_captured=skill.captured_saving(damped, truth, begun).share,
        possible=ours.possible,
        mape_pct=skill.mape(made, truth, begun),
        covered=_covered(learner, np.arange(first, hour_of(known.end))),
    )


def _made(state: ZoneState, known: HourlySeries, issues: Ints) -> Floats:
    """Forecasts of the first day as they were made at absolute hours, `[issues, 24]`: the truth less its error."""
    targets = issues[:, None] + np.arange(DAY)
    errors = state.learner.errors.recent[targets % MEMORY_H, np.arange(DAY)]
    truth = known.values[targets - hour_of(known.start)]
    return hardened(softened(truth, state.reference) - errors, state.reference)


def _covered(learner: Learner, hours: Ints) -> float:
    """Share of the hours that fell into the band they were forecast with, up to two days ahead."""
    held = learner.errors.held[hours % MEMORY_H][:, learner.knots <= BAND_H]
    known = np.isfinite(held)
    return float(held[known].mean()) if known.any() else float("nan")
