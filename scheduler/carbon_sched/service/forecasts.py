"""Our own forecast of a zone, as the grid's chain asks for it: readings in, readings out, models kept for a day.

Asking never fits: a zone without a model is answered by the damped profile, and its model is fitted by a loop of its
own (`step`), so that planning does not wait for it.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.intensity import MAX_INTENSITY_MG_PER_KWH, Comparability, Grade, Kind, Reading
from carbon_sched.forecast.model import Forecast, ZoneModel, ZoneState, fit_zones, forecast
from carbon_sched.forecast.predict import TWO_DAYS
from carbon_sched.forecast.series import HOUR, HourlySeries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.ports import Clock

    Key = tuple[str, Comparability]

log = logging.getLogger(__name__)

OURS = "carbon-sched"
REFIT = timedelta(days=1)
FARTHEST = timedelta(days=7)
"""Beyond this the long-term average knows as much."""
LOOK_S = 60.0


@dataclass
class _Zone:
    """What is kept of one zone: its model, what a refit needs, and the last answer.

    `past` is the history to fit next, None while no fit is due. `made_from` stands for what `answer` came from.
    """

    model: ZoneModel | None = None
    state: ZoneState | None = None
    fitted: datetime | None = None
    past: HourlySeries | None = None
    answer: tuple[Reading, ...] = ()
    made_from: int = 0


class OwnForecasts:
    """Implements the `Forecaster` of `grid.chain`; safe for several threads.

    Models learn from what had come true, never from forecasts of providers, and are never used for a moment before the
    one they were fitted at. Known values in the future (a provider's forecast) are gone on from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._zones: dict[Key, _Zone] = {}

    def __call__(self, zone: str, known: Sequence[Reading], now: datetime, until: datetime) -> list[Reading]:
        """Hourly expected values with 10 % and 90 % quantiles from the last known hour on, at most a week from now.

        Empty with less than two days of known hours.
        """
        with self._lock:
            kept = self._zones.setdefault((zone, known[-1].comparability), _Zone())
            self._want_fit(kept, known, now)
            usable = kept.fitted is not None and kept.fitted <= now
            made_from = hash(
                (kept.fitted if usable else None, *((r.start, r.end, r.intensity_mg_per_kwh) for r in known))
            )
            if kept.made_from != made_from or not _lasts(kept.answer, now, until):
                kept.answer = _answer(known, kept.model if usable else None, now)
                kept.made_from = made_from
            return [reading for reading in kept.answer if reading.start < min(until, now + FARTHEST)]

    def step(self) -> float:
        """Fit the zone that waits longest; returns the seconds until there may be another."""
        with self._lock:
            waiting = [(kept.fitted, key) for key, kept in self._zones.items() if kept.past is not None]
            if not waiting:
                return LOOK_S
            key = min(waiting, key=lambda one: (one[0] is not None, one[0] or self._clock.now()))[1]
            kept = self._zones[key]
            past, kept.past = kept.past, None
        now = self._clock.now()
        if past is not None:
            zone = key[0]
            models, states, _ = fit_zones({zone: past}, now, {zone: kept.state} if kept.state else None)
            with self._lock:
                kept.model, kept.state, kept.fitted = models.get(zone), states.get(zone), now
            log.info("grid: %s: own forecast fitted to %d hours", zone, len(past.values))
        return 0.0 if len(waiting) > 1 else LOOK_S

    def _want_fit(self, kept: _Zone, known: Sequence[Reading], now: datetime) -> None:
        """Note what the model should be fitted to when there is none, or it is a day old; the newest history counts."""
        if kept.fitted is None or now >= kept.fitted + REFIT:
            kept.past = _hourly([r for r in known if r.kind is not Kind.FORECAST and r.end <= now], now) or kept.past


def _hourly(readings: Sequence[Reading], until: datetime) -> HourlySeries | None:
    """Whole hours before `until`, from the first known to the last known one, in mg/kWh; None without any."""
    if not readings:
        return None
    series = HourlySeries.from_intervals((r.start, r.end, r.intensity_mg_per_kwh) for r in readings)
    series = series.until(until).trimmed()
    return series if len(series.values) else None


def _lasts(answer: Sequence[Reading], now: datetime, until: datetime) -> bool:
    """Whether an answer made earlier still reaches far enough; an empty one is made again."""
    return bool(answer) and answer[0].issued_at <= now and answer[-1].end >= min(until, now + FARTHEST)


def _answer(known: Sequence[Reading], model: ZoneModel | None, now: datetime) -> tuple[Reading, ...]:
    """The forecast from the last known hour to a week from now, and a little more so that it lasts for an hour."""
    series = _hourly(known, known[-1].end)
    if series is None or np.isfinite(series.values).sum() < TWO_DAYS or series.end >= now + FARTHEST:
        return ()
    hours = -int(-(now + FARTHEST + HOUR - series.end) // HOUR)
    found = forecast(model, series, series.end, hours)
    digest = hashlib.sha256(series.start.isoformat().encode() + series.values.tobytes()).hexdigest()
    return tuple(_reading(found, index, known[-1], now, digest) for index in range(len(found.mean)))


def _reading(found: Forecast, index: int, last: Reading, now: datetime, digest: str) -> Reading:
    start = found.start + index * found.step
    low, mean, high = (_bounded(values[index]) for values in (found.q10, found.mean, found.q90))
    return Reading(
        zone=last.zone,
        start=start,
        end=start + found.step,
        intensity_mg_per_kwh=mean,
        signal=last.signal,
        basis=last.basis,
        perimeter=last.perimeter,
        kind=Kind.FORECAST,
        grade=Grade.OWN_FORECAST,
        provider=OURS,
        issued_at=now,
        fetched_at=now,
        low_mg_per_kwh=low,
        high_mg_per_kwh=high,
        model_version=f"{found.method} on {last.provider}",
        payload_sha256=digest,
        licence=last.licence,
    )


def _bounded(value: float) -> int:
    return min(max(round(float(value)), 0), MAX_INTENSITY_MG_PER_KWH)
