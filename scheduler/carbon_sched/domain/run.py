"""A finished run as it is remembered: what the next job of its name or class is expected to need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.job import Phase

if TYPE_CHECKING:
    from carbon_sched.domain.job import Resources


@dataclass(frozen=True)
class PastRun:
    """One run that succeeded and was metered to its end.

    `duration_s` is the user's code alone; `power_w` the mean IT power of the whole job, 0 where nothing was metered;
    `profile` its power in equal parts of the run, relative to the mean, empty where that is not known. `start_up_s`
    passed between the opening of the attempt and the user's code. `gpu_type` is what it really ran on, None where the
    cluster does not say. `number` counts runs in the order they were stored.
    """

    name: str
    resources: Resources
    duration_s: float
    power_w: float
    phase: Phase = Phase.OTHER
    gpu_type: str | None = None
    profile: tuple[float, ...] = ()
    start_up_s: float = 0.0
    number: int = 0
