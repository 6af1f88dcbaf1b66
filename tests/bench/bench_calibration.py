"""Is the simulator the field's? GAIA's stored results for two of its policies, reproduced to three digits.

    make bench-calibration      (or: python -m tests.bench.bench_calibration --data DIR)

South Australia from hour 7,000 of 2022 with the week of 1,000 PAI jobs, waits of 6 h below two hours of run time and
24 h above, perfect foresight of the grid, the mean run time of its class as the only knowledge of a job. In GAIA's
repository (umassos/GAIA, ASPLOS 2024): carbon relative to no waiting, lowest-window 0.684 and carbon-time 0.725.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from carbon_sched.simulate.baselines import RULES, ecovisor, rows_ahead, wait_awhile, waited
from carbon_sched.simulate.start_time import options, slack_hours
from carbon_sched.simulate.traces import Jobs, load_grid, load_jobs

ZONE, YEAR, HOUR, LEADS = "AU-SA", 2022, 7000, 97
PUBLISHED = {"lowest-window": 0.684, "carbon-time": 0.725}


def main() -> int:
    """Print both sides; 1 unless they agree to three digits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("CARBON_SCHED_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    data = parser.parse_args().data
    if not data.is_dir():
        print(f"skipped: no data folder at {data} (--data, or CARBON_SCHED_BENCH_DATA)")
        return 0
    jobs = load_jobs(data / "jobs" / "alibaba-pai-2020-week-1k.csv.gz")
    grid = load_grid(data / "carbon-intensity", [ZONE])
    begin = grid.hour_of(grid.start.replace(year=YEAR)) + HOUR
    shares, waits = replay(jobs, grid.zones[ZONE][begin:])
    print(f"{'policy':14} {'carbon / no-wait':>17} {'published':>10} {'mean wait h':>12}")
    for name, share in shares.items():
        print(f"{name:14} {share:17.4f} {PUBLISHED.get(name, ''):>10} {waits.get(name, float('nan')):12.2f}")
    wrong = [name for name, value in PUBLISHED.items() if round(shares[name], 3) != value]
    print("calibrated" if not wrong else f"not calibrated: {', '.join(wrong)}")
    return 1 if wrong else 0


def replay(jobs: Jobs, actual) -> tuple[dict, dict]:
    """Carbon relative to no waiting and mean wait in hours, per policy."""
    slack = slack_hours(jobs)
    costs, ahead = options(jobs, slack, actual), rows_ahead(actual, LEADS)
    long = jobs.hours >= 2
    usual = np.where(long, jobs.hours[long].mean(), jobs.hours[~long].mean())
    names = ("lowest-window", "carbon-time", "lowest-slot")
    chosen = {name: waited(RULES[name], jobs, slack, usual, ahead, actual) for name in names}
    carbon = {name: float(costs[np.arange(len(jobs)), wait].sum() / costs[:, 0].sum()) for name, wait in chosen.items()}
    carbon["ecovisor"] = float(ecovisor(jobs, slack, ahead, actual).grams.sum() / costs[:, 0].sum())
    carbon["wait-awhile"] = float(wait_awhile(jobs, slack, ahead, actual).grams.sum() / costs[:, 0].sum())
    return carbon, {name: float(wait.mean()) for name, wait in chosen.items()}


if __name__ == "__main__":
    sys.exit(main())
