"""The rules for one counter: what is booked, what is refused, and what is said about it (B5 row 13)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched_runtime.counters import Advance, Meterable, Reading, advance, plausible_uj
from tests.fakes.metering import SECOND_NS, cpu, gpu

START_NS = 1000 * SECOND_NS


def run(device: Meterable, *readings: Reading, period_ns: int = SECOND_NS) -> list[Advance]:
    """Feed readings one period apart."""
    track, results = None, []
    for number, reading in enumerate(readings):
        result = advance(device, track, reading, START_NS + number * period_ns)
        track = result.track
        results.append(result)
    return results


def test_the_first_reading_only_sets_the_start():
    (first,) = run(gpu(), Reading(5_000_000, 300_000))

    assert first.step is None
    assert first.track.total_uj == 5_000_000


def test_a_difference_is_booked_as_it_is():
    _, second = run(gpu(), Reading(1_000_000, 300_000), Reading(301_000_000, 300_000))

    assert second.step.energy_uj == 300_000_000
    assert second.step.source == "counter"
    assert second.step.flags == ()
    assert second.step.integral_uj == 300_000_000


def test_a_rapl_counter_that_goes_round_is_undone_in_the_same_two_reads():
    device = cpu(wrap_uj=262_143_328_850)

    _, second, third = run(device, Reading(262_143_000_000), Reading(199_671_150), Reading(399_671_150))

    assert second.step.energy_uj == 200_000_000
    assert second.step.flags == ()
    assert third.step.energy_uj == 200_000_000
    assert third.step.first_uj == second.step.last_uj, "the account goes on over the wrap"


def test_a_rapl_counter_that_may_have_gone_round_unseen_is_not_believed():
    device = cpu(wrap_uj=262_143_328_850, limit_mw=1_000_000)

    _, second = run(device, Reading(1_000_000), Reading(150_000_000_000), period_ns=300 * SECOND_NS)

    assert second.step is None
    assert second.note == "wrap-unknown-unknown"
    assert second.track.epoch == 1


def test_a_counter_that_went_backwards_opens_an_epoch_and_is_closed_by_power():
    _, second, third = run(
        gpu(), Reading(9_000_000_000, 300_000), Reading(1_000_000, 100_000), Reading(101_000_000, 100_000)
    )

    assert second.step.source == "integrated"
    assert second.step.energy_uj == 200_000_000, "the trapezoid of 300 W and 100 W over one second"
    assert second.step.flags == ("reset",)
    assert second.track.epoch == 1
    assert (third.step.epoch, third.step.source, third.step.energy_uj) == (1, "counter", 100_000_000)


def test_a_reset_without_power_readings_leaves_the_energy_unknown_and_says_so():
    _, second = run(gpu(), Reading(9_000_000_000), Reading(1_000_000))

    assert second.step is None
    assert second.note == "reset-unknown"


@pytest.mark.parametrize("jump", [10**18, 2_000_000_000])
def test_more_than_the_power_limit_allows_is_refused(jump):
    _, second, third = run(gpu(), Reading(0, 300_000), Reading(jump, 300_000), Reading(jump + 300_000_000, 300_000))

    assert second.step.energy_uj == 300_000_000
    assert second.step.source == "integrated"
    assert second.step.flags == ("jump",)
    assert third.step.energy_uj == 300_000_000
    assert third.step.source == "counter"


def test_the_bound_is_1_2_times_the_limit_with_room_for_the_counters_quantum():
    device = gpu(limit_mw=700_000)
    most = plausible_uj(device, SECOND_NS)

    _, allowed = run(device, Reading(0, 1), Reading(most, 1))
    _, refused = run(device, Reading(0, 1), Reading(most + 1, 1))

    assert most == 1_008_000_000, "1.2 x 700 W x 1.2 s"
    assert allowed.step.source == "counter"
    assert refused.step.flags == ("jump",)


def test_a_counter_that_stands_still_under_load_is_booked_from_power_after_5_seconds():
    still = [Reading(7_000_000, 300_000)] * 8
    results = run(gpu(), *still)

    booked = [result.step.energy_uj for result in results[1:]]
    assert booked == [0, 0, 0, 0, 1_500_000_000, 300_000_000, 300_000_000]
    assert [result.note for result in results[1:]] == [None, None, None, None, "stuck", None, None]
    assert results[5].step.flags == ("stuck",)
    assert results[5].step.source == "integrated"


def test_a_counter_that_moves_again_does_not_book_the_time_twice():
    results = run(
        gpu(), *[Reading(7_000_000, 300_000)] * 7, Reading(307_000_000, 300_000), Reading(607_000_000, 300_000)
    )

    assert results[7].step.flags == ("unstuck",)
    assert results[7].step.source == "integrated"
    assert results[8].step.source == "counter"
    assert sum(result.step.energy_uj for result in results[1:]) == 8 * 300_000_000


def test_a_counter_at_rest_below_5_watts_is_not_called_stuck():
    results = run(gpu(), *[Reading(7_000_000, 4_000)] * 9)

    assert all(result.step.flags == () and result.step.energy_uj == 0 for result in results[1:])


def test_without_a_counter_power_is_integrated():
    device = gpu(counts=False)

    _, second, third = run(device, Reading(None, 200_000), Reading(None, 400_000), Reading(None, 400_000))

    assert (second.step.energy_uj, second.step.source, second.step.flags) == (300_000_000, "integrated", ())
    assert third.step.first_uj == second.step.last_uj


def test_power_is_not_integrated_over_a_hole():
    _, second = run(gpu(counts=False), Reading(None, 200_000), Reading(None, 200_000), period_ns=6 * SECOND_NS)

    assert second.step is None
    assert second.note == "power-unknown"


def test_a_lost_gpu_books_nothing_and_its_counter_closes_the_hole_when_it_returns():
    results = run(
        gpu(),
        Reading(0, 300_000),
        Reading(error="GPU is lost"),
        Reading(error="GPU is lost"),
        Reading(900_000_000, 300_000),
    )

    assert [result.step for result in results[1:3]] == [None, None]
    assert results[3].step.energy_uj == 900_000_000
    assert results[3].step.end_ns - results[3].step.start_ns == 3 * SECOND_NS


def test_a_counter_that_did_not_answer_is_bridged_by_power_and_not_counted_again():
    results = run(
        gpu(), Reading(0, 300_000), Reading(None, 300_000), Reading(600_000_000, 300_000), Reading(900_000_000, 300_000)
    )

    assert results[1].step.flags == ("counter-missing",)
    assert results[2].step.flags == ("counter-returned",)
    assert sum(result.step.energy_uj for result in results[1:]) == 900_000_000


READINGS = st.lists(
    st.builds(
        Reading,
        counter_uj=st.one_of(st.none(), st.integers(0, 2**62)),
        power_mw=st.one_of(st.none(), st.integers(0, 1_500_000)),
        error=st.one_of(st.none(), st.just("lost")),
    ),
    min_size=2, max_size=30,
)  # fmt: skip


@given(READINGS, st.sampled_from([gpu(), cpu(), gpu(counts=False)]), st.integers(0, 90 * SECOND_NS))
@settings(deadline=None)
def test_no_reading_books_less_than_nothing_or_more_than_the_power_limit_allows(readings, device, period_ns):
    for result in run(device, *readings, period_ns=period_ns):
        if result.step is not None:
            length_ns = result.step.end_ns - result.step.start_ns
            assert result.step.energy_uj >= 0
            if result.step.source == "counter":
                assert result.step.energy_uj <= plausible_uj(device, length_ns)
            else:
                assert length_ns <= 90 * SECOND_NS


@given(READINGS, st.sampled_from([gpu(), cpu()]))
@settings(deadline=None)
def test_within_an_epoch_the_steps_add_up_to_the_account(readings, device):
    accounts: dict[tuple[int, str], list] = {}
    for result in run(device, *readings):
        if result.step is not None:
            accounts.setdefault((result.step.epoch, result.step.source), []).append(result.step)
    for steps in accounts.values():
        for one, following in itertools.pairwise(steps):
            assert following.first_uj == one.last_uj


def test_two_readings_within_a_millisecond_are_one():
    track = advance(gpu(), None, Reading(0, 1), START_NS).track

    result = advance(gpu(), track, Reading(500, 1), START_NS + 999_999)

    assert result.step is None
    assert result.track == replace(track)
