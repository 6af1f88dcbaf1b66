"""Hourly forecasts as slots of another length (forecast layer: pure numpy, no I/O)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.time import utc
from carbon_sched.forecast.series import EPOCH, HOUR

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from carbon_sched.forecast.series import Floats


def hours_to_slots(hours: Floats, issue_time: datetime, step: timedelta, horizon_h: int) -> tuple[datetime, Floats]:
    """Slots of `step` over `horizon_h` hours, the first one holding `issue_time`, from `hours [n + 1, columns]`.

    Row 0 of `hours` is the hour that holds `issue_time`. Returns the first slot's beginning and `[slots, columns]`.
    """
    if step < HOUR and HOUR % step == 0 * HOUR:
        fine = _interpolated(hours, int(HOUR // step))
        slot = int((utc(issue_time) - EPOCH) // step)
        first = slot % int(HOUR // step)
        return EPOCH + slot * step, fine[first : first + horizon_h * int(HOUR // step)]
    if step >= HOUR and step % HOUR == 0 * HOUR:
        width = int(step // HOUR)
        whole = hours[: horizon_h // width * width]
        start = EPOCH + int((utc(issue_time) - EPOCH) // HOUR) * HOUR
        return start, whole.reshape(-1, width, hours.shape[1]).mean(axis=1)
    raise ValueError(f"a step of {step} neither divides an hour nor is a whole number of hours")


def _interpolated(hours: Floats, parts: int) -> Floats:
    """Linear between the hours' middles, then scaled so that every hour keeps its mean, `[n * parts, columns]`."""
    middles = np.arange(len(hours)) + 0.5
    at = (np.arange(len(hours) * parts) + 0.5) / parts
    fine = np.stack([np.interp(at, middles, column) for column in hours.T], axis=1)
    means = fine.reshape(len(hours), parts, -1).mean(axis=1)
    factor = np.divide(hours, means, out=np.ones_like(hours), where=means > 0.0)
    out: Floats = fine * np.repeat(factor, parts, axis=0)
    return out
