"""What is known of GPUs, and what is only estimated between two types of them."""

from __future__ import annotations

import pytest

from carbon_sched.planning import priors
from carbon_sched.planning.hardware import UNKNOWN_ERROR, UNKNOWN_RATED_W, gpu, rated_w, ratio, rows


def test_names_are_found_in_any_case_and_by_their_family():
    assert gpu("h100") == gpu("H100")
    assert gpu("A100-SXM4-40GB") == gpu("A100")
    assert gpu("A100-80G").memory_gb == 80
    assert gpu("TPU-V4") is None
    assert rated_w("TPU-V4") == rated_w(None) == UNKNOWN_RATED_W


def test_the_same_type_needs_no_ratio():
    assert ratio("H100", "h100") == ratio(None, None) == ratio("", None)
    assert (ratio("H100", "H100").duration, ratio("H100", "H100").error) == (1, 0)
    assert ratio("A100", "A100-40G").error == 0


def test_a_faster_type_is_quicker_and_the_way_back_is_the_inverse():
    there, back = ratio("A100", "H100"), ratio("H100", "A100")
    assert there.duration < 1 < back.duration
    assert there.duration * back.duration == pytest.approx(1)
    assert there.error == back.error > 0.1
    # between what arithmetic and what memory bandwidth would give
    assert 312 / 989 < there.duration < 1555 / 3350


def test_an_unknown_type_must_promise_much():
    assert ratio("H100", "TPU-V4").error == ratio(None, "H100").error == UNKNOWN_ERROR


@pytest.mark.parametrize("name", ["gpus.csv", "gpu_power_percentiles.csv"])
def test_every_row_names_its_source_and_licence(name):
    assert all(row["source"] and row["licence"] for row in rows(name))


def test_shares_are_of_the_measured_distribution():
    shares = [float(row["gpu_share_of_rated"]) for row in rows("gpu_power_percentiles.csv")]
    assert shares == sorted(shares)
    assert min(shares) < priors.IDLE_SHARE < priors.MEAN_SHARE < max(shares)
    assert pytest.approx(sum(shares) / len(shares), rel=0.02) == priors.MEAN_SHARE
