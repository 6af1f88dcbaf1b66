"""Whether the forecasts of a zone may be acted on: do they still move as the grid does?

A forecast that says the opposite of what comes true costs more than having none. Agreement is the correlation of what
the forecasts issued in the last day expected of its hours with what came, each taken about its own mean. Bad days of a
sound forecast are near zero and now and then far below, but it then still expects what hours of the day mostly bring; a
mirrored or shifted feed contradicts both the day and the week before it. Acted on where both are below -0.3, the guard
costs no zone of 2022 more than half a point of its saving and ended a week of mirrored forecasts within a day.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Array = NDArray[np.floating]

WINDOW_H = 24
WEEK_H = 7 * WINDOW_H
LEAST_KNOWN = 6
LEAST_AGREEMENT = -0.3


def agreement(forecasts: Array, truth: Floats) -> float:
    """Correlation of forecasts with what came true, about each forecast's own mean; 1 where nothing can be said.

    Args:
        forecasts: `[n, leads]` the last n hourly forecasts, oldest first; row i was issued n - i hours ago, and its
            column k is what it expected of the hour that began k hours later.
        truth: `[n]` what those n hours turned out to be, oldest first; NaN where unknown.
    """
    n = len(forecasts)
    hour = np.arange(n)[:, None] + np.arange(n)[None, :]
    seen = np.asarray(forecasts, dtype=np.float64)[:, :n]
    came = truth[np.minimum(hour[:, : seen.shape[1]], n - 1)]
    known = (hour[:, : seen.shape[1]] < n) & np.isfinite(came) & np.isfinite(seen)
    known &= known.sum(axis=1, keepdims=True) >= LEAST_KNOWN
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    x, y = np.where(known, seen, 0.0), np.where(known, came, 0.0)
    x = np.where(known, x - x.sum(axis=1, keepdims=True) / count, 0.0)
    y = np.where(known, y - y.sum(axis=1, keepdims=True) / count, 0.0)
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size > 0 else 1.0


def believable(forecasts: Array, day: Floats, week: Callable[[], Floats]) -> bool:
    """Whether the forecasts of the last day agreed with that day, or at least with the hours of the week before it.

    Args:
        forecasts: `[WINDOW_H, leads]`, as for `agreement`.
        day: `[WINDOW_H]` what the hours up to now turned out to be, oldest first; NaN where unknown.
        week: tells the `[WEEK_H]` hours before, asked for only where the day disagrees. Of an hour of the day that the
            week knows nothing of, the last day alone decides.
    """
    if agreement(forecasts, day) >= LEAST_AGREEMENT:
        return True
    before = week().reshape(-1, WINDOW_H)
    known = np.isfinite(before)
    usual = np.where(known, before, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return agreement(forecasts, np.where(known.any(axis=0), usual, day)) >= LEAST_AGREEMENT


def trusted(forecasts: Array, truth: Floats) -> NDArray[np.bool_]:
    """For every hour of a long period whether its forecast may be acted on, from what was known when it was issued.

    `forecasts` `[hours, leads]`, row i issued at the beginning of hour i; `truth` `[hours or more]`.
    """
    out = np.ones(len(forecasts), dtype=np.bool_)
    past = np.concatenate([np.full(WEEK_H, np.nan), truth])
    for first in range(len(forecasts) - WINDOW_H):
        now, week = first + WINDOW_H, partial(past.__getitem__, slice(first, first + WEEK_H))
        out[now] = believable(forecasts[first:now], truth[first:now], week)
    return out
