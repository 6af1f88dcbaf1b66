"""Whether the forecasts of a zone may be acted on: do they still move as the grid does?

A forecast that says the opposite of what comes true costs more than having none. Over the forecasts issued in the last
day, and the hours of each that are known by now, the agreement is the correlation of what was expected with what came,
each taken about its own mean. Bad days are near zero, a mirrored or shifted feed is far below. Acted on at -0.5, the
guard cost no zone of 2022 much more than a point of its saving and ended a week of mirrored forecasts within a day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Array = NDArray[np.floating]

WINDOW_H = 24
LEAST_KNOWN = 6
LEAST_AGREEMENT = -0.5


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


def trusted(forecasts: Array, truth: Floats) -> NDArray[np.bool_]:
    """For every hour of a long period whether its forecast may be acted on, from what was known when it was issued.

    `forecasts` `[hours, leads]`, row i issued at the beginning of hour i; `truth` `[hours or more]`.
    """
    out = np.ones(len(forecasts), dtype=np.bool_)
    for now in range(WINDOW_H, len(forecasts)):
        past = slice(now - WINDOW_H, now)
        out[now] = agreement(forecasts[past], truth[past]) >= LEAST_AGREEMENT
    return out
