"""Our own forecast of a zone, as the grid's chain asks for it: readings in, readings out, models kept for a day.

Asking never fits: a zone without a model is answered by the damped profile, and models are fitted by a loop of its own
(`step`), so that planning does not wait for it. Zones that are counted alike are fitted together: a young one leans on
what they have in common.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.intensity import MAX_INTENSITY_MG_PER_KWH, Comparability, Grade, Kind, Reading
from carbon_sched.forecast.blend import RANGES_H, Promises, blended, range_of
from carbon_sched.forecast.model import NEEDED_HISTORY, Forecast, ZoneModel, ZoneState, fit_zones, forecast
from carbon_sched.forecast.predict import TWO_DAYS
from carbon_sched.forecast.record import TrackRecord, track_record
from carbon_sched.forecast.series import HOUR, HourlySeries, hour_of, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from carbon_sched.ports import Clock

    Key = tuple[str, Comparability]
    Past = Callable[[str, datetime, datetime], Sequence[Reading]]

log = logging.getLogger(__name__)

OURS = "carbon-sched"
REFIT = timedelta(days=1)
FARTHEST = timedelta(days=7)
"""Beyond this the long-term average knows as much."""
LEARN = timedelta(days=365)
"""How far back is learnt from, where so much is known."""
FORGET = timedelta(days=2)
"""A zone that nobody asks for so long is no longer learnt."""
LOOK_S = 60.0


@dataclass
class _Zone:
    """What is kept of one zone: its model, what a refit needs, how its forecasts did, and the last answer.

    `recent` is what was known when it was last asked for, `past` what was learnt from. `promises` are what providers
    forecast, `shares` how much they count beside ours. `made_from` stands for what `answer` came from.
    """

    asked: datetime
    recent: HourlySeries | None = None
    model: ZoneModel | None = None
    state: ZoneState | None = None
    record: TrackRecord | None = None
    fitted: datetime | None = None
    past: HourlySeries | None = None
    promises: Promises = field(default_factory=Promises)
    shares: tuple[float | None, ...] = (None,) * len(RANGES_H)
    answer: tuple[Reading, ...] = ()
    made_from: int = 0


class OwnForecasts:
    """Implements the `Forecaster` of `grid.chain`; safe for several threads.

    Models learn from what had come true, never from forecasts of providers, and are never used for a moment before the
    one they were fitted at. Known values in the future (a provider's forecast) are gone on from; once enough of them
    have come true to tell what they are worth beside ours, the two are blended.
    """

    def __init__(self, clock: Clock, past: Past = lambda *_: ()) -> None:
        """`past(zone, start, end)` is asked at a fit for what is known from further back than forecasts are asked with.

        Of its readings those count that are known values in the comparability at hand.
        """
        self._clock, self._past = clock, past
        self._lock = threading.Lock()
        self._zones: dict[Key, _Zone] = {}

    def __call__(self, zone: str, known: Sequence[Reading], now: datetime, until: datetime) -> list[Reading]:
        """Hourly expected values with 10 % and 90 % quantiles from the last known hour on, at most a week from now.

        Before them, in the provider's steps and of its grade, what is known of the future blended with what we expect
        there. Empty with less than two days of known hours.
        """
        with self._lock:
            kept = self._zones.setdefault((zone, known[-1].comparability), _Zone(now))
            kept.asked = max(kept.asked, now)
            if _due(kept, now, known[0].start):
                kept.recent = _hourly(_true(known, now), now) or kept.recent
            usable = kept.fitted is not None and kept.fitted <= now
            made_from = hash(
                (kept.fitted if usable else None, *((r.start, r.end, r.intensity_mg_per_kwh) for r in known))
            )
            if kept.made_from != made_from or not _lasts(kept.answer, now, until):
                ahead = [r for r in known if r.kind is Kind.FORECAST and r.end > now]
                if ahead:
                    kept.promises.note(_series(ahead), hour_of(now))
                blends = _blended(known, ahead, kept, now) if usable else ()
                kept.answer = (*blends, *_answer(known, kept if usable else None, now))
                kept.made_from = made_from
            return [reading for reading in kept.answer if reading.start < min(until, now + FARTHEST)]

    def record(self, zone: str, like: Comparability) -> TrackRecord | None:
        """How our forecasts of the zone did lately; None while there are too few to judge."""
        kept = self._zones.get((zone, like))
        return kept.record if kept else None

    def step(self) -> float:
        """Fit the zones of one comparability if one of them is due; returns the seconds until there may be more."""
        now = self._clock.now()
        with self._lock:
            self._zones = {key: kept for key, kept in self._zones.items() if kept.asked > now - FORGET}
            due = [
                like for (_, like), kept in self._zones.items() if kept.recent and _due(kept, now, kept.recent.start)
            ]
            if not due:
                return LOOK_S
            zones = {zone: kept for (zone, like), kept in self._zones.items() if like == due[0] and kept.recent}
        self._fit(zones, due[0], now)
        return 0.0 if len(set(due)) > 1 else LOOK_S

    def _fit(self, zones: dict[str, _Zone], like: Comparability, now: datetime) -> None:
        histories = {zone: self._history(zone, kept, like, now) for zone, kept in zones.items()}
        states = {
            zone: kept.state
            for zone, kept in zones.items()
            if kept.state and kept.past and not _longer(histories[zone].start, kept.past)
        }
        models, after, _ = fit_zones(histories, now, states)
        records = {zone: track_record(state, histories[zone]) for zone, state in after.items()}
        with self._lock:
            for zone, kept in zones.items():
                kept.model, kept.state, kept.record = models.get(zone), after.get(zone), records.get(zone)
                kept.fitted, kept.past, kept.answer = now, histories[zone], ()
                if kept.state is not None:
                    kept.shares = kept.promises.shares(kept.state, kept.past)
        log.info("grid: own forecasts fitted: %s", ", ".join(f"{z} to {len(h.values)} h" for z, h in histories.items()))

    def _history(self, zone: str, kept: _Zone, like: Comparability, now: datetime) -> HourlySeries:
        """All that is known of the last year: what was learnt before, what `past` knows, what was known when asked."""
        readings = [r for r in self._past(zone, now - LEARN, now) if r.comparability == like]
        found = [one for one in (kept.past, _hourly(_true(readings, now), now), kept.recent) if one is not None]
        return reduce(joined, found).since(now - LEARN)


def _due(kept: _Zone, now: datetime, known_since: datetime) -> bool:
    """Never fitted, a day ago, or to much less than is known by now (a provider answers bit by bit at first)."""
    if kept.fitted is None or kept.past is None:
        return True
    return now >= kept.fitted + REFIT or _longer(known_since, kept.past)


def _longer(since: datetime, past: HourlySeries) -> bool:
    """Whether what is known begins well before what was learnt from."""
    return since < past.start - REFIT


def _true(readings: Sequence[Reading], now: datetime) -> list[Reading]:
    """What had come true by `now`."""
    return [r for r in readings if r.kind in (Kind.MEASURED, Kind.ESTIMATED) and r.end <= now]


def _hourly(readings: Sequence[Reading], until: datetime) -> HourlySeries | None:
    """Whole hours before `until`, from the first known to the last known one, in mg/kWh; None without any."""
    if not readings:
        return None
    series = _series(readings).until(until).trimmed()
    return series if len(series.values) else None


def _series(readings: Sequence[Reading]) -> HourlySeries:
    return HourlySeries.from_intervals((r.start, r.end, r.intensity_mg_per_kwh) for r in readings)


def _lasts(answer: Sequence[Reading], now: datetime, until: datetime) -> bool:
    """Whether an answer made earlier still reaches far enough; an empty one is made again."""
    return bool(answer) and answer[0].issued_at <= now and answer[-1].end >= min(until, now + FARTHEST)


def _answer(known: Sequence[Reading], kept: _Zone | None, now: datetime) -> tuple[Reading, ...]:
    """The forecast from the last known hour to a week from now, and a little more so that it lasts for an hour.

    What is known now counts before what was known when the model in `kept` was fitted.
    """
    series = _hourly(known, known[-1].end)
    if series is None or np.isfinite(series.values).sum() < TWO_DAYS or series.end >= now + FARTHEST:
        return ()
    hours = -int(-(now + FARTHEST + HOUR - series.end) // HOUR)
    series = _with_past(series, kept, now)
    found = forecast(kept.model if kept else None, series, series.end, hours)
    digest = hashlib.sha256(series.start.isoformat().encode() + series.values.tobytes()).hexdigest()
    return tuple(_reading(found, index, known[-1], now, digest) for index in range(len(found.mean)))


def _with_past(series: HourlySeries, kept: _Zone | None, now: datetime) -> HourlySeries:
    if kept is None or kept.past is None:
        return series
    return joined(kept.past, series).since(now - NEEDED_HISTORY).until(series.end)


def _blended(known: Sequence[Reading], ahead: Sequence[Reading], kept: _Zone, now: datetime) -> tuple[Reading, ...]:
    """What a provider forecasts, each hour moved towards what we expect of it; empty while no share is known."""
    true = _hourly(_true(known, now), now)
    if not ahead or true is None or kept.model is None or all(share is None for share in kept.shares):
        return ()
    theirs = _series(ahead)
    hours = -int(-(theirs.end - true.end) // HOUR)
    ours = forecast(kept.model, _with_past(true, kept, now), true.end, hours)
    said = joined(HourlySeries(ours.start, np.full(hours, np.nan)), theirs).values[-hours:]
    ranges = range_of(np.arange(hours) + hour_of(ours.start) - hour_of(now))
    share = np.array([np.nan if one is None else one for one in kept.shares])[ranges]
    blend = blended(ours.mean, said, share, kept.model.reference)
    at = [hour_of(reading.start) - hour_of(ours.start) for reading in ahead]
    usable = [(r, h) for r, h in zip(ahead, at, strict=True) if h >= 0 and said[h] > 0.0 and np.isfinite(blend[h])]
    return tuple(_moved(r, blend[h] / said[h], ours, h, blend[h], 1 - share[h], now) for r, h in usable)


def _moved(
    reading: Reading, factor: float, ours: Forecast, hour: int, blend: float, our_share: float, now: datetime
) -> Reading:
    """One step of a provider's hour: steps keep their proportions, the band is that of ours, around the blend."""
    value, off = _bounded(reading.intensity_mg_per_kwh * factor), blend - ours.mean[hour]
    return replace(
        reading,
        intensity_mg_per_kwh=value,
        low_mg_per_kwh=min(_bounded(ours.q10[hour] + off), value),
        high_mg_per_kwh=max(_bounded(ours.q90[hour] + off), value),
        model_version=f"{reading.model_version} blended with {our_share:.0%} {OURS}".strip(),
        issued_at=now,
    )


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
