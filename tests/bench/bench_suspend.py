"""Suspend and resume, one zone at a time, room for all: our share of the suspend oracle's saving beside the others'.

    make bench-suspend      (or: python tests/bench/bench_suspend.py --data DIR [--sample 4000] [--zones DE GB])

Jobs of the PAI year as in bench_start_time: 6 h of waiting and pausing together below two hours of run time, 24 h else,
our own forecast, run times learnt from jobs that had ended before the day of submission. The oracle knows both and
pauses for nothing. Intervals: 90 %, bootstrap over days. Then the same with ten minutes of energy for every resume: it
must pause less, and never end worse than choosing a start alone.

Last, jobs of five minutes to five days of the Philly trace, moved to four places of the year, which may stand still
for as long as they run: how many times what choosing a start saves is saved by pausing. Longer jobs hold half of that
trace's GPU-hours; with as much slack they reach beyond the twelve days that a replay looks ahead.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from bench_start_time import LEADS, TAIL_H, WARM_UP_H, ZONES, own_forecasts, worth

from carbon_sched.planning.trust import trusted
from carbon_sched.simulate.baselines import ecovisor, rows_ahead, wait_awhile
from carbon_sched.simulate.pausing import cheapest_for_the_mean, cheapest_for_the_rest, dynamic, replay
from carbon_sched.simulate.shares import Bootstrap
from carbon_sched.simulate.start_time import HOUR_S, Rule, Waits, decide, grams, learnt_beliefs, slack_hours
from carbon_sched.simulate.traces import Jobs, load_grid, load_jobs
from carbon_sched.simulate.zone import Zone

GOALS = {"US-CAL-CISO": 88, "CA-ON": 82, "DE": 75, "AU-SA": 73, "ES": 73, "GB": 70}
MEAN_GOAL, ABOVE_MEAN_RULE = 75.0, 5.0
CHECKPOINT_H = 10 / 60
PHILLY, SHORTEST_H, LONGEST_H, LEARN_H = "philly-2017-sep-oct.csv.gz", 5 / 60, 120.0, 336
PLACES = (0, 12, 24, 36)
"""Weeks by which jobs of the two months are moved into the year."""
FACTOR = 1.9
"""With slack as long as the job, suspension saves so many times what a start alone does, of jobs of a day or more."""
POINTS = 32
OURS, PERFECT, TRUE = "ours", "perfect forecast", "true durations"
CHEAPEST, REST = "cheapest slots for the mean", "cheapest for the mean rest"
START, COSTLY = "start time only", "ours, 10 min a resume"


def main() -> int:
    """Print the table; 1 if a goal was missed."""
    options = parse()
    if not options.data.is_dir():
        print(f"skipped: no data folder at {options.data} (--data, or CARBON_SCHED_BENCH_DATA)")
        return 0
    begun = time.monotonic()
    jobs, beliefs, slack = prepared(options)
    grid = load_grid(options.data / "carbon-intensity")
    begin = grid.hour_of(grid.start.replace(year=options.year))
    forecasts = own_forecasts(grid, begin, options)
    print(f"{len(jobs)} jobs, worth {worth(jobs):.0f} equal ones; forecasts took {time.monotonic() - begun:.0f} s\n")
    rows, long = {}, {}
    for name in options.zones:
        rows[name] = one(name, Zone(jobs, slack, beliefs, grid.zones[name][begin:], forecasts[name]))
    missed = verdict(rows)
    jobs, beliefs = philly(options)
    print(f"\nPhilly, slack as long as the job: {len(jobs)} jobs, worth {worth(jobs):.0f} equal ones")
    for name in options.zones:
        slack = np.ceil(jobs.hours).astype(np.int64)
        long[name] = proportional(name, Zone(jobs, slack, beliefs, grid.zones[name][begin:], forecasts[name]))
    factor = sum(ours for ours, _ in long.values()) / sum(alone for _, alone in long.values())
    print(f"all zones: pausing saves {factor:.2f} times what choosing a start does")
    if factor < FACTOR:
        missed.append(f"Philly {factor:.2f} times choosing a start < {FACTOR}")
    print(f"\n{time.monotonic() - begun:.0f} s in all")
    print("all goals met" if not missed else "missed: " + "; ".join(missed))
    return 1 if missed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("CARBON_SCHED_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--jobs", default="alibaba-pai-2020-year-100k.csv.gz")
    parser.add_argument("--year", type=int, default=2022)
    parser.add_argument("--zones", nargs="*", default=list(ZONES))
    parser.add_argument("--sample", type=int, default=20_000, help="this many jobs drawn at random (0: all)")
    parser.add_argument("--philly", type=int, default=2_000, help="this many jobs of the Philly trace")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def prepared(options: argparse.Namespace) -> tuple:
    """Jobs that can be judged, what was believed of them in seconds, and their slack."""
    jobs = load_jobs(options.data / "jobs" / options.jobs)
    slack = slack_hours(jobs)
    beliefs = learnt_beliefs(jobs, (slack > slack.min()).astype(int), POINTS)
    ends = np.maximum(jobs.submitted_h + slack + np.ceil(jobs.hours), jobs.submitted_h + TAIL_H)
    keep = np.flatnonzero((jobs.submitted_h >= WARM_UP_H) & (ends < 8759))
    if options.sample:
        keep = np.sort(np.random.default_rng(options.seed).choice(keep, min(options.sample, len(keep)), replace=False))
    return jobs.take(keep), beliefs[keep], slack[keep]


def philly(options: argparse.Namespace) -> tuple:
    """Jobs of up to `LONGEST_H`, each put at one of four places of the year, and what was believed of them."""
    jobs = load_jobs(options.data / "jobs" / PHILLY)
    beliefs = learnt_beliefs(jobs, np.zeros(len(jobs), dtype=np.int64), POINTS)
    usable = (jobs.hours > SHORTEST_H) & (jobs.hours <= LONGEST_H) & (jobs.submitted_h >= LEARN_H)
    usable &= np.isfinite(beliefs).all(axis=1)
    rng = np.random.default_rng(options.seed)
    picked = rng.choice(np.flatnonzero(usable), min(options.philly, int(usable.sum())), replace=False)
    moved = jobs.submitted_h[picked] + 168 * rng.choice(PLACES, len(picked))
    order = np.argsort(moved, kind="stable")
    chosen = jobs.take(picked[order])
    return Jobs(moved[order], chosen.hours, chosen.units), beliefs[picked[order]]


def proportional(name: str, zone: Zone) -> tuple[float, float]:
    """Percent saved by pausing, and by choosing a start alone, with our own forecast and learnt run times."""
    begun = time.monotonic()
    jobs, slack, actual, forecast = zone.jobs, zone.slack, zone.actual, zone.forecast
    learnt, known = zone.beliefs / HOUR_S, jobs.hours[:, None]
    waits = decide(
        Waits(jobs, slack, zone.beliefs, np.zeros_like(slack)), forecast, 0, Rule(), trusted(forecast, actual)
    )
    now = grams(jobs, actual, jobs.submitted_h)
    oracle = replay(jobs, slack, known, rows_ahead(actual, LEADS), actual, dynamic()).grams
    paused = {cost: replay(jobs, slack, learnt, forecast, actual, dynamic(cost), cost) for cost in (0.0, CHECKPOINT_H)}
    ended = {START: grams(jobs, actual, jobs.submitted_h + waits), OURS: paused[0.0].grams,
             COSTLY: paused[CHECKPOINT_H].grams, "suspend oracle": oracle}  # fmt: skip
    sampled = Bootstrap(np.floor(jobs.submitted_h / 24).astype(np.int64))
    saved = {policy: sampled.saving(now, some) for policy, some in ended.items()}
    told = ", ".join(f"{policy} {share}" for policy, share in saved.items())
    often = " and ".join(f"{one.pauses.mean():.2f}" for one in paused.values())
    print(f"{name}: saves % {told}; {often} pauses a job  [{time.monotonic() - begun:.0f} s]")
    sys.stdout.flush()
    return saved[OURS].percent, saved[START].percent


def one(name: str, zone: Zone) -> dict:
    """Replay one zone and print its block."""
    begun = time.monotonic()
    jobs, slack, actual, forecast = zone.jobs, zone.slack, zone.actual, zone.forecast
    learnt, known = zone.beliefs / HOUR_S, jobs.hours[:, None]
    perfect = rows_ahead(actual, LEADS)
    waits = decide(zone.waits(), forecast, 0, Rule(), trusted(forecast, actual))
    free = {
        OURS: replay(jobs, slack, learnt, forecast, actual, dynamic()),
        PERFECT: replay(jobs, slack, learnt, perfect, actual, dynamic()),
        TRUE: replay(jobs, slack, known, forecast, actual, dynamic()),
        CHEAPEST: replay(jobs, slack, learnt, forecast, actual, cheapest_for_the_mean),
        REST: replay(jobs, slack, learnt, forecast, actual, cheapest_for_the_rest),
        COSTLY: replay(jobs, slack, learnt, forecast, actual, dynamic(CHECKPOINT_H), CHECKPOINT_H),
    }
    ended = {policy: done.grams for policy, done in free.items()}
    ended[START] = grams(jobs, actual, jobs.submitted_h + waits)
    ended["ecovisor"] = ecovisor(jobs, slack, forecast, actual).grams
    ended["wait-awhile, true durations"] = wait_awhile(jobs, slack, forecast, actual).grams
    now = grams(jobs, actual, jobs.submitted_h)
    oracle = replay(jobs, slack, known, perfect, actual, dynamic()).grams
    sampled = Bootstrap(np.floor(jobs.submitted_h / 24).astype(np.int64))
    shares = {policy: sampled.share(now, some, oracle) for policy, some in ended.items()}
    print(f"{name}: the oracle saves {100 * (1 - oracle.sum() / now.sum()):.1f} %  [{time.monotonic() - begun:.0f} s]")
    for policy, share in shares.items():
        paused = f", {free[policy].pauses.mean():.2f} pauses a job" if policy in free else ""
        print(f"    {policy:28} {share!s:>20} % of the oracle{paused}")
    sys.stdout.flush()
    return {"shares": shares, "pauses": {policy: float(done.pauses.mean()) for policy, done in free.items()}}


def verdict(rows: dict) -> list[str]:
    """Means over the zones, and what missed its goal."""
    policies = next(iter(rows.values()))["shares"]
    mean = {policy: np.mean([row["shares"][policy].percent for row in rows.values()]) for policy in policies}
    print("\nmean of the zones: " + ", ".join(f"{policy} {value:.1f}" for policy, value in mean.items()))
    missed = [
        f"{zone} {row['shares'][OURS]} < {GOALS[zone]}"
        for zone, row in rows.items()
        if row["shares"][OURS].percent < GOALS.get(zone, 0)
    ]
    for zone, row in rows.items():
        if row["shares"][COSTLY].percent < row["shares"][START].percent:
            missed.append(f"{zone}: with costs for a resume, choosing a start alone is better")
        if row["pauses"][COSTLY] > row["pauses"][OURS]:
            missed.append(f"{zone}: pauses more when a resume costs")
    if set(rows) >= set(ZONES) and mean[OURS] < MEAN_GOAL:
        missed.append(f"mean {mean[OURS]:.1f} < {MEAN_GOAL}")
    if mean[OURS] - mean[CHEAPEST] < ABOVE_MEAN_RULE:
        missed.append(f"only {mean[OURS] - mean[CHEAPEST]:.1f} points above the cheapest slots for the mean")
    return missed


if __name__ == "__main__":
    sys.exit(main())
