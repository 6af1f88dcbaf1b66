"""Jobs that arrive one by one: the share of the saving that was to be had by knowing them all beforehand.

    make bench-arrivals      (or with --jobs-per-set 6000 --days 10 --seeds 2, four times as much)

Goals (issue "The planner", capacity, online arrivals): at 50 / 70 % utilisation 92 / 87 % of the clairvoyant saving on
mixed4 and 93 / 89 % on US3, and no late start at any load. Share = (at once - ours) / (at once - bound), at once =
run-now-here, bound = the capacity bound for one who knows every arrival. Intensities and durations are known. The
planner expects four other weeks of the same arrivals; beside it the same planner that expects none, and the first of a
queue to the greenest cluster that has room (`greenest`). `small` jobs take up to a tenth of a cluster, `chunky` ones up
to half of it; the goals are asked of both.

What keeps late starts away: where the work ahead exceeds 70 % of the capacity, the end of every window is kept in
reserve (`solving.EASY_LOAD`), and from 90 % on nothing that is free is left idle (`solving.FULL_LOAD`). Without the
first, 6 of 6,000 chunky jobs in ten days at 85 % on mixed4, seed 1, started late.

Known gap: of seeds 2 and 3 of the same, 6 and 1 start late (10 and 2 without the second); none of seeds 0 and 4. In
seed 2 the work of a day and a half exceeds all capacity; of those who go to the greenest cluster with room, 106 are
late. Who knows every arrival places all 6,000. From slot 587 on somebody lacks a place there: those who wait must use
98 % of all room in the next seven hours. The linear relaxation of that moment still places everybody; its integral
problem was not solved. Tried without the second rule, in vain: who finds no room lets all use their reserve, in a plan
made anew with all the effort; moving others aside for who finds no room, up to two moves deep; further orders of
placing (by deadline, by size); twice the reserve with four fifths of the window at most.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from carbon_sched.planning.bounds import capacity_bound
from carbon_sched.simulate.arrivals import Replayed, replay
from carbon_sched.simulate.instance import Batch, Drawn, draw
from carbon_sched.simulate.traces import Grid, Jobs, load_grid, load_jobs

SETS = {"US3": ("US-MIDA-PJM", "US-TEX-ERCO", "US-CAL-CISO"), "mixed4": ("GB", "DE", "ES", "US-CAL-CISO")}
UTILISATIONS = (0.5, 0.7, 0.85)
LEAST_SHARE = {"US3": (93.0, 89.0, 0.0), "mixed4": (92.0, 87.0, 0.0)}
MOST_UNITS = {"small": 8, "chunky": 32}
SEEN_WEEKS = 4


def main() -> int:
    """Print the table; 1 if a goal was missed."""
    options = parse()
    if not options.data.is_dir():
        print(f"skipped: no data folder at {options.data} (--data, or CARBON_SCHED_BENCH_DATA)")
        return 0
    jobs = load_jobs(options.data / "jobs" / options.jobs)
    grid = of_year(load_grid(options.data / "carbon-intensity", {zone for name in options.sets for zone in SETS[name]}))
    print(f"{options.jobs_per_set} jobs in {options.days} days per row")
    print(
        f"{'set':7} {'jobs':6} {'largest':>8} {'used':>5} {'seed':>4} {'above':>7} {'share':>6} {'late':>5}"
        f" {'not expecting':>14} {'late':>5} {'greenest':>9} {'late':>5} {'CPU s':>6}"
    )
    missed = [
        goal for name in options.sets for kind in options.kinds for goal in table(name, kind, jobs, grid, options)
    ]
    print("\nall goals met" if not missed else "\nmissed: " + "; ".join(missed))
    return 1 if missed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("CARBON_SCHED_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--jobs", default="alibaba-pai-2020-year-100k.csv.gz")
    parser.add_argument("--jobs-per-set", type=int, default=3000)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--kinds", nargs="*", default=list(MOST_UNITS), choices=list(MOST_UNITS))
    parser.add_argument("--utilisations", nargs="*", type=float, default=UTILISATIONS)
    return parser.parse_args()


def of_year(grid: Grid) -> Grid:
    start = grid.start.replace(year=2022)
    begin = grid.hour_of(start)
    return Grid(start, {zone: values[begin : begin + 8760] for zone, values in grid.zones.items()})


def table(name: str, kind: str, jobs: Jobs, grid: Grid, options: argparse.Namespace) -> list[str]:
    """The rows of one set and kind of jobs, and what they miss."""
    missed = []
    for utilisation in options.utilisations:
        rows = [one(name, kind, utilisation, seed, jobs, grid, options) for seed in range(options.seeds)]
        share, late = np.mean([row[0] for row in rows]), sum(row[1] for row in rows)
        least = dict(zip(UTILISATIONS, LEAST_SHARE[name], strict=True)).get(utilisation, 0.0)
        if share < least:
            missed.append(f"{name} {kind} {utilisation:.0%}: share {share:.1f} % < {least:g}")
        if late:
            missed.append(f"{name} {kind} {utilisation:.0%}: {late} late")
    return missed


def one(
    name: str, kind: str, utilisation: float, seed: int, jobs: Jobs, grid: Grid, options: argparse.Namespace
) -> tuple[float, int]:
    """Share of the clairvoyant saving in percent, and how many jobs started late."""
    batch = Batch(
        options.jobs_per_set, MOST_UNITS[kind], utilisation, seed, 1000 + 1700 * seed, span_h=24 * options.days
    )
    drawn = draw(batch, jobs, grid, SETS[name], expected=SEEN_WEEKS)
    bound = capacity_bound(drawn.problem).grams
    begun = time.process_time()
    ours = replay(drawn.problem, drawn.expected)
    seconds = time.process_time() - begun
    blind, greenest = replay(drawn.problem, None), greenest_now(drawn)
    print(
        f"{name:7} {kind:6} {batch.most_units / drawn.capacity:8.1%} {drawn.utilisation:5.0%} {seed:4}"
        f" {100 * (ours.grams / bound - 1):6.2f}% {share_of(drawn, ours, bound):5.1f}% {ours.late:5}"
        f" {share_of(drawn, blind, bound):13.1f}% {blind.late:5}"
        f" {share_of(drawn, greenest, bound):8.1f}% {greenest.late:5} {seconds:6.1f}",
        flush=True,
    )
    return share_of(drawn, ours, bound), ours.late


def share_of(drawn: Drawn, done: Replayed, bound: float) -> float:
    return 100 * (drawn.at_once_g - done.grams) / (drawn.at_once_g - bound)


def greenest_now(drawn: Drawn) -> Replayed:
    """Every job as early as it finds room, on the cluster where it emits least then."""
    problem = drawn.problem
    free, lane, start = problem.capacity.copy(), np.full(problem.jobs, -1), np.full(problem.jobs, -1)
    for job in np.argsort(problem.first, kind="stable").tolist():
        length, units = problem.slots[problem.group[job]], problem.units[job]
        slot = int(problem.first[job])
        while not (room := (free[:, slot : slot + length] >= units).all(axis=1)).any():
            slot += 1
        cost = np.where(room, problem.cost[problem.group[job], :, min(slot, problem.starts - 1)], np.inf)
        lane[job], start[job] = int(cost.argmin()), slot
        free[lane[job], slot : slot + length] -= units
    late = int((start > problem.last).sum())
    grams = problem.grams(lane, np.minimum(start, problem.starts - 1)).sum()
    return Replayed(lane, start, float(grams), late)


if __name__ == "__main__":
    sys.exit(main())
