"""Exact and relaxed optima of small problems by HiGHS, to measure the planner against (needs the extra `server`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import highspy
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.planning.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Optimum:
    """`grams` of the best plan found, `bound` below which none can be, and whether the two met within the gap asked."""

    grams: float
    bound: float
    proven: bool


def solve_exactly(problem: Problem, *, integral: bool = True, seconds: float = 60.0, gap: float = 1e-4) -> Optimum:
    """The time-indexed problem: one binary per job, lane and start; capacity per lane and slot.

    Source of the formulation: Sousa and Wolsey, "A time indexed formulation of non-preemptive single machine
    scheduling problems", 1992. Without `integral` its linear relaxation.
    """
    columns = _columns(problem)
    model = _model(problem, columns, integral=integral)
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", "off")
    solver.setOptionValue("time_limit", float(seconds))
    solver.setOptionValue("mip_rel_gap", gap)
    solver.setOptionValue("threads", 1)
    solver.passModel(model)
    solver.run()
    info = solver.getInfo()
    done = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    value = float(info.objective_function_value)
    bound = float(info.mip_dual_bound) if integral else (value if done else float("-inf"))
    return Optimum(value, bound, done)


@dataclass(frozen=True, eq=False)
class _Columns:
    job: Ints
    lane: Ints
    start: Ints
    cost: Floats


def _columns(problem: Problem) -> _Columns:
    parts = []
    for job in range(problem.jobs):
        first, last = problem.first[job], problem.last[job]
        cost = problem.cost[problem.group[job], :, first : last + 1].astype(np.float64) * problem.units[job]
        lane, start = np.nonzero(np.isfinite(cost))
        parts.append((np.full(len(lane), job), lane, start + first, cost[lane, start]))
    jobs, lanes, starts, costs = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Columns(jobs, lanes, starts, costs)


def _model(problem: Problem, columns: _Columns, *, integral: bool) -> highspy.HighsLp:
    """Rows: one per job (taken exactly once), then one per lane and slot (units in use at most the capacity)."""
    count = len(columns.job)
    lengths = problem.slots[problem.group[columns.job]]
    rows = np.repeat(columns.lane * problem.horizon + columns.start, lengths + 1)
    begins = np.concatenate([[0], np.cumsum(lengths + 1)])
    inside = np.arange(begins[-1]) - np.repeat(begins[:-1], lengths + 1)
    rows = problem.jobs + rows + inside - 1
    rows[begins[:-1]] = columns.job
    values = np.repeat(problem.units[columns.job], lengths + 1)
    values[begins[:-1]] = 1.0
    capacity = problem.capacity.ravel()
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = count, problem.jobs + len(capacity)
    model.col_cost_ = columns.cost
    model.col_lower_, model.col_upper_ = np.zeros(count), np.ones(count)
    model.row_lower_ = np.concatenate([np.ones(problem.jobs), np.full(len(capacity), -highspy.kHighsInf)])
    model.row_upper_ = np.concatenate([np.ones(problem.jobs), np.where(np.isfinite(capacity), capacity, 1e30)])
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_, model.a_matrix_.index_, model.a_matrix_.value_ = begins, rows, values
    if integral:
        model.integrality_ = [highspy.HighsVarType.kInteger] * count
    return model
