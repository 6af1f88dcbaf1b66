"""Fit and ask: the forecaster as the service uses it, zone by zone and issue by issue (pure numpy, no I/O).

The ladder, by how much history there is: mean so far (under 2 days), damped profile (2 to 8 days), the pool's
coefficients (where other zones were learnt from), the zone's own. A fitted model is a frozen value made of arrays.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.time import utc
from carbon_sched.forecast.calibration import COLUMNS, KEPT_DAYS
from carbon_sched.forecast.features import FEATURES, WARM_UP
from carbon_sched.forecast.horizons import BINS, KNOTS
from carbon_sched.forecast.learner import Learner, Past, Pupil, learn, past, refit, rehearse
from carbon_sched.forecast.predict import TWO_DAYS, Quantities, predict
from carbon_sched.forecast.series import DAY, EPOCH, HOUR, HourlySeries, hour_of
from carbon_sched.forecast.slots import hours_to_slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.forecast.features import Singles
    from carbon_sched.forecast.series import Floats

LONGEST_H = 7 * DAY
NEEDED_HISTORY = timedelta(days=80)
"""How much recent history makes a forecast exact; less is answered from what there is."""
FORMAT = 2
"""Raised whenever features, knots, bins or what an array means change: models of another format are refitted, not used.
"""


@dataclass(frozen=True, eq=False)
class ZoneModel:
    """One zone's forecaster, fitted on hours before `known_until`.

    reference     level the softened logarithm is measured against, in the unit of the history
    coefficients  `float32 [knots, bins of the day, features]`; None while there is too little to learn from
    offsets       `float32 [knots, 24, 4]` of mean, 10 %, 50 % and 90 % quantile, the quantiles' in units of the scale
                  (`calibration`); NaN where not calibrated yet
    """

    reference: float
    known_until: datetime
    coefficients: Singles | None
    offsets: Singles

    def to_bytes(self) -> bytes:
        """Serialise (numpy's own container, no pickles)."""
        return _packed(
            reference=self.reference,
            known_until=hour_of(self.known_until),
            coefficients=np.empty(0, np.float32) if self.coefficients is None else self.coefficients,
            offsets=self.offsets,
        )

    @staticmethod
    def from_bytes(data: bytes) -> ZoneModel:
        """Inverse of `to_bytes`; ValueError for anything else, a model of another format included."""
        part = _unpacked(data, {"reference": (), "known_until": (), "offsets": (len(KNOTS), DAY, COLUMNS)})
        coefficients = part.get("coefficients")
        if coefficients is None or coefficients.shape not in {(0,), (len(KNOTS), BINS, FEATURES)}:
            raise ValueError("not a forecast model: coefficients are missing or of another shape")
        return ZoneModel(
            float(part["reference"]),
            EPOCH + int(part["known_until"]) * HOUR,
            coefficients if coefficients.ndim > 1 else None,
            part["offsets"],
        )


@dataclass(frozen=True, eq=False)
class PooledModel:
    """What zones have in common: `coefficients float32 [knots, features]`, fitted on hours before `known_until`."""

    known_until: datetime
    coefficients: Singles

    def to_bytes(self) -> bytes:
        """Serialise (numpy's own container, no pickles)."""
        return _packed(known_until=hour_of(self.known_until), coefficients=self.coefficients)

    @staticmethod
    def from_bytes(data: bytes) -> PooledModel:
        """Inverse of `to_bytes`; ValueError for anything else, a model of another format included."""
        part = _unpacked(data, {"known_until": (), "coefficients": (len(KNOTS), FEATURES)})
        return PooledModel(EPOCH + int(part["known_until"]) * HOUR, part["coefficients"])


@dataclass(frozen=True)
class ZoneState:
    """All that refitting a zone needs besides its recent history: keep it, and a refit costs only the new hours."""

    reference: float
    learner: Learner


@dataclass(frozen=True, eq=False)
class Forecast:
    """Expected intensity in slots of `step` from `start` on, in the unit of the history.

    `known_until` is the end of the newest hour that was known, so `start - known_until` is the age of the data.
    """

    start: datetime
    step: timedelta
    known_until: datetime
    method: str
    mean: Floats
    q10: Floats
    q50: Floats
    q90: Floats

    @property
    def starts(self) -> list[datetime]:
        """Beginning of every slot."""
        return [self.start + i * self.step for i in range(len(self.mean))]


def fit(history: HourlySeries, issue_time: datetime, pooled: PooledModel | None = None) -> ZoneModel:
    """Fit one zone on what was known at `issue_time`: only hours that had ended by then.

    With a history under 8 days there is nothing to fit; the model then only carries the reference level, and forecasts
    come from the damped profile. ValueError when nothing is known, or when the pool has seen later hours.
    """
    if pooled is not None and pooled.known_until > utc(issue_time):
        raise ValueError(f"the pool has seen hours up to {pooled.known_until}, after the issue time {issue_time}")
    pupil = Pupil(*_begun(history, issue_time))
    prior = None if pooled is None else pooled.coefficients.astype(np.float64)
    rehearse([pupil], hour_of(issue_time), prior=prior)
    refit([pupil], prior)
    return _model(pupil)


def fit_pool(histories: Mapping[str, HourlySeries], issue_time: datetime) -> PooledModel | None:
    """Fit what the zones have in common on what was known at `issue_time`; None while that is too little."""
    return fit_zones(histories, issue_time)[2]


def fit_zones(
    histories: Mapping[str, HourlySeries], issue_time: datetime, states: Mapping[str, ZoneState] | None = None
) -> tuple[dict[str, ZoneModel], dict[str, ZoneState], PooledModel | None]:
    """Fit many zones and their pool at once, each on what was known at `issue_time`.

    A zone with a state from an earlier call learns only the hours since; its history need then reach back no further
    than `NEEDED_HISTORY` before that call. Zones of which nothing is known are left out.

    Returns: models, states for the next call, and the pool (for zones that join later; None with too little evidence).
    """
    known = {zone: series for zone, series in histories.items() if len(series.until(issue_time).trimmed().values)}
    before = states or {}
    pupils = {zone: Pupil(*_begun(series, issue_time, before.get(zone))) for zone, series in known.items()}
    fresh = [pupil for zone, pupil in pupils.items() if zone not in before]
    until = hour_of(issue_time)
    learn([pupil for zone, pupil in pupils.items() if zone in before], until)
    rehearse(fresh, until)
    prior = refit(list(pupils.values())) if pupils else None
    pool = None if prior is None else PooledModel(_floor(issue_time), prior.astype(np.float32))
    after = {zone: ZoneState(pupil.of.reference, pupil.learner) for zone, pupil in pupils.items()}
    return {zone: _model(pupil) for zone, pupil in pupils.items()}, after, pool


def forecast(
    model: ZoneModel | None,
    recent: HourlySeries,
    issue_time: datetime,
    horizon_h: int = LONGEST_H,
    step: timedelta = HOUR,
) -> Forecast:
    """Forecast one zone from the slot that holds `issue_time` on.

    Args:
        model: a model fitted at or before `issue_time`, or None: then the ladder ends at the damped profile.
        recent: the last hours, best `NEEDED_HISTORY` of them; gaps and a lag are fine. Hours that had not ended by
            `issue_time` are not looked at.
        issue_time: now.
        horizon_h: how many hours ahead.
        step: length of a slot; divides an hour or is a whole number of hours. Within an hour the course between the
            hours' middles is interpolated so that the hour's mean is kept.

    Raises:
        ValueError: nothing is known, the step does not fit, or the model has seen hours after `issue_time`.
    """
    if model is not None and model.known_until > utc(issue_time):
        raise ValueError(f"the model has seen hours up to {model.known_until}, after the issue time {issue_time}")
    of = _past(recent, issue_time, None if model is None else model.reference)
    now, newest = hour_of(issue_time), len(of.truth) - 1
    hours = np.arange(now, now + horizon_h + 1) - of.hour0
    answer = predict(_quantities(model), of, np.array([newest]), hours[None, :])[0].astype(np.float64)
    start, slots = hours_to_slots(answer, issue_time, step, horizon_h)
    return Forecast(start, step, EPOCH + of.end * HOUR, _method(model, of), *slots.T)


def _quantities(model: ZoneModel | None) -> Quantities:
    if model is None:
        return Quantities(KNOTS, None, np.full((1, len(KNOTS), DAY, COLUMNS), np.nan, np.float32), 0)
    return Quantities(KNOTS, model.coefficients, model.offsets[None], 0)


def _method(model: ZoneModel | None, of: Past) -> str:
    if len(of.truth) < TWO_DAYS:
        return "mean so far"
    return "damped profile" if model is None or model.coefficients is None or len(of.truth) < WARM_UP else "ridge"


def _past(series: HourlySeries, issue_time: datetime, reference: float | None = None) -> Past:
    known = series.until(issue_time).trimmed()
    if len(known.values) == 0:
        raise ValueError(f"no hour is known before {issue_time.isoformat()}: nothing to forecast from")
    return past(known.values, hour_of(known.start), reference)


def _begun(series: HourlySeries, issue_time: datetime, state: ZoneState | None = None) -> tuple[Past, Learner]:
    of = _past(series, issue_time, None if state is None else state.reference)
    return of, Learner.new(KNOTS, of.hour0) if state is None else state.learner


def _model(pupil: Pupil) -> ZoneModel:
    learner = pupil.learner
    offsets = learner.errors.in_force[learner.errors.day % KEPT_DAYS]
    return ZoneModel(pupil.of.reference, EPOCH + learner.learnt * HOUR, learner.coefficients, offsets)


def _floor(moment: datetime) -> datetime:
    return EPOCH + hour_of(moment) * HOUR


def _packed(**parts: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, format=FORMAT, **parts)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpacked(data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Singles]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            parts = dict(archive)
    except Exception as error:
        raise ValueError(f"not a forecast model: {error}") from error
    if int(parts.pop("format", -1)) != FORMAT:
        raise ValueError("not a forecast model of this version: fit again")
    for name, shape in shapes.items():
        if name not in parts or parts[name].shape != shape:
            raise ValueError(f"not a forecast model: {name} is missing or of another shape")
    return parts
