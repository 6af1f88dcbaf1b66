"""The split of one interval: it conserves, and it gives the numbers that ENERGY-ATTRIBUTION.md works out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched_runtime.attribution import (
    GPU_ALLOCATION,
    GPU_EQUAL,
    GPU_PIDS,
    GPU_RAYLET,
    GPU_SHARED,
    GPU_VISIBLE,
    WHOLE,
    GpuUse,
    Holding,
    Tenant,
    cpu_shares,
    gpu_shares,
    holders_of,
    mig_shares,
    split,
)

NAMES = st.sampled_from(["cs-a-a1", "cs-b-a1", "cs-c-a2", "cs-d-a1", "idle", "unattributed"])
ENERGY = st.integers(0, 2**60)


def by_owner(shares):
    total: dict[str, int] = {}
    for share in shares:
        total[share.owner] = total.get(share.owner, 0) + share.energy_uj
    return {owner: energy for owner, energy in total.items() if energy}


@given(ENERGY, st.dictionaries(NAMES, st.integers(0, 10**12), min_size=1).filter(lambda w: any(w.values())))
@settings(deadline=None)
def test_a_split_conserves_and_is_off_by_less_than_one_microjoule(energy, weights):
    parts = split(energy, weights)

    total = sum(weights.values())
    assert sum(parts.values()) == energy
    assert all(abs(parts[key] * total - energy * weights[key]) < total for key in weights)


def test_ties_go_to_the_smaller_name():
    assert split(1, {"b": 1, "a": 1}) == {"a": 1, "b": 0}


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": 2, "b": -1}])
def test_energy_without_anyone_to_give_it_to_is_an_error(weights):
    with pytest.raises(ValueError, match="positive weight"):
        split(1, weights)


GPUS = st.sampled_from(["gpu:a", "gpu:b", "gpu:gone"])
TENANTS = st.lists(
    st.builds(
        Tenant, attempt=st.sampled_from(["cs-a-a1", "cs-b-a1", "cs-c-a2"]), presence=st.integers(0, WHOLE),
        cpus=st.integers(0, 8 * WHOLE), gpus=st.integers(0, 4 * WHOLE),
        visible=st.none() | st.lists(GPUS, min_size=1, unique=True).map(tuple),
    ),
    max_size=3, unique_by=lambda tenant: tenant.attempt,
)  # fmt: skip
TICKS = st.dictionaries(st.sampled_from(["cs-a-a1", "cs-b-a1", "cs-x-a1"]), st.integers(0, 400))
USERS = st.dictionaries(st.sampled_from(["cs-a-a1", "cs-b-a1", "unattributed"]), st.integers(0, WHOLE))


@given(ENERGY, ENERGY, st.integers(0, 64 * WHOLE), TENANTS, TICKS, st.integers(0, 1000))
@settings(deadline=None)
def test_a_cpu_interval_conserves_whatever_the_ownership(energy, baseline, cpus, tenants, used, busy):
    shares = cpu_shares(energy, baseline, cpus, tenants, used, busy)

    assert sum(share.energy_uj for share in shares) == energy
    assert all(share.energy_uj >= 0 for share in shares)


@given(ENERGY, ENERGY, TENANTS, USERS, USERS, TICKS)
@settings(deadline=None)
def test_a_gpu_interval_conserves_whatever_the_ownership(energy, baseline, tenants, on_a, on_b, utilisation):
    uses = {"gpu:a": GpuUse(on_a, utilisation), "gpu:b": GpuUse(on_b, {})}
    held = holders_of(uses, tenants, uses)

    for device, use in uses.items():
        shares = gpu_shares(energy, baseline, use, held[device])
        assert sum(share.energy_uj for share in shares) == energy
        assert all(share.energy_uj >= 0 for share in shares)


# The worked examples of the page, number for number.


def test_worked_example_two_jobs_on_one_cpu():
    tenants = [Tenant("cs-a-a1", WHOLE, cpus=2 * WHOLE), Tenant("cs-b-a1", WHOLE, cpus=1 * WHOLE)]

    shares = cpu_shares(60_000_000, 20_000_000, 8 * WHOLE, tenants, {"cs-a-a1": 200, "cs-b-a1": 100}, busy=400)

    assert by_owner(shares) == {
        "cs-a-a1": 25_000_000, "cs-b-a1": 12_500_000, "idle": 12_500_000, "unattributed": 10_000_000,
    }  # fmt: skip


def test_worked_example_an_attempt_that_came_half_way():
    tenants = [Tenant("cs-a-a1", WHOLE // 2, cpus=4 * WHOLE)]

    shares = cpu_shares(20_000_000, 20_000_000, 8 * WHOLE, tenants, {}, busy=0)

    assert by_owner(shares) == {"cs-a-a1": 5_000_000, "idle": 15_000_000}


def test_worked_example_one_user_of_a_gpu_pays_for_all_of_it():
    use = GpuUse({"cs-a-a1": WHOLE}, {})

    assert [(s.owner, s.rule, s.energy_uj) for s in gpu_shares(300_000_000, 70_000_000, use, {})] == [
        ("cs-a-a1", GPU_PIDS, 300_000_000)
    ]


def test_worked_example_two_users_of_one_gpu():
    use = GpuUse({"cs-a-a1": WHOLE, "cs-b-a1": WHOLE}, {"cs-a-a1": 60, "cs-b-a1": 20})
    holders = {("cs-a-a1", GPU_VISIBLE): Holding(500_000), ("cs-b-a1", GPU_VISIBLE): Holding(500_000)}

    shares = gpu_shares(310_000_000, 70_000_000, use, holders)

    assert [(s.owner, s.rule, s.energy_uj) for s in shares] == [
        ("cs-a-a1", GPU_SHARED, 215_000_000), ("cs-b-a1", GPU_SHARED, 95_000_000),
    ]  # fmt: skip


def test_two_users_without_utilisation_are_split_evenly_and_that_is_said():
    use = GpuUse({"cs-a-a1": WHOLE, "cs-b-a1": WHOLE}, {})

    shares = gpu_shares(100, 0, use, {})

    assert [(s.owner, s.rule, s.energy_uj) for s in shares] == [
        ("cs-a-a1", GPU_EQUAL, 50), ("cs-b-a1", GPU_EQUAL, 50),
    ]  # fmt: skip


def test_worked_example_a_gpu_held_but_not_used_is_paid_by_its_holder():
    uses = {"gpu:a": GpuUse({}, {}), "gpu:b": GpuUse({}, {})}
    tenants = [Tenant("cs-a-a1", WHOLE, gpus=WHOLE, visible=("gpu:b",))]

    held = holders_of(uses, tenants, uses)

    assert by_owner(gpu_shares(70, 70, uses["gpu:a"], held["gpu:a"])) == {"idle": 70}
    assert [(s.owner, s.rule) for s in gpu_shares(70, 70, uses["gpu:b"], held["gpu:b"]) if s.energy_uj] == [
        ("cs-a-a1", GPU_VISIBLE)
    ]


def test_worked_example_allocation_when_nothing_says_which_gpu():
    uses = {f"gpu:{n}": GpuUse({}, {}) for n in "abcd"}
    tenants = [Tenant("cs-a-a1", WHOLE, gpus=2 * WHOLE)]

    held = holders_of(uses, tenants, uses)
    shares = gpu_shares(70_000_000, 70_000_000, uses["gpu:a"], held["gpu:a"])

    assert [(s.owner, s.rule, s.energy_uj) for s in shares] == [
        ("cs-a-a1", GPU_ALLOCATION, 35_000_000), ("idle", GPU_ALLOCATION, 35_000_000),
    ]  # fmt: skip


def test_an_attempt_that_uses_its_gpu_does_not_hold_another_as_well():
    uses = {"gpu:a": GpuUse({"cs-a-a1": WHOLE}, {}), "gpu:b": GpuUse({}, {})}

    held = holders_of(uses, [Tenant("cs-a-a1", WHOLE, gpus=WHOLE)], uses)

    assert held["gpu:b"] == {}


def test_worked_example_the_time_around_its_use_is_paid_by_who_holds_the_gpu():
    """300 J in a second; A came at 0.2 s, was on the GPU from 0.5 s on, and holds it while it is there."""
    use = GpuUse({"cs-a-a1": 500_000}, {})
    tenants = [Tenant("cs-a-a1", 800_000, gpus=WHOLE)]

    held = holders_of(["gpu:a"], tenants, {"gpu:a": use})

    shares = gpu_shares(300_000_000, 70_000_000, use, held["gpu:a"])
    assert by_owner(shares) == {"cs-a-a1": 240_000_000, "idle": 60_000_000}
    assert {share.rule for share in shares} == {GPU_PIDS}


def test_worked_example_what_the_raylet_gave_is_held_and_nothing_else():
    """The raylet gave A half of one GPU; its workers use none. 70 J of rest: A 35 J there, nothing elsewhere."""
    uses = {"gpu:a": GpuUse({}, {}), "gpu:b": GpuUse({}, {})}
    tenants = [Tenant("cs-a-a1", WHOLE, gpus=500_000, held={"gpu:b": 500_000})]

    held = holders_of(uses, tenants, uses)

    assert held == {"gpu:a": {}, "gpu:b": {("cs-a-a1", GPU_RAYLET): Holding(500_000)}}
    shares = gpu_shares(70_000_000, 70_000_000, uses["gpu:b"], held["gpu:b"])
    assert [(s.owner, s.rule, s.energy_uj) for s in shares] == [
        ("cs-a-a1", GPU_RAYLET, 35_000_000), ("idle", GPU_RAYLET, 35_000_000),
    ]  # fmt: skip


def test_who_uses_without_holding_pays():
    use = GpuUse({"cs-squatter-a1": WHOLE}, {})

    shares = gpu_shares(100, 0, use, {("cs-a-a1", GPU_VISIBLE): Holding(WHOLE)})

    assert by_owner(shares) == {"cs-squatter-a1": 100}


def test_a_gpu_used_by_processes_of_nobody_is_unattributed():
    shares = gpu_shares(100, 0, GpuUse({"unattributed": WHOLE}, {}), {})

    assert by_owner(shares) == {"unattributed": 100}


def test_worked_example_slices_of_a_mig_gpu():
    slices = [(3 * WHOLE // 7, ["cs-a-a1"]), (2 * WHOLE // 7, ["cs-a-a1", "cs-b-a1"]), (1 * WHOLE // 7, [])]

    shares = mig_shares(280_000_000, slices)

    assert {share.rule for share in shares} == {"mig-slices"}
    millionths = {owner: round(energy / 1e6, 2) for owner, energy in by_owner(shares).items()}
    assert millionths == {"cs-a-a1": 160.0, "cs-b-a1": 40.0, "idle": 80.0}


@given(ENERGY, st.lists(st.tuples(st.integers(0, WHOLE), st.lists(NAMES, max_size=3, unique=True)), max_size=8))
@settings(deadline=None)
def test_slices_conserve_whatever_their_sizes(energy, slices):
    assert sum(share.energy_uj for share in mig_shares(energy, slices)) == energy
