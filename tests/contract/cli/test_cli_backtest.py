"""`policy backtest` on files as users have them: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import gzip
import json
import re
from datetime import datetime, timedelta, timezone

import pytest

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
RESULT = {
    *("policy", "co2e_g", "saving_pct", "oracle_pct", "oracle_pct_low", "oracle_pct_high", "dynamic_pct"),
    *("mean_wait_h", "p95_wait_h", "deadline_misses", "worst_month_regret_pct", "wall_s"),
}
BOUNDS = {"start_time_oracle_g", "perfect_forecast_g", "true_duration_g", "suspend_oracle_g", "capacity_bound_g"}
POLICY = "apiVersion: carbon-sched/v1\nname: eager\nminimum_gain: 0\n"
CLUSTERS = """
apiVersion: carbon-sched/v1
clusters:
  - {name: north, zone: SE, pue: 1.1}
  - {name: south, zone: ES, pue: 1.3}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two zones for 40 days, six jobs, two clusters, a policy."""
    folder = tmp_path_factory.mktemp("backtest")
    (folder / "grids").mkdir()
    for zone, day, night in (("SE", 120, 40), ("ES", 90, 260)):
        with gzip.open(folder / "grids" / f"{zone}.csv.gz", "wt", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["datetime", "gCO2eq_per_kWh"])
            for hour in range(40 * 24):
                at = (START + timedelta(hours=hour)).isoformat()
                rows.writerow([at, day if 8 <= hour % 24 < 20 else night])
    with (folder / "jobs.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["job_id", "submit_time_s", "duration_s", "num_gpus", "gpu_type", "group", "num_cpus"])
        rows.writerows([f"j{i}", i * 7200, 5400, 2, "", "team", ""] for i in range(6))
    (folder / "clusters.yaml").write_text(CLUSTERS)
    (folder / "eager.yaml").write_text(POLICY)
    return folder


@pytest.fixture
def backtest(shell, files):
    def call(*more: str, **replaced: str):
        given = {"jobs": "jobs.csv", "intensity": "grids", "clusters": "clusters.yaml", **replaced}
        where = [text for name, path in given.items() for text in (f"--{name}", str(files / path))]
        return shell("policy", "backtest", *where, "--forecast", "perfect", *more)

    return call


def test_json_has_the_promised_shape(backtest, files):
    code, out, err = backtest("--policy", "run-now", "--policy", str(files / "eager.yaml"), "--slack", "24h", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert set(document) == {"setup", "results", "bounds"}
    assert all(set(row) == RESULT for row in document["results"])
    assert set(document["bounds"]) == BOUNDS
    names = [row["policy"].partition("@")[0] for row in document["results"]]
    assert names[:2] == ["run-now", "eager"]
    assert len(names) == 2 + 10
    rows = dict(zip(names, document["results"], strict=True))
    assert rows["eager"]["co2e_g"] < rows["run-now"]["co2e_g"] < rows["run-now-here"]["co2e_g"]
    assert rows["run-now"]["mean_wait_h"] == 0
    assert document["bounds"]["start_time_oracle_g"] <= rows["eager"]["co2e_g"]
    assert document["setup"]["jobs"] == 6


def test_the_same_seed_gives_the_same_figures(backtest):
    def figures():
        document = json.loads(backtest("--sample", "4", "--seed", "7", "--baseline", "greedy-now", "--json")[1])
        return [{k: v for k, v in row.items() if k != "wall_s"} for row in document["results"]], document["setup"]

    assert figures() == figures()


def test_a_report_is_one_file_with_charts_that_loads_nothing(backtest, tmp_path):
    page = tmp_path / "out.html"
    code, out, err = backtest("--report", str(page), "--baseline", "best-fixed")
    assert code == 0, err
    assert str(page) in err
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 6
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="', text)
    assert "balanced" in out
    assert "best-fixed" in out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--policy", "fast"), "'fast' is not a shipped preset"),
        (("--policy", "./none.yaml"), "none.yaml: cannot be read"),
        (("--baseline", "luck"), "'luck' is not a known baseline"),
        (("--slack", "long"), "--slack: 'long' is not a rule"),
        (("--start", "spring"), "--start: 'spring' is not a time"),
        (("--start", "2025-01-01"), "too early for the intensity data"),
        (("--report", "/nowhere/out.html"), "--report: '/nowhere/out.html' cannot be written"),
        (("--utilisation", "2"), "--utilisation"),
        (("--forecast", "noisy:many"), "--forecast: 'noisy:many'"),
    ],
)
def test_bad_options_are_named_with_their_value(backtest, more, said):
    code, out, err = backtest(*more)
    assert code == 120
    assert out == ""
    assert said in err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("jobs", "job_id,submit_time_s,duration_s\nj,0,soon\n", "x.csv:2' cannot be read"),
        ("jobs", "job_id,submit_time_s,duration_s\n", "has no rows"),
        ("clusters", CLUSTERS.replace("zone: SE", "zone: XX"), "'XX' is no zone with an intensity file"),
        ("clusters", "clusters: []", "apiVersion is missing"),
        ("intensity", None, "has no file"),
        ("jobs", None, "cannot be read"),
    ],
)
def test_bad_files_are_named_with_the_place(backtest, files, name, content, said):
    path = files / "x.csv"
    if content is not None:
        path.write_text(content)
    code, _, err = backtest(**{name: "x.csv" if content is not None else "missing"})
    path.unlink(missing_ok=True)
    assert code == 120
    assert said in err
