"""What has been learnt of one zone so far, and how new hours are added to it (forecast layer: pure numpy, no I/O)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast import ridge
from carbon_sched.forecast.calibration import Errors
from carbon_sched.forecast.features import WARM_UP
from carbon_sched.forecast.series import DAY
from carbon_sched.forecast.trace import Trace, softened, trace

if TYPE_CHECKING:
    from carbon_sched.forecast.features import Ints, Singles
    from carbon_sched.forecast.series import Floats

CHUNK_H = 14 * DAY
"""How many target hours are turned into rows at a time; bounds memory (14 days: 70 MB)."""


@dataclass(frozen=True, eq=False)
class Past:
    """A zone's history from its first known hour on, ready to make regressors of; `truth` keeps its gaps."""

    hour0: int
    reference: float
    truth: Floats
    trace: Trace


def past(values: Floats, hour0: int) -> Past:
    """Prepare a history; `values[0]` must be known. The reference level is the mean of the first 8 days.

    That choice is blind to everything later, so that a forecast issued at any hour after them cannot depend on it.
    """
    reference = max(float(np.nanmean(values[:WARM_UP])), 1e-9)
    return Past(hour0, reference, softened(values, reference), trace(values, hour0, reference))


@dataclass(frozen=True, eq=False)
class Learner:
    """The state of one zone's forecaster: everything that a refit needs, none of the history.

    knots         horizons with a regression
    learnt        how many hours of the past have been consumed
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
    def new(knots: Ints) -> Learner:
        """Knows nothing."""
        return Learner(knots, 0, ridge.Evidence.none(len(knots)), None, Errors.none(len(knots)))


def advance(learner: Learner, of: Past, known: int, *, bands: bool = True) -> Learner:
    """Learn the hours up to index `known` (exclusive) of the past that were not learnt yet.

    The present coefficients are first judged on them: they were fitted before. Without `bands` only as far as the mean
    needs it.
    """
    known = min(known, len(of.truth))
    while learner.learnt < known:
        end = min(known, learner.learnt + CHUNK_H)
        targets = np.arange(learner.learnt, end)
        rows = ridge.rows(of.trace, of.truth, targets, learner.knots)
        errors = learner.errors
        if learner.coefficients is not None:
            errors = errors.plus(
                rows.hour, _errors(of, rows, targets, learner.coefficients), learner.knots, bands=bands
            )
        learner = replace(learner, learnt=end, evidence=learner.evidence.plus(rows), errors=errors)
    return learner


def refit(learner: Learner, prior: Floats | None) -> Learner:
    """Solve again, shrunk towards `prior [K, F]`; without a prior nothing can be said and nothing changes."""
    return learner if prior is None else replace(learner, coefficients=ridge.own(learner.evidence, prior))


def _errors(of: Past, rows: ridge.Rows, targets: Ints, coefficients: Singles) -> Singles:
    """Truth minus forecast, `[K, n]`; NaN where either is missing."""
    forecast = rows.base + ridge.fitted(rows.x, rows.hour, coefficients)
    out: Singles = np.where(rows.weight > 0, of.truth[targets][None, :] - forecast, np.nan).astype(np.float32)
    return out
