"""Files and options become a scenario, or an error that says what to change."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from carbon_sched.domain.errors import InvalidFile, InvalidInput
from carbon_sched.simulate.clusters_file import load_clusters
from carbon_sched.simulate.feed import forecasts, noise_percent
from carbon_sched.simulate.slack import parse_slack
from carbon_sched.simulate.traces import Jobs
from tests.fakes.backtests import START, a_cluster, a_grid, a_scenario, daily, some_jobs

CLUSTERS = """
apiVersion: carbon-sched/v1
clusters:
  - {name: one, zone: DE, pue: 1.2, home: true}
  - name: two
    zone: FR
    pools:
      - {name: big, node_resources: {GPU: 8, CPU: 96}, max_nodes: 4, gpu_type: A100}
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str):
        path = tmp_path / "clusters.yaml"
        path.write_text(text)
        return path

    return write


# clusters ----------------------------------------------------------------------------------------


def test_a_clusters_file_has_the_keys_of_the_api(written):
    one, two = load_clusters(written(CLUSTERS))
    assert (one.name, one.zone, one.pue.ppm, one.home, one.pools) == ("one", "DE", 1_200_000, True, ())
    assert (two.pools[0].max_nodes, two.pools[0].node_resources["GPU"], two.pools[0].gpu_type) == (4, 8, "A100")
    assert two.pue.source.startswith("Uptime")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("pue: 1.2", "pue: 0.9", r"4:\d+: clusters.0.pue is 0.9"),
        ("zone: FR", "zome: FR", r"clusters.1.zome is not a known key. Did you mean zone"),
        ("max_nodes: 4", "max_nodes: 0", r"8:\d+: clusters.1.pools.0.max_nodes is 0"),
        ("name: two", "name: one", r"5:\d+: clusters.1.name is used twice"),
        ("zone: FR", "zone: FR\n    home: true", "is a second home"),
        ("apiVersion: carbon-sched/v1", "", "apiVersion is missing"),
    ],
)
def test_a_wrong_clusters_file_names_line_field_and_remedy(written, old, new, said):
    with pytest.raises(InvalidFile, match=said):
        load_clusters(written(CLUSTERS.replace(old, new)))


# slack -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("none", [0, 0, 0]),
        ("24h", [24, 24, 24]),
        ("2d", [48, 48, 48]),
        ("25%", [0.25, 0.5, 10]),
        ("6h<2h:24h", [6, 24, 24]),
    ],
)
def test_slack_rules(rule, expected):
    assert parse_slack(rule).hours(np.array([1.0, 2.0, 40.0])).tolist() == expected


@pytest.mark.parametrize("rule", ["", "6", "-2h", "6h<2h", "6h:24h", "x%", "40d", "6h<2h:24h:1h"])
def test_a_slack_that_is_no_rule_is_refused_with_the_forms_there_are(rule):
    with pytest.raises(InvalidInput, match="--slack"):
        parse_slack(rule)


# scenario ----------------------------------------------------------------------------------------


def test_submissions_are_rounded_up_and_jobs_that_do_not_end_within_the_data_left_out():
    jobs = Jobs(np.array([0.1, 1.0, 2.0]), np.array([1.0, 1.0, 10_000.0]), np.ones(3))
    of = a_scenario(jobs, [a_cluster("a", "A")], a_grid(A=100))
    assert of.jobs.submitted_h.tolist() == [1.0, 1.0]


def test_the_trace_begins_four_weeks_into_the_data_unless_told_otherwise():
    grid, cluster = a_grid(A=100), a_cluster("a", "A")
    assert a_scenario(some_jobs(2), [cluster], grid).start == START + timedelta(days=28)
    asked = START + timedelta(days=10)
    assert a_scenario(some_jobs(2), [cluster], grid, start=asked).start == asked


def test_a_utilisation_sizes_the_clusters_in_proportion():
    clusters = [a_cluster("a", "A", gpus=10), a_cluster("b", "A", gpus=30)]
    of = a_scenario(some_jobs(101, hours=2.0, units=20.0), clusters, a_grid(A=100), utilisation=0.5)
    assert of.units.tolist() == [20.0, 61.0]  # 101 x 20 x 2 unit-hours in 100 h at half load


def test_jobs_come_from_the_declared_home_else_from_everywhere():
    grid = a_grid(A=100)
    declared = [a_cluster("a", "A"), a_cluster("b", "A", home=True)]
    assert a_scenario(some_jobs(20), declared, grid).home.tolist() == [1] * 20
    spread = a_scenario(some_jobs(200), [a_cluster("a", "A", gpus=10), a_cluster("b", "A", gpus=30)], grid)
    assert 0.65 < spread.home.mean() < 0.85


@pytest.mark.parametrize(
    ("options", "clusters", "said"),
    [
        ({}, [a_cluster("a", "X")], "'X' is no zone with an intensity file. There are: A"),
        ({"start": START}, [a_cluster("a", "A")], "too early"),
        ({"start": START + timedelta(days=400)}, [a_cluster("a", "A")], "after the intensity data"),
        ({}, [a_cluster("a", "A", gpus=30)], "has a job of 40 GPUs, the largest cluster has 30"),
        ({"slack": "soon"}, [a_cluster("a", "A")], "--slack"),
        ({"forecast": "weather"}, [a_cluster("a", "A")], "--forecast"),
    ],
)
def test_pieces_that_do_not_fit_are_named(options, clusters, said):
    jobs = Jobs(np.zeros(2), np.full(2, 0.01), np.full(2, 40.0))
    with pytest.raises(InvalidInput, match=said):
        a_scenario(jobs, clusters, a_grid(A=100), **options)


def test_a_hole_in_the_intensities_is_refused():
    def holed(hours):
        values = np.full(len(hours), 100.0)
        values[30 * 24] = np.nan
        return values

    with pytest.raises(InvalidInput, match="not known in every zone"):
        a_scenario(some_jobs(2), [a_cluster("a", "A")], a_grid(A=holed))


# forecasts ---------------------------------------------------------------------------------------


def test_a_noisy_forecast_errs_more_the_farther_it_looks():
    truth = {"A": a_grid(A=daily(300, 100)).zones["A"]}
    perfect = forecasts("perfect", truth, ["A"], START, 0, 0)["A"]
    noisy = forecasts("noisy:13", truth, ["A"], START, 0, 0)["A"]
    error = (noisy / perfect - 1)[:1000].std(axis=0)
    assert error[0] == 0
    assert error[1] < error[6] < error[48]
    assert error[48] == pytest.approx(0.13, rel=0.3)


def test_the_percentage_of_noise_is_checked():
    assert noise_percent("noisy:13") == 13
    for wrong in ("noisy", "noisy:x", "noisy:200", "own:3"):
        with pytest.raises(InvalidInput, match="own, perfect or noisy"):
            noise_percent(wrong)


def test_our_own_forecast_knows_nothing_of_the_hours_to_come():
    values = a_grid(A=daily(300, 100)).zones["A"] + np.random.default_rng(3).normal(0, 20, 50 * 24)
    changed = values.copy()
    changed[40 * 24 :] = 900.0
    one, other = (forecasts("own", {"A": series}, ["A"], START, 28 * 24, 0)["A"] for series in (values, changed))
    before = 12 * 24
    assert np.array_equal(one[:before], other[:before])
    assert not np.array_equal(one[before + 2], other[before + 2])
