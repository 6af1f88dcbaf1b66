"""How long a plan takes and what memory: 1,000 to 100,000 jobs on 20 clusters and 672 start slots of 15 minutes.

    make bench-plan-speed      (or: python -m tests.bench.bench_plan_speed --data DIR)

Goals for 10,000 jobs (issue "The planner", speed), on one core: cold plan 2 s, warm re-plan 0.3 s, one arrival 50 ms,
500 MiB. Seconds are of this process's CPU, so that a busy machine does not blur them; wall time stands beside them.
Each size runs in a process of its own, so that its peak memory is its own. The last lines time all of `plan(snapshot)`:
reading 20 clusters and the jobs one by one, with the outline of a decision for each; and beside it what it takes to
explain one of them, with an offer of every cluster, as is done for those that are told something new.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import numpy as np

from carbon_sched.planning.placing import NOWHERE
from carbon_sched.planning.solving import Warm, solve
from carbon_sched.simulate.instance import Batch, draw
from carbon_sched.simulate.traces import Grid, load_grid, load_jobs

ZONES = (
    *("AT", "AU-NSW", "AU-SA", "BE", "BR-CS", "CA-ON", "CH", "DE", "DK-DK1", "ES"),
    *("FI", "FR", "GB", "IE", "IT-NO", "NL", "PL", "PT", "US-CAL-CISO", "US-TEX-ERCO"),
)
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
GOALS = {"cold_s": 2.0, "warm_s": 0.3, "arrival_s": 0.05, "peak_mib": 500.0}
GOAL_SIZE = 10_000
EXPLAINED = 1_000
NOISE = (0.003, 0.02)
"""What a new forecast changes from hour to hour, as a share, fading over a day: quietly, or lively."""


def main() -> int:
    options = parse()
    if not options.data.is_dir():
        print(f"skipped: no data folder at {options.data} (--data, or CARBON_SCHED_BENCH_DATA)")
        return 0
    if options.size:
        print(json.dumps(whole(options) if options.whole else measure(options)))
        return 0
    print(
        f"{'jobs':>7} {'cold s':>7} {'(wall)':>7} {'quiet s':>8} {'(wall)':>7} {'/fresh':>8} {'lively s':>9}"
        f" {'/fresh':>8} {'arrival ms':>11} {'peak MiB':>9}"
    )
    missed = []
    for size in options.sizes:
        row = child(options, size)
        print(
            f"{size:7} {row['cold_s']:7.2f} {row['cold_wall_s']:7.2f} {row['warm_s']:8.2f} {row['warm_wall_s']:7.2f}"
            f" {row['warm_pct']:+7.2f}% {row['lively_s']:9.2f} {row['lively_pct']:+7.2f}%"
            f" {1000 * row['arrival_s']:11.1f} {row['peak_mib']:9.0f}",
            flush=True,
        )
        if size == GOAL_SIZE:
            missed = [f"{name} {row[name]:.3g} > {most:g}" for name, most in GOALS.items() if row[name] > most]
    for size in [size for size in options.sizes if size <= GOAL_SIZE]:
        row = child(options, size, "--whole")
        print(
            f"plan(snapshot), {size} jobs: cold {row['cold_s']:.2f} s, again {row['again_s']:.2f} s,"
            f" one arrival {row['arrival_s']:.2f} s, a decision explained {1000 * row['explained_s']:.2f} ms,"
            f" {row['peak_mib']:.0f} MiB",
            flush=True,
        )
    print("\nall goals met" if not missed else "\nmissed: " + "; ".join(missed))
    return 1 if missed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("CARBON_SCHED_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(options: argparse.Namespace, size: int, *more: str) -> dict:
    command = [sys.executable, __file__, "--data", str(options.data), "--size", str(size), *more]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work):
    cpu, wall = time.process_time(), time.monotonic()
    out = work()
    return out, time.process_time() - cpu, time.monotonic() - wall


def year(data: Path) -> Grid:
    grid = load_grid(data / "carbon-intensity", ZONES)
    start = grid.start.replace(year=2022)
    begin = grid.hour_of(start)
    return Grid(start, {zone: values[begin : begin + 8760] for zone, values in grid.zones.items()})


def measure(options: argparse.Namespace) -> dict:
    """Prices, placing and local search alone, on arrays."""
    jobs, grid = load_jobs(options.data / "jobs" / "alibaba-pai-2020-year-100k.csv.gz"), year(options.data)
    problem = draw(Batch(options.size, 8, 0.7, 0, start_h=1000), jobs, grid, ZONES).problem
    plan, cold_s, cold_wall_s = timed(lambda: solve(problem))
    out = {"cold_s": cold_s, "cold_wall_s": cold_wall_s}
    for name, noise in zip(("warm", "lively"), NOISE, strict=True):
        moved, lane = later(problem, plan, noise)
        warm = Warm(plan.prices, lane, plan.start, np.where(lane == NOWHERE, np.nan, plan.costs()))
        again, out[f"{name}_s"], out[f"{name}_wall_s"] = timed(partial(solve, moved, warm))
        out[f"{name}_pct"] = 100 * (again.grams / solve(moved).grams - 1)
    arrived = plan.lane.copy()
    arrived[options.size // 2] = NOWHERE
    state = Warm(plan.prices, arrived, plan.start, plan.costs(), stands=True)
    _, out["arrival_s"], _ = timed(lambda: solve(problem, state))
    return {**out, "peak_mib": peak_mib()}


def later(problem, plan, noise: float) -> tuple:
    """The problem after a new forecast, and the lanes of its jobs with one in a hundred new."""
    rng = np.random.default_rng(1)
    hours = problem.starts // 4 + 1
    walk = np.cumsum(rng.normal(size=(1, problem.lanes, hours)), axis=2) * noise * np.exp(-np.arange(hours) / 24)
    walk = np.repeat(walk, 4, axis=2)[:, :, : problem.starts]
    moved = replace(problem, cost=(problem.cost * np.exp(walk)).astype(np.float32))
    return moved, np.where(rng.random(problem.jobs) < 0.01, NOWHERE, plan.lane)


def whole(options: argparse.Namespace) -> dict:
    """plan(snapshot) with everything that belongs to it, in a process that collects as the planner's does."""
    from carbon_sched.ledger.uncollected import collected_seldom
    from carbon_sched.planning.plan import plan

    jobs, grid = load_jobs(options.data / "jobs" / "alibaba-pai-2020-year-100k.csv.gz"), year(options.data)
    snapshot = world(options.size, jobs, grid)
    collected_seldom()
    first, cold_s, _ = timed(lambda: plan(snapshot))
    some = [outline.job_id for outline in first.outlines[:EXPLAINED]]
    _, explained_s, _ = timed(lambda: first.explained(some))
    placed = {d.job_id for d in first.outlines if d.verdict.value == "place"}
    left = replace(snapshot, jobs=tuple(job for job in snapshot.jobs if job.job_id not in placed))
    second, again_s, _ = timed(lambda: plan(left, first))
    more = replace(left, jobs=(*left.jobs, replace(left.jobs[0], job_id="arrival")))
    _, arrival_s, _ = timed(lambda: plan(more, second))
    return {
        "cold_s": cold_s,
        "again_s": again_s,
        "arrival_s": arrival_s,
        "explained_s": explained_s / len(some),
        "peak_mib": peak_mib(),
    }


def world(size: int, jobs, grid: Grid):
    """A snapshot of 20 clusters with room for 70 % of the jobs' work, a week of hourly readings each."""
    from carbon_sched.domain.cluster import Cluster, ClusterStatus, Node, Pue
    from carbon_sched.domain.intensity import Basis, Grade, Kind, Outlook, Perimeter, Reading, Signal
    from carbon_sched.domain.job import Bundle, JobSpec, Resources
    from carbon_sched.planning.belief import belief
    from carbon_sched.planning.snapshot import ClusterView, Snapshot, WaitingJob

    now, hour = datetime(2026, 3, 10, tzinfo=timezone.utc), timedelta(hours=1)
    kind = (
        Signal.AVERAGE,
        Basis.LIFECYCLE,
        Perimeter.CONSUMPTION,
        Kind.FORECAST,
        Grade.OWN_FORECAST,
        "bench",
        now,
        now,
    )
    rng = np.random.default_rng(0)
    pick = rng.choice(len(jobs), size, replace=False)
    hours, units = np.minimum(jobs.hours[pick], 72), np.minimum(jobs.units[pick], 8)
    gpus = float(np.ceil(np.sum(hours * units) / (0.7 * 24 * len(ZONES))))
    views = []
    for zone in ZONES:
        values = grid.zones[zone][1000:1168]
        readings = tuple(
            Reading(zone, now + i * hour, now + (i + 1) * hour, round(1000 * v), *kind) for i, v in enumerate(values)
        )
        node = Node("n", "10.0.0.1", is_head=False, resources={"CPU": 10 * gpus, "GPU": gpus}, used={})
        status = ClusterStatus(zone, now, nodes=(node,))
        views.append(ClusterView(Cluster(zone, zone, Pue(1_200_000, "2025", "bench")), status, Outlook(zone, readings)))
    waiting = []
    for i, (length, unit) in enumerate(zip(np.round(hours, 1), units, strict=True)):
        from carbon_sched.domain.job import Estimate

        resources = Resources(bundles=(Bundle(gpus=float(unit)),))
        spec = JobSpec(
            "python job.py", f"job{i % 300}", resources=resources, estimate=Estimate(max(float(length), 0.1) * 3600)
        )
        slack = hour * (6 if length < 2 else 24)
        waiting.append(WaitingJob(f"{i:07}", spec, now, now, now + slack, belief(spec)))
    return Snapshot(now, tuple(views), tuple(waiting), home=ZONES[0], best_fixed=ZONES[0])


if __name__ == "__main__":
    sys.exit(main())
