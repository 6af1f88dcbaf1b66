"""Where each job ends up once nodes are looked at one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.placing import NOWHERE, Field, order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.planning.columns import Columns
    from carbon_sched.planning.solving import Solution


def settle(of: Columns, solution: Solution, spared: Sequence[int]) -> tuple[list[int], list[int]]:
    """Lane and start slot per job, after every job that is to start now has been laid on nodes.

    Lanes count units, not nodes: where the units lie scattered, the job takes its next best offer instead. Jobs that
    are `spared` the waiting start as early as they may, if there is room then.
    """
    problem, early = of.problem, set(spared)
    field = Field.filled(problem, solution.lane, solution.start)
    for i in order(problem)[np.argsort(problem.level[order(problem)], kind="stable")].tolist():
        offers = None
        if i in early:
            _bring_forward(field, i)
        while field.lane[i] != NOWHERE and field.start[i] == of.grid.now and of.windows[i][0] <= 0:
            room = of.site(int(field.lane[i])).room
            held = room.assign(of.jobs[i].spec.resources)
            if held is not None:
                room.nodes.take(held)
                break
            offers = field.offers(i).copy() if offers is None else offers
            lane, start = field.lift(i)
            offers[start - problem.first[i], lane] = np.inf
            lane, start = field.best(i, offers)
            if lane != NOWHERE:
                field.put(i, lane, start)
    return field.lane.tolist(), field.start.tolist()


def _bring_forward(field: Field, i: int) -> None:
    """Move a job to its cheapest offer in its first slot; where it is, if there is no room."""
    at_once = field.offers(i).copy()
    at_once[1:] = np.inf
    before = field.lift(i)
    lane, start = field.best(i, at_once)
    lane, start = (lane, start) if lane != NOWHERE else before
    if lane != NOWHERE:
        field.put(i, lane, start)
