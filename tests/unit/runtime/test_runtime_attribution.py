"""The split of one interval conserves whatever the ownership; the numbers it gives are in test_attribution_page.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched_runtime.attribution import (
    GPU_EQUAL,
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


def test_two_users_without_utilisation_are_split_evenly_and_that_is_said():
    use = GpuUse({"cs-a-a1": WHOLE, "cs-b-a1": WHOLE}, {})

    shares = gpu_shares(100, 0, use, {})

    assert [(s.owner, s.rule, s.energy_uj) for s in shares] == [
        ("cs-a-a1", GPU_EQUAL, 50), ("cs-b-a1", GPU_EQUAL, 50),
    ]  # fmt: skip


def test_an_attempt_that_uses_its_gpu_does_not_hold_another_as_well():
    uses = {"gpu:a": GpuUse({"cs-a-a1": WHOLE}, {}), "gpu:b": GpuUse({}, {})}

    held = holders_of(uses, [Tenant("cs-a-a1", WHOLE, gpus=WHOLE)], uses)

    assert held["gpu:b"] == {}


def test_who_uses_without_holding_pays():
    use = GpuUse({"cs-squatter-a1": WHOLE}, {})

    shares = gpu_shares(100, 0, use, {("cs-a-a1", GPU_VISIBLE): Holding(WHOLE)})

    assert by_owner(shares) == {"cs-squatter-a1": 100}


def test_a_gpu_used_by_processes_of_nobody_is_unattributed():
    shares = gpu_shares(100, 0, GpuUse({"unattributed": WHOLE}, {}), {})

    assert by_owner(shares) == {"unattributed": 100}


@given(ENERGY, st.lists(st.tuples(st.integers(0, WHOLE), st.lists(NAMES, max_size=3, unique=True)), max_size=8))
@settings(deadline=None)
def test_slices_conserve_whatever_their_sizes(energy, slices):
    assert sum(share.energy_uj for share in mig_shares(energy, slices)) == energy
