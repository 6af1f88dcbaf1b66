"""What finished jobs teach about those to come: run times by class and size on a logarithmic scale."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from math import log2
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from carbon_sched.domain.job import Phase, Resources
    from carbon_sched.domain.run import PastRun

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHORTEST_S, LONGEST_S = 10.0, 60 * 86_400.0
BINS = 300
"""About 5 % a step: far finer than any job is known."""
CLASS_RUNS = 30.0
"""A class as a whole counts as this many runs of the job's own size (prototype section 2.4)."""


class Experience:
    """Histograms of run times, `[classes, sizes, BINS]`; a job is believed from its own size and its whole class.

    Nothing may be added before it has ended: what is believed of a job then rests on the past alone.
    """

    def __init__(self, classes: int, sizes: int) -> None:
        self._edges = np.geomspace(SHORTEST_S, LONGEST_S, BINS + 1)
        self._middle = np.sqrt(self._edges[1:] * self._edges[:-1])
        self._seen = np.zeros((classes, sizes, BINS))

    def add(self, classes: Ints, sizes: Ints, seconds: Floats) -> None:
        """Learn from finished runs, `[n]` each."""
        bins = np.clip(np.searchsorted(self._edges, seconds) - 1, 0, BINS - 1)
        np.add.at(self._seen, (classes, sizes, bins), 1.0)

    def beliefs(self, classes: Ints, sizes: Ints, points: int) -> Floats:
        """`[n, points]` equally likely run times in seconds, ascending; NaN where the class has never been seen."""
        whole = self._seen.sum(axis=1)
        runs = whole.sum(axis=1, keepdims=True)
        share = np.divide(whole, runs, out=np.full_like(whole, np.nan), where=runs > 0)
        chance = self._seen[classes, sizes] + CLASS_RUNS * share[classes]
        chance /= chance.sum(axis=1, keepdims=True)
        return np.stack([self._points(row, points) for row in chance]) if len(chance) else np.empty((0, points))

    def _points(self, chance: Floats, points: int) -> Floats:
        """Means of equal parts of the distribution."""
        if not np.isfinite(chance[0]):
            return np.full(points, np.nan)
        below = np.concatenate([[0.0], np.cumsum(chance)])
        integral = np.concatenate([[0.0], np.cumsum(chance * self._middle)])
        out: Floats = np.diff(np.interp(np.linspace(0.0, below[-1], points + 1), below, integral)) * points
        return out


SIZES = 16
POINTS = 24
RECENT = 200
"""So many runs tell what a class draws; older ones had other code and other machines."""


@dataclass(frozen=True)
class Peers:
    """What the finished runs of a job's class teach: equally likely run times in seconds, and how many runs there were.

    `power_w` is the median of the measured power per unit (GPU, or CPU where there is none), None where none is known;
    `start_up_s` that of the seconds between an attempt's opening and the user's code.
    """

    durations_s: tuple[float, ...]
    runs: int
    power_w: float | None
    start_up_s: float


class Classes:
    """Finished runs by class (phase and kind of hardware) and size; each one improves the next estimate."""

    def __init__(self) -> None:
        self._times: dict[str, Experience] = defaultdict(lambda: Experience(1, SIZES))
        self._runs: dict[str, int] = defaultdict(int)
        self._power: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._start_up: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    def add(self, run: PastRun) -> None:
        """Learn from one finished run, of its own type of GPU and of GPUs as such: not every job asks for a type."""
        for kind in sorted({hardware_of(run.resources, run.gpu_type), "GPU" if run.resources.gpus else "CPU"}):
            key = f"{run.phase.value} on {kind}"
            self._times[key].add(_NONE, np.array([_size(run.resources)]), np.array([run.duration_s]))
            self._runs[key] += 1
            self._start_up[key].append(run.start_up_s)
            if run.power_w > 0:
                self._power[key].append(run.power_w / units(run.resources))

    def of(self, phase: Phase, resources: Resources, gpu_type: str | None) -> Peers | None:
        """What the class of such a job teaches; None where none of it has finished."""
        key = class_of(phase, resources, gpu_type)
        if key not in self._runs:
            return None
        points = self._times[key].beliefs(_NONE, np.array([_size(resources)]), POINTS)[0]
        power = self._power.get(key)
        start_up_s = median(self._start_up[key])
        return Peers(tuple(points.tolist()), self._runs[key], median(power) if power else None, start_up_s)


_NONE = np.zeros(1, dtype=np.int64)


def class_of(phase: Phase, resources: Resources, gpu_type: str | None) -> str:
    """Jobs that are expected to run alike: by phase and kind of hardware."""
    return f"{phase.value} on {hardware_of(resources, gpu_type)}"


def hardware_of(resources: Resources, gpu_type: str | None) -> str:
    """The GPU type in upper case, `GPU` where it is not known, else `CPU`."""
    return (gpu_type or resources.gpu_type or "GPU").upper() if resources.gpus else "CPU"


def units(resources: Resources) -> float:
    """What a job takes: GPUs, else CPUs, else one of nothing in particular."""
    return resources.gpus or resources.cpus or 1.0


def _size(resources: Resources) -> int:
    """Sizes are told apart by doubling."""
    return min(max(round(log2(units(resources))), 0), SIZES - 1)
