"""What came of a scenario under one policy: grams, waits and lateness of every job, whoever decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.simulate.scenario import NOWHERE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.simulate.scenario import Scenario

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Outcome:
    """`[J]` each: gCO2e, hours from submission to start (to end, less the run time, for jobs that pause), and lateness.

    `cluster` and `start_h` say where and when each job ran; NOWHERE and NaN where that is not one place and time.
    Jobs that never started within the data are late, and count as started at its end.
    """

    grams: Floats
    wait_h: Floats
    late: Bools
    cluster: Ints
    start_h: Floats


def started(scenario: Scenario, cluster: Ints, start_h: Floats) -> Outcome:
    """The outcome of jobs that run through once started, `[J]` each; NOWHERE for those that never did."""
    never = cluster == NOWHERE
    begun = np.where(never, float(scenario.hours), start_h)
    grams = scenario.grams(np.where(never, scenario.home, cluster), begun)
    late = never | (begun > scenario.latest_h + 1e-6)
    return Outcome(grams, begun - scenario.jobs.submitted_h, late, cluster, np.where(never, np.nan, start_h))


def paused(scenario: Scenario, grams: Floats, later_h: Floats) -> Outcome:
    """The outcome of jobs that run in pieces, with room for everybody."""
    nowhere = np.full(len(grams), NOWHERE)
    late = later_h > scenario.slack_h + 1.0 + 1e-6
    return Outcome(grams, later_h, late, nowhere, np.full(len(grams), np.nan))
