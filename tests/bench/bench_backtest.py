"""How long a backtest of a whole trace takes: Philly, 55,803 jobs over two months on three clusters.

    make bench-backtest      (or: python -m tests.bench.bench_backtest --data DIR)

The production decision code is replayed over the trace, ten baselines and five bounds beside it, forecasts included.
Goal: two minutes in all. Printed: what each part took, and the process's CPU time, which other work on the machine
does not stretch as it does the wall time.

Last run with nothing else on the machine, before backtests expected arrivals: 118 s and 284 MiB. The decisions took
96 s of them (1,500 hours, in each a plan of all that wait), forecasts 10, the ten rules 5, bounds and figures 7. Since
then, on a slower day: 313 s of CPU and 314 MiB, where that version took 298 (measured while the nearest and not the
latest of many past jobs were read, see `service.arrivals`).

What expecting arrivals does there: 13.9 % saved (best-fixed 14.1) where 15.2 were without; none late in both. Two of
the three clusters are full for weeks with runs of days, so that where a few large jobs end up decides much: of parts of
the trace some gain by it (hours 1100 to 1480: 15.8 against 15.5) and some lose (780 to 1510: 14.2 against 15.0).
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

from carbon_sched.domain.cluster import Cluster, Pue
from carbon_sched.policy.presets import preset
from carbon_sched.simulate import backtest
from carbon_sched.simulate.setup import Options, scenario
from carbon_sched.simulate.traces import load_grid, load_jobs

ZONES = ("US-CAL-CISO", "US-TEX-ERCO", "US-MIDA-PJM")
MOST_S = 120.0


def main() -> int:
    """Print the parts; 1 if the whole took longer than the goal."""
    options = parse()
    if not options.data.is_dir():
        print(f"skipped: no data folder at {options.data} (--data, or CARBON_SCHED_BENCH_DATA)")
        return 0
    begun = time.monotonic()
    jobs = load_jobs(options.data / "jobs" / options.jobs)
    grid = load_grid(options.data / "carbon-intensity")
    pue = Pue(1_200_000, "2026", "benchmark")
    clusters = [Cluster(zone.lower(), zone, pue) for zone in ZONES]
    asked = Options(utilisation=options.utilisation, forecast=options.forecast, slack=options.slack)
    of = scenario(jobs, grid, clusters, asked)
    prepared = time.monotonic() - begun
    done = backtest.run(of, [preset(options.policy)])
    whole = time.monotonic() - begun
    report(backtest.as_json(done, backtest.setup_of(of)), prepared, whole)
    return 1 if whole > MOST_S else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("CARBON_SCHED_BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--jobs", default="philly-2017-sep-oct.csv.gz")
    parser.add_argument("--policy", default="balanced")
    parser.add_argument("--forecast", default="own")
    parser.add_argument("--slack", default="6h<2h:24h")
    parser.add_argument("--utilisation", type=float, default=0.4)
    return parser.parse_args()


def report(document: dict, prepared: float, whole: float) -> None:
    setup = document["setup"]
    print(
        f"{setup['jobs']} jobs, {setup['days']} days, steps of {setup['step_min']} min, at {setup['utilisation']:.0%}"
    )
    print(f"{'':24} {'saves':>6} {'oracle':>7} {'wait h':>7} {'late':>6} {'wall s':>7}")
    for row in document["results"]:
        share = "" if row["oracle_pct"] is None else f"{row['oracle_pct']:.1f}"
        print(
            f"{row['policy'].partition('@')[0]:24} {row['saving_pct']:6.1f} {share:>7} {row['mean_wait_h']:7.2f}"
            f" {row['deadline_misses']:6} {row['wall_s']:7.1f}"
        )
    ours = sum(row["wall_s"] for row in document["results"])
    print(f"files and forecasts {prepared:.1f} s, policy and baselines {ours:.1f} s", end=", ")
    print(f"bounds and figures {whole - prepared - ours:.1f} s")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    met = "met" if whole <= MOST_S else "missed"
    print(f"{whole:.1f} s in all, {time.process_time():.1f} s of CPU, {peak_mib:.0f} MiB (goal {MOST_S:.0f} s: {met})")


if __name__ == "__main__":
    sys.exit(main())
