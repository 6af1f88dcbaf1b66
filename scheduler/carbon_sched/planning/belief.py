"""What to expect of a run: duration and power, blended from the user's word, earlier runs and class priors."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning import priors
from carbon_sched.planning.snapshot import Belief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from carbon_sched.domain.job import JobSpec, Resources

    Floats = NDArray[np.float64]

POINTS = 16
"""A belief keeps this many equally likely durations: its cost then differs by less than the forecast errs."""
WORD_SCATTER = 0.3
"""Standard deviation of log(true / said): a said hour is taken as 0.6 to 1.6 h nine times out of ten."""
WORD_RUNS = 4.0
"""The user's word counts as many measured runs as this."""
PRIOR_RUNS = 0.5
"""The class prior counts as half a measured run, and nothing beside the user's word."""
OUTLIER_MADS = 3.0
LEAST_SCATTER = 0.05


@dataclass(frozen=True)
class PastRun:
    """One metered run: wall time, mean IT power of the whole job, and what had been asked for."""

    duration_s: float
    power_w: float
    spec: JobSpec


def belief(spec: JobSpec, history: Sequence[PastRun] = ()) -> Belief:
    """Duration distribution and power expected of a run of `spec`.

    Args:
        spec: what the user asked for, with what they said about duration and power.
        history: metered runs of the same name, in any order; runs of another size count less.

    Returns:
        A belief whose durations are equally likely and ascending, in seconds; its source names what it was made from.
    """
    durations, duration_source = _durations(spec, history)
    power, moved, power_source = _power(spec, history)
    weights = (1.0 / len(durations),) * len(durations)
    sources = dict.fromkeys(source for source in (duration_source, power_source) if source)
    return Belief(tuple(durations), weights, power, moved, "; ".join(sources))


def _durations(spec: JobSpec, history: Sequence[PastRun]) -> tuple[list[float], str]:
    parts: list[tuple[Floats, Floats]] = []
    said = spec.estimate.duration_s
    if said is not None:
        parts.append(_said(said))
    if history:
        parts.append(_measured(spec, history))
    if said is None:
        prior = np.array(priors.DURATIONS_S)
        parts.append((prior, np.full(len(prior), PRIOR_RUNS / len(prior))))
    values = np.concatenate([points for points, _ in parts])
    weights = np.concatenate([masses for _, masses in parts])
    return _equally_likely(values, weights), _duration_source(said, len(history))


def _duration_source(said: float | None, runs: int) -> str:
    past = f"{runs} earlier run{'s' if runs > 1 else ''} of this name"
    if said is not None:
        return f"said by the user, with {past}" if runs else "said by the user"
    return past if runs else priors.DURATIONS_SOURCE


def _said(seconds: float) -> tuple[Floats, Floats]:
    steps = (np.arange(POINTS) + 0.5) / POINTS
    points = seconds * np.exp(WORD_SCATTER * np.array([NormalDist().inv_cdf(step) for step in steps]))
    return points, np.full(POINTS, WORD_RUNS / POINTS)


def _measured(spec: JobSpec, history: Sequence[PastRun]) -> tuple[Floats, Floats]:
    """Each run as a small kernel on the log scale, outliers pulled in to three scaled deviations from the median."""
    logs = np.log([max(run.duration_s, 1e-3) for run in history])
    middle = float(np.median(logs))
    reach = OUTLIER_MADS * max(1.4826 * float(np.median(np.abs(logs - middle))), LEAST_SCATTER)
    logs = np.clip(logs, middle - reach, middle + reach)
    width = LEAST_SCATTER + WORD_SCATTER / np.sqrt(len(logs))
    # three points with the mean and variance of a normal kernel
    points = np.exp(logs[:, None] + width * np.sqrt(1.5) * np.array([-1.0, 0.0, 1.0]))
    masses = np.array([_alike(spec.resources, run.spec.resources) for run in history])
    return points.ravel(), np.repeat(masses / 3.0, 3)


def _alike(one: Resources, other: Resources) -> float:
    """1 for the same size, less in proportion for another; a run on twice the GPUs says half as much."""
    a, b = one.gpus or one.cpus, other.gpus or other.cpus
    return min(a, b) / max(a, b) if a > 0 and b > 0 else 1.0


def _equally_likely(values: Floats, weights: Floats) -> list[float]:
    """Means of `POINTS` parts of equal probability; keeps the mean of the distribution exactly."""
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order] / weights.sum()
    # the integral of the quantile function, a piecewise linear function of probability
    probability = np.concatenate([[0.0], np.cumsum(weights)])
    integral = np.concatenate([[0.0], np.cumsum(values * weights)])
    cuts = np.linspace(0.0, 1.0, POINTS + 1)
    parts = np.diff(np.interp(cuts, probability / probability[-1], integral)) * POINTS
    distinct = np.maximum.accumulate(parts)
    return [float(value) for value in distinct]


def _power(spec: JobSpec, history: Sequence[PastRun]) -> tuple[float, float, str]:
    """Mean power of the job, the part a placement moves, and where the figure comes from."""
    prior, idle, source = _prior_power(spec.resources)
    said, power = spec.estimate.power_w, prior
    measured = [run.power_w * prior / _prior_power(run.spec.resources)[0] for run in history if run.power_w > 0]
    if measured:
        middle, count = float(np.median(measured)), len(measured)
        other, weight = (said, 1.0) if said is not None else (prior, 0.25)
        power, source = (count * middle + weight * other) / (count + weight), "power measured on earlier runs"
    elif said is not None:
        power, source = said, "power said by the user"
    return power, max(power - idle, 0.1 * power), source


def _prior_power(resources: Resources) -> tuple[float, float, str]:
    rated = priors.rated_w(resources.gpu_type) * resources.gpus
    if rated > 0:
        power = priors.MEAN_SHARE * rated + priors.CPU_W * resources.cpus
        return power, priors.IDLE_SHARE * rated, priors.POWER_SOURCE
    return priors.CPU_W * max(resources.cpus, 1.0), 0.0, priors.CPU_POWER_SOURCE
