"""Our intensity forecasts beside simple ones, on any folder of hourly series; and what the computing costs.

    python tests/bench/bench_forecast.py [--data DIR] [--year 2022] [--lag 1] [--json]     (make bench-forecast)

DIR holds `carbon-intensity/<ZONE>.csv.gz` or the files themselves: columns `datetime` (UTC, start of the hour) and
`gCO2eq_per_kWh`. Default: CARBON_SCHED_BENCH_DATA, else `../shared/data` beside the checkout.
Every hour of the test year is an issue time; everything is fitted only on what precedes it. Tested are zones that also
have an earlier year; the others are tested from July of their first year on and listed apart.

Captured: a job of 4 hours that must end within 24 starts where the forecast is lowest; the share of what a perfect
forecast would save. MAPE: leads 0..23. Coverage: of the 10-90 band, per lead, 0..47. CPU seconds of one process.

Tried and left out: what up to 15 neighbouring zones did in the last day, as a second ridge on the errors made, adds 0.4
points to the mean of eight zones (DE 0.5, PL and ERCOT 0.7, CA-ON and ES nothing), and asks for live readings of zones
in which nobody runs anything.

The last lines are SYNTHETIC: no provider's forecasts were archived beside these intensities, so one is made up
(synthetic_provider.py says how) that errs as much as ours, or less, to see what blending it with ours would be worth.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import csv
import functools
import gzip
import json
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import plain_ridge
import synthetic_provider

from carbon_sched.forecast import baselines, skill
from carbon_sched.forecast.batch import rolling_bands
from carbon_sched.forecast.model import NEEDED_HISTORY, fit_zones, forecast
from carbon_sched.forecast.series import EPOCH, HOUR, HourlySeries, filled, hour_of, on_one_clock

LEADS = 48
BASELINES = {
    "persist": baselines.persistence,
    "yesterday": baselines.same_hour_yesterday,
    "7-day": functools.partial(baselines.hourly_profile, days=7),
    "28-day": functools.partial(baselines.hourly_profile, days=28),
    "damped": baselines.damped_profile,
}
METHODS = [*BASELINES, "ridge", "ours"]
YOUNG_H = 181 * 24
PROVIDER_ERRORS = (1.0, 0.75, 0.5)
"""Of the synthetic provider, as a share of ours."""
GOALS = {"mean": 83.0, "sum": 85.0, "above_damped": 2.5, "mape": 10.2, "coverage": (78.0, 82.0)}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CARBON_SCHED_BENCH_DATA", beside)))
    parser.add_argument("--year", type=int, help="test year (default: the last whole one)")
    parser.add_argument("--lag", type=int, default=1, help="age in hours of the newest known hour; baselines keep 1")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    files = sorted((arguments.data / "carbon-intensity").glob("*.csv.gz")) or sorted(arguments.data.glob("*.csv.gz"))
    if not files:
        print(f"skipped: no hourly series in {arguments.data}; give --data or set CARBON_SCHED_BENCH_DATA")
        return
    report = measure({file.name.removesuffix(".csv.gz"): read(file) for file in files}, arguments.year, arguments.lag)
    print(json.dumps(report, indent=1) if arguments.json else text(report))


def read(file):
    with gzip.open(file, "rt", newline="") as lines:
        rows = [(row["datetime"], row["gCO2eq_per_kWh"]) for row in csv.DictReader(lines)]
    hours = np.array([hour_of(datetime.fromisoformat(when.replace("Z", "+00:00"))) for when, _ in rows])
    values = np.full(hours.max() - hours.min() + 1, np.nan)
    values[hours - hours.min()] = [float(value) if value else np.nan for _, value in rows]
    return HourlySeries(EPOCH + int(hours.min()) * HOUR, values)


def measure(series, year, lag):
    start, on_clock = on_one_clock(series)
    end = max(one.end for one in series.values())
    year = year or (end - timedelta(days=365)).year + ((end - timedelta(days=365)).timetuple().tm_yday > 1)
    first = hours_between(start, datetime(year, 1, 1, tzinfo=timezone.utc))
    last = min(hours_between(start, datetime(year + 1, 1, 1, tzinfo=timezone.utc)), hours_between(start, end)) - 24
    known = {zone: np.flatnonzero(np.isfinite(values)) for zone, values in on_clock.items()}
    ends_late = {zone for zone, hours in known.items() if len(hours) and hours[-1] >= last}
    old = {zone: on_clock[zone] for zone in sorted(ends_late) if first - known[zone][0] >= 364 * 24}
    young = {zone: on_clock[zone] for zone in sorted(ends_late - old.keys()) if last - known[zone][0] > YOUNG_H}
    report = {"year": year, "lag_h": lag, "issues": last - first, "goals": GOALS}
    if old:
        report["zones"], report["cpu_s"] = judge(old, start, first, last, lag)
        report["summary"] = summary(report["zones"])
    if young:
        begin = max(first, max(int(known[zone][0]) for zone in young) + YOUNG_H)
        report["young_zones"], _ = judge({**old, **young}, start, begin, last, lag, only=tuple(young))
        report["young_summary"] = summary(report["young_zones"])
    report["serving"] = serving(old or young, start, first)
    return report


def hours_between(a, b):
    return int((b - a) // HOUR)


def judge(zones, start, first, last, lag, only=None):
    """Every method on every zone, and the CPU seconds of ours."""
    begin = time.process_time()
    bands = rolling_bands(zones, start, first, last, leads=LEADS, lag=lag, only=only)
    cpu_s = time.process_time() - begin
    ridge = plain_ridge.forecasts(zones, first, last, 24)
    out = {}
    for seed, (zone, band) in enumerate(bands.items()):
        truth = zones[zone]
        made = {name: baseline(truth, method, first, last) for name, method in BASELINES.items()}
        made |= {"ridge": ridge[zone], "ours": band[..., 0]}
        captured = {name: skill.captured_saving(made[name], truth, first) for name in METHODS}
        covered = 100 * skill.coverage(band[..., 1], band[..., 3], truth, first)
        out[zone] = {
            "possible_pct": 100 * captured["ours"].possible,
            "captured_pct": {name: 100 * captured[name].share for name in METHODS},
            "saved_pct": {name: 100 * captured[name].saved for name in METHODS},
            "mape_pct": {name: skill.mape(made[name], truth, first) for name in METHODS}
            | {"median": skill.mape(band[..., 2], truth, first)},
            "coverage_pct": covered.tolist(),
            "synthetic": synthetic(band[..., 0], truth, first, seed),
            "band_width_pct": 100 * float(np.nanmean(band[..., 3] - band[..., 1]) / np.nanmean(truth[first:])),
        }
    return out, cpu_s


def synthetic(made, truth, first, seed):
    """Captured % per error of a synthetic provider: alone, and blended with ours."""
    ours = made[:, :24].astype(float)
    targets = skill.targets(truth, first, *ours.shape)
    out = {}
    for share in PROVIDER_ERRORS:
        theirs = synthetic_provider.forecasts(ours, targets, share, seed, first)
        both = synthetic_provider.blend(ours, theirs, targets)
        out[share] = [100 * skill.captured_saving(one, truth, first).share for one in (theirs, both)]
    return out


def baseline(truth, method, first, last):
    begin = int(np.flatnonzero(np.isfinite(truth))[0])
    return method(filled(truth[begin:]), np.arange(first, last) - begin, 24)


def summary(zones):
    possible = sum(zone["possible_pct"] for zone in zones.values())
    cells = np.array([zone["coverage_pct"] for zone in zones.values()])
    mean = {name: float(np.mean([zone["captured_pct"][name] for zone in zones.values()])) for name in METHODS}
    return {
        "captured_mean_pct": mean,
        "captured_sum_pct": {
            name: 100 * sum(zone["saved_pct"][name] for zone in zones.values()) / possible for name in METHODS
        },
        "mape_mean_pct": {
            name: float(np.mean([zone["mape_pct"][name] for zone in zones.values()])) for name in [*METHODS, "median"]
        },
        "above_damped": mean["ours"] - mean["damped"],
        "synthetic": {
            share: np.mean([zone["synthetic"][share] for zone in zones.values()], axis=0).tolist()
            for share in PROVIDER_ERRORS
        },
        "first_in_zones": sum(
            zone["captured_pct"]["ours"] >= max(zone["captured_pct"].values()) for zone in zones.values()
        ),
        "coverage_least_pct": float(cells.min()),
        "coverage_most_pct": float(cells.max()),
    }


def serving(zones, start, first):
    """CPU seconds to fit on a year, to refit a day later, and to forecast 100 zones for 7 days at 15 minutes."""
    now = start + first * HOUR
    histories = {zone: HourlySeries(start, values) for zone, values in list(zones.items())[:4]}
    models, states, _, fit_s = timed(fit_zones, histories, now)
    *_, refit_s = timed(fit_zones, histories, now + timedelta(hours=24), states)
    recent = {}
    for zone in models:
        at = max(0, first - int(NEEDED_HISTORY // HOUR))
        recent[zone] = HourlySeries(start + at * HOUR, histories[zone].values[at:first])
    begin = time.process_time()
    for i in range(100):
        zone = list(models)[i % len(models)]
        slots = len(forecast(models[zone], recent[zone], now, 168, timedelta(minutes=15)).mean)
    serve_s = time.process_time() - begin
    return {
        "fit_one_zone_s": fit_s / len(models),
        "refit_one_zone_a_day_later_s": refit_s / len(models),
        "forecast_100_zones_s": serve_s,
        "slots": slots,
        "model_bytes": len(models[next(iter(models))].to_bytes()),
    }


def timed(function, *arguments):
    begin = time.process_time()
    out = function(*arguments)
    return *out, time.process_time() - begin


def text(report):
    lines = [f"test year {report['year']}, {report['issues']} issue times, newest known hour {report['lag_h']} h old"]
    for name, title in (("zones", "zones with an earlier year"), ("young_zones", "zones younger than that")):
        if name in report:
            lines += ["", *table(title, report[name], report[name.replace("zones", "summary").lstrip("_")])]
    if "cpu_s" in report:
        lines += ["", f"all issue times of the first table, {LEADS} leads with bands: {report['cpu_s']:.1f} s CPU"]
    serving = report["serving"]
    lines.append(
        f"CPU: fit one zone {serving['fit_one_zone_s']:.2f} s,"
        f" refit a day later {serving['refit_one_zone_a_day_later_s']:.3f} s,"
        f" 100 zones x {serving['slots']} slots {serving['forecast_100_zones_s']:.3f} s;"
        f" a stored model {serving['model_bytes'] / 1024:.0f} KiB"
    )
    return "\n".join(lines)


def table(title, zones, total):
    head = f"{'captured %':<14} {'perfect':>7} " + " ".join(f"{name:>9}" for name in METHODS)
    lines = [title, head + "   MAPE: damped ridge  ours   80% band covers (leads)   width"]
    for name, zone in zones.items():
        covered = zone["coverage_pct"]
        lines.append(
            f"{name:<14} {zone['possible_pct']:>7.1f} "
            + " ".join(f"{zone['captured_pct'][m]:>9.1f}" for m in METHODS)
            + "         "
            + " ".join(f"{zone['mape_pct'][m]:>5.1f}" for m in ("damped", "ridge", "ours"))
            + f"   {np.mean(covered):>5.1f} ({min(covered):.1f}-{max(covered):.1f})    {zone['band_width_pct']:>8.1f}"
        )
    for label, key in (("mean of zones", "captured_mean_pct"), ("sum / sum", "captured_sum_pct")):
        lines.append(f"{label:<14} {'':>7} " + " ".join(f"{total[key][m]:>9.1f}" for m in METHODS))
    mapes = total["mape_mean_pct"]
    lines[-2] += "         " + " ".join(f"{mapes[m]:>5.1f}" for m in ("damped", "ridge", "ours"))
    lines.append(
        f"ours first in {total['first_in_zones']} of {len(zones)} zones, {total['above_damped']:+.1f} points to damped;"
        f" MAPE of the median {mapes['median']:.2f}; coverage of zone and lead"
        f" {total['coverage_least_pct']:.1f}-{total['coverage_most_pct']:.1f} %"
    )
    for share, (alone, both) in total["synthetic"].items():
        lines.append(
            f"SYNTHETIC provider that errs {share:.0%} as much as ours: captured alone {alone:.1f}, blended {both:.1f}"
        )
    return lines


if __name__ == "__main__":
    main()
