"""What has been learnt of each zone, and how zones learn new hours together (forecast layer: pure numpy, no I/O).

All hours here are absolute: numbers of UTC hours since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast import ridge
from carbon_sched.forecast.calibration import Errors, scale_of
from carbon_sched.forecast.features import WARM_UP
from carbon_sched.forecast.series import DAY
from carbon_sched.forecast.trace import Trace, softened, trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.forecast.features import Ints, Singles
    from carbon_sched.forecast.series import Floats

CHUNK_H = 14 * DAY
"""How many target hours are turned into rows at a time; bounds memory (14 days: 70 MB)."""
REHEARSAL_H = 112 * DAY
REHEARSAL_STEP_H = 14 * DAY
"""Before the first forecast: for how long unseen ones are made and judged, so that the bands start calibrated."""


@dataclass(frozen=True, eq=False)
class Past:
    """A zone's history from its first known hour on, ready to make regressors of; `truth` keeps its gaps."""

    hour0: int
    reference: float
    truth: Floats
    trace: Trace

    @property
    def end(self) -> int:
        """The hour after the last one."""
        return self.hour0 + len(self.truth)


def past(values: Floats, hour0: int, reference: float | None = None) -> Past:
    """Prepare a history; `values[0]` must be known. Unless given, the reference level is the mean of the first 8 days.

    That choice is blind to everything later, so that a forecast issued at any hour after them cannot depend on it.
    """
    level = float(np.nanmean(values[:WARM_UP])) if reference is None else reference
    level = max(level, 1e-9)
    return Past(hour0, level, softened(values, level), trace(values, hour0, level))


@dataclass(frozen=True, eq=False)
class Learner:
    """The state of one zone's forecaster: everything that a refit needs, none of the history.

    knots         horizons with a regression
    learnt        all hours before this one have been consumed
    evidence      normal sums of all rows whose target was among them
    coefficients  `[K, B, F]` of the last refit; None before the first
    errors        of forecasts by earlier coefficients, against what came true
    """

    knots: Ints
    learnt: int
    evidence: ridge.Evidence
    coefficients: Singles | None
    errors: Errors

    @staticmethod
    def new(knots: Ints, learnt: int) -> Learner:
        """Knows nothing."""
        return Learner(knots, learnt, ridge.Evidence.none(len(knots)), None, Errors.none(len(knots)))


def advance(learner: Learner, of: Past, until: int, *, bands: bool = True) -> Learner:
    """Learn the hours before `until` that were not learnt yet.

    The present coefficients are first judged on them: they were fitted before. Without `bands` only as far as the mean
    needs it. What is new should lie in `of` with 80 days before it, for the longest regressors to be exact; hours
    before its beginning are passed over.
    """
    until = min(until, of.end)
    learner = replace(learner, learnt=max(learner.learnt, of.hour0))
    while learner.learnt < until:
        end = min(until, learner.learnt + CHUNK_H)
        targets = np.arange(learner.learnt, end) - of.hour0
        rows = ridge.rows(of.trace, of.truth, targets, learner.knots)
        errors = learner.errors
        if learner.coefficients is not None:
            met = _errors(of, rows, targets, learner.coefficients)
            scale = scale_of(rows.volatility).astype(np.float32)
            errors = errors.plus(rows.hour, met, scale, learner.knots, bands=bands)
        learner = replace(learner, learnt=end, evidence=learner.evidence.plus(rows), errors=errors)
    return learner


def _errors(of: Past, rows: ridge.Rows, targets: Ints, coefficients: Singles) -> Singles:
    """Truth minus forecast, `[K, n]`; NaN where either is missing."""
    forecast = rows.base + ridge.fitted(rows.x, rows.hour, coefficients)
    out: Singles = np.where(rows.weight > 0, of.truth[targets][None, :] - forecast, np.nan).astype(np.float32)
    return out


@dataclass(eq=False)
class Pupil:
    """One of the zones that learn together: its history and what was learnt of it up to now."""

    of: Past
    learner: Learner


def learn(pupils: Sequence[Pupil], until: int, *, bands: bool = True) -> None:
    """Bring every zone up to `until`."""
    for pupil in pupils:
        pupil.learner = advance(pupil.learner, pupil.of, until, bands=bands)


def refit(pupils: Sequence[Pupil], prior: Floats | None = None) -> Floats | None:
    """Solve again for every zone, shrunk towards `prior [K, F]` or else the pool of these zones; returns the prior.

    While there is too little evidence for any, nothing changes.
    """
    if prior is None:
        prior = ridge.pooled([pupil.learner.evidence for pupil in pupils])
    if prior is not None:
        for pupil in pupils:
            learner = pupil.learner
            pupil.learner = replace(learner, coefficients=ridge.own(learner.evidence, prior[: len(learner.knots)]))
    return prior


def rehearse(pupils: Sequence[Pupil], until: int, *, prior: Floats | None = None, bands: bool = True) -> None:
    """Bring every zone up to `until`, making and judging unseen forecasts on the way through the last months."""
    for begin in range(until - REHEARSAL_H, until, REHEARSAL_STEP_H):
        learn(pupils, begin, bands=bands)
        refit(pupils, prior)
    learn(pupils, until, bands=bands)
