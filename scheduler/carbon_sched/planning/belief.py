"""What to expect of a run: duration and power, blended from the user's word, earlier runs, their class, and priors."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist, median
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning import priors
from carbon_sched.planning.experience import class_of, units
from carbon_sched.planning.hardware import rated_w, ratio
from carbon_sched.planning.snapshot import Belief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from carbon_sched.domain.job import JobSpec, Resources
    from carbon_sched.domain.run import PastRun
    from carbon_sched.planning.experience import Peers

    Floats = NDArray[np.float64]

POINTS = 16
"""A belief keeps this many equally likely durations: its cost then differs by less than the forecast errs."""
WORD_SCATTER = 0.3
"""Standard deviation of log(true / said): a said hour is taken as 0.6 to 1.6 h nine times out of ten."""
WORD_RUNS = 4.0
"""The user's word counts as many measured runs as this."""
PRIOR_RUNS = 0.5
"""What is known of the class counts as half a measured run of the name, and nothing beside the user's word."""
PUBLISHED_RUNS = 5.0
"""Within a class, the published traces count as many finished runs as this."""
OUTLIER_MADS = 3.0
LEAST_SCATTER = 0.05
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
PROFILE_STEP = 0.1
"""Power that varies by less than this share of its mean is taken as even."""


@dataclass(frozen=True)
class _Mix:
    """Run times in seconds with what each counts, in measured runs."""

    values: Floats
    counts: Floats


def belief(spec: JobSpec, history: Sequence[PastRun] = (), peers: Peers | None = None) -> Belief:
    """Duration distribution and power expected of a run of `spec`.

    Args:
        spec: what the user asked for, with what they said about duration and power.
        history: metered runs of the same name, in any order; runs of another size count less.
        peers: what finished runs of the same class teach.

    Returns:
        A belief whose durations are equally likely and ascending, in seconds; its source names what it was made from.
    """
    on = _learnt_on(spec, history)
    mix, duration_source = _durations(spec, history, peers, on)
    durations = _equally_likely(mix.values, mix.counts)
    power, moved, power_source = _power(spec, history, peers, on)
    sources = dict.fromkeys(source for source in (duration_source, power_source) if source)
    return Belief(
        tuple(durations),
        (1.0 / len(durations),) * len(durations),
        power,
        moved,
        "; ".join(sources),
        profile=_profile(history),
        upper=_quantiles(mix),
        gpu_type=on,
        start_up_s=median(run.start_up_s for run in history) if history else (peers.start_up_s if peers else 0.0),
    )


def _learnt_on(spec: JobSpec, history: Sequence[PastRun]) -> str | None:
    """The GPU type that an estimate is for: the one asked for, else the one most earlier runs were on."""
    if spec.resources.gpu_type or not spec.resources.gpus:
        return spec.resources.gpu_type
    seen = [run.gpu_type for run in history if run.gpu_type]
    return max(sorted(set(seen)), key=seen.count, default=None)


# duration ----------------------------------------------------------------------------------------


def _durations(spec: JobSpec, history: Sequence[PastRun], peers: Peers | None, on: str | None) -> tuple[_Mix, str]:
    said, parts, sources = spec.estimate.duration_s, list[_Mix](), list[str]()
    if said is not None:
        parts.append(_said(said))
        sources.append("said by the user")
    if history:
        parts.append(_measured(spec, history, on))
        sources.append(f"{_runs(len(history))} of this name")
    if said is None:
        parts.append(_class(peers))
        if not history:
            named = class_of(spec.phase, spec.resources, on)
            sources.append(f"{_runs(peers.runs)} of its class ({named})" if peers else priors.DURATIONS_SOURCE)
    mix = _Mix(np.concatenate([part.values for part in parts]), np.concatenate([part.counts for part in parts]))
    return mix, ", with ".join(sources)


def _runs(count: int) -> str:
    return f"{count} earlier run{'s' if count > 1 else ''}"


def _said(seconds: float) -> _Mix:
    steps = (np.arange(POINTS) + 0.5) / POINTS
    points = seconds * np.exp(WORD_SCATTER * np.array([NormalDist().inv_cdf(step) for step in steps]))
    return _Mix(points, np.full(POINTS, WORD_RUNS / POINTS))


def _class(peers: Peers | None) -> _Mix:
    """The finished runs of the class, and the published traces while those are few."""
    published = np.array(priors.DURATIONS_S)
    learnt = np.array(peers.durations_s if peers else ())
    share = peers.runs / (peers.runs + PUBLISHED_RUNS) if peers else 0.0
    masses = [np.full(len(published), (1 - share) / len(published)), np.full(len(learnt), share / max(len(learnt), 1))]
    return _Mix(np.concatenate([published, learnt]), PRIOR_RUNS * np.concatenate(masses))


def _measured(spec: JobSpec, history: Sequence[PastRun], on: str | None) -> _Mix:
    """Each run as a small kernel on the log scale, outliers pulled in to three scaled deviations from the median.

    Runs on another GPU type are converted by the ratio of the two, and count less, since that is an estimate.
    """
    crossed = [ratio(run.gpu_type, on) if run.gpu_type else ratio(None, None) for run in history]
    times = [run.duration_s * cross.duration for run, cross in zip(history, crossed, strict=True)]
    logs = np.log(np.maximum(times, 1e-3))
    middle = float(np.median(logs))
    reach = OUTLIER_MADS * max(1.4826 * float(np.median(np.abs(logs - middle))), LEAST_SCATTER)
    logs = np.clip(logs, middle - reach, middle + reach)
    width = LEAST_SCATTER + WORD_SCATTER / np.sqrt(len(logs))
    # three points with the mean and variance of a normal kernel
    points = np.exp(logs[:, None] + width * np.sqrt(1.5) * np.array([-1.0, 0.0, 1.0]))
    alike = [
        _alike(spec.resources, run.resources) / (1 + cross.error) for run, cross in zip(history, crossed, strict=True)
    ]
    return _Mix(points.ravel(), np.repeat(np.array(alike) / 3.0, 3))


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


def _quantiles(mix: _Mix) -> tuple[tuple[float, float], ...]:
    """`LEVELS` of the run time and the seconds for each; what was never seen is not beyond the longest run seen."""
    order = np.argsort(mix.values, kind="stable")
    below = np.cumsum(mix.counts[order])
    at = np.searchsorted(below, np.array(LEVELS) * below[-1] * (1 - 1e-12))
    return tuple(zip(LEVELS, mix.values[order][at].tolist(), strict=True))


# power -------------------------------------------------------------------------------------------


def _power(spec: JobSpec, history: Sequence[PastRun], peers: Peers | None, on: str | None) -> tuple[float, float, str]:
    """Mean power of the job, the part a placement moves, and where the figure comes from."""
    published, idle, source = _prior_power(spec.resources, on)
    prior = published
    if peers is not None and peers.power_w is not None:
        measured = peers.power_w * units(spec.resources)
        prior = (peers.runs * measured + PUBLISHED_RUNS * published) / (peers.runs + PUBLISHED_RUNS)
        source = "power of its class"
    said, power = spec.estimate.power_w, prior
    seen = [
        run.power_w * published / _prior_power(run.resources, run.gpu_type)[0] for run in history if run.power_w > 0
    ]
    if seen:
        middle, count = float(np.median(seen)), len(seen)
        other, weight = (said, 1.0) if said is not None else (prior, 0.25)
        power, source = (count * middle + weight * other) / (count + weight), "power measured on earlier runs"
    elif said is not None:
        power, source = said, "power said by the user"
    return power, max(power - idle, 0.1 * power), source


def _prior_power(resources: Resources, gpu_type: str | None) -> tuple[float, float, str]:
    if resources.gpus > 0:
        rated = rated_w(gpu_type or resources.gpu_type) * resources.gpus
        power = priors.MEAN_SHARE * rated + priors.CPU_W * resources.cpus
        return power, priors.IDLE_SHARE * rated, priors.POWER_SOURCE
    return priors.CPU_W * max(resources.cpus, 1.0), 0.0, priors.CPU_POWER_SOURCE


def _profile(history: Sequence[PastRun]) -> tuple[float, ...]:
    """Median power of earlier runs in equal parts, relative to its mean; even until it is seen to vary."""
    lengths = [len(run.profile) for run in history if run.profile]
    if not lengths:
        return (1.0,)
    parts = max(lengths)
    seen = np.array([run.profile for run in history if len(run.profile) == parts])
    blended = (len(seen) * np.median(seen, axis=0) + 1.0) / (len(seen) + 1)
    steps = np.round(blended / blended.mean() / PROFILE_STEP) * PROFILE_STEP
    if np.ptp(steps) < PROFILE_STEP / 2:
        return (1.0,)
    return tuple((steps / steps.mean()).tolist())
