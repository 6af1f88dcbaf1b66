"""A hundred zones on one core: forecast for a week in quarter hours, and a day of their readings stored and read back.

    python tests/bench/bench_grid.py [--zones 100] [--repeats 5] [--url postgresql://...]     (make bench-grid)

Each part has to take less than a second of one core: CPU time of this process, which computes on one thread (of
PostgreSQL only the client's part), best of the repeats; wall time, which waits for disk and neighbours, beside it.
Intensities are synthetic; without --url, SQLite in a temporary folder (WAL, synchronous=FULL). Ends with 1 when a part
takes longer.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from carbon_sched.forecast.model import NEEDED_HISTORY, fit_zones, forecast
from carbon_sched.forecast.series import DAY, HOUR, HourlySeries
from carbon_sched.store.engine import open_store
from tests.fakes.clock import StoppedClock
from tests.fakes.grid import T0, reading
from tests.fakes.weather import intensity

BAR_S = 1.0
QUARTER = timedelta(minutes=15)
FITTED = 4
LEARNT_DAYS = 120


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zones", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--url", help="an empty PostgreSQL database")
    arguments = parser.parse_args()
    zones = [f"ZONE-{number}" for number in range(arguments.zones)]
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(arguments.url or f"sqlite:///{folder}/bench.sqlite", StoppedClock())
        parts = [*storing(store, zones, arguments.repeats), forecasting(zones, arguments.repeats)]
        store.close()
    print(f"{len(zones)} zones; each part has to take less than {BAR_S:g} s of one core")
    for name, wall, cpu in parts:
        print(f"{name:<44} {wall:7.3f} s wall {cpu:7.3f} s CPU   {'ok' if cpu < BAR_S else 'TOO SLOW'}")
    return 0 if all(cpu < BAR_S for *_, cpu in parts) else 1


def forecasting(zones, repeats):
    """A week in quarter hours for every zone, by fitted models, from the history a server keeps."""
    start, hours = T0 - LEARNT_DAYS * DAY * HOUR, LEARNT_DAYS * DAY
    histories = {f"{number}": HourlySeries(start, intensity(hours, seed=number)) for number in range(FITTED)}
    models, _, _ = fit_zones(histories, T0)
    recent = {zone: series.since(T0 - NEEDED_HISTORY) for zone, series in histories.items()}

    def run(_):
        for number in range(len(zones)):
            zone = f"{number % FITTED}"
            made = forecast(models[zone], recent[zone], T0, 168, QUARTER)
            assert (made.method, len(made.mean)) == ("ridge", 672)

    return "forecast for 7 days in 15-minute steps", *best(run, repeats)


def storing(store, zones, repeats):
    """A day of quarter hours of every zone in one transaction, and all of it back zone by zone."""
    days = [
        [reading(zone, at, at + QUARTER, 200 + number, now=at) for zone in zones for at in quarters(number)]
        for number in range(repeats)
    ]

    def write(number):
        with store.transaction() as tx:
            assert tx.add_readings(days[number]) == len(days[number])

    def read(number):
        begin, end = quarters(number)[0], quarters(number)[-1] + QUARTER
        with store.transaction(write=False) as tx:
            assert sum(len(tx.readings(zone, begin, end)) for zone in zones) == len(days[number])

    name = f"{len(days[0])} readings"
    return (f"store {name} (a day)", *best(write, repeats)), (f"read {name} back", *best(read, repeats))


def quarters(day):
    """The beginnings of the quarter hours of a day."""
    return [T0 + day * DAY * HOUR + number * QUARTER for number in range(DAY * 4)]


def best(run, repeats):
    """Least wall and least CPU seconds of `run(0)`, `run(1)`, ..."""
    walls, cpus = [], []
    for number in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        run(number)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


if __name__ == "__main__":
    sys.exit(main())
