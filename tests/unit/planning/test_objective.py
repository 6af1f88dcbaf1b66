"""What candidates are compared by: what a decision moves, what comes beside a run, money, waiting; what is out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from carbon_sched.domain.cluster import Pool
from carbon_sched.domain.decision import Verdict
from carbon_sched.domain.job import Bundle, DataInput, Resources
from carbon_sched.planning import priors
from carbon_sched.planning.costs import exists_for_jobs, idle_w
from carbon_sched.planning.hardware import embodied_g, ratio
from carbon_sched.planning.plan import plan
from carbon_sched.planning.snapshot import Residency, Weights
from tests.fakes.planning import cluster, job, node, snapshot

ON_DEMAND = Pool("p", {"GPU": 8.0, "CPU": 64.0}, 4, gpu_type="A100", node_lifetime="on-demand", provisioning_s=600.0)
GB = 10**9


def decided(sites, waiting, **fields):
    return plan(snapshot(sites, [waiting], **fields)).decisions[0]


def offered(decision, name):
    return next(candidate for candidate in decision.candidates if candidate.cluster == name)


def with_spec(waiting, **fields):
    return replace(waiting, spec=replace(waiting.spec, **fields))


def with_belief(waiting, **fields):
    return replace(waiting, belief=replace(waiting.belief, **fields))


# what moves --------------------------------------------------------------------------------------


def test_on_nodes_that_stay_on_only_the_active_part_is_moved_against_the_data():
    # the data costs 376 g to move; an hour of 1 kW would save 300 g, two hours 600 g, their active third 180 g
    data = (DataInput("s3://b/c", round(250 / priors.NETWORK_KWH_PER_GB / 100 * GB), "Z-dirty"),)
    sites = [cluster("dirty", [300.0]), cluster("clean", [0.0])]
    waiting = with_spec(job(), data=data)
    assert decided(sites, waiting, home="dirty").cluster == "dirty"
    assert decided(sites, with_spec(job(), data=()), home="dirty").cluster == "clean"
    all_moved = with_spec(job(hours=2.0), data=data)
    assert decided(sites, all_moved, home="dirty").cluster == "clean"
    active = with_belief(all_moved, moved_power_w=300.0)
    assert decided(sites, active, home="dirty").cluster == "dirty"


def test_nodes_that_come_for_the_job_count_whole_and_with_their_boot_and_idle_time():
    dirty = cluster("dirty", [110.0], nodes=[node(gpus=8, cpus=64, kind="A100")])
    clean = cluster("clean", [100.0], nodes=[node(cpus=8)], pools=(ON_DEMAND,))
    long, short = (with_belief(job(hours=h, gpus=8.0, cpus=8.0, gpu_type="A100"), gpu_type="A100") for h in (48.0, 0.5))
    assert decided([dirty, clean], long).cluster == "clean"
    decision = decided([dirty, clean], short)
    assert decision.cluster == "dirty"
    seconds = ON_DEMAND.provisioning_s + ON_DEMAND.idle_timeout_s
    kwh = idle_w(ON_DEMAND) * seconds / 3.6e6
    assert offered(decision, "clean").overhead_g == pytest.approx(kwh * 100)
    assert offered(decision, "dirty").overhead_g == 0
    assert offered(decision, "clean").energy_kwh == pytest.approx(0.5 + kwh)
    assert offered(decision, "clean").co2e_g == pytest.approx((0.5 + kwh) * 100)
    idle = idle_w(ON_DEMAND)
    assert idle == pytest.approx(8 * 400 * priors.IDLE_SHARE + 64 * priors.CPU_W)


def test_two_nodes_come_for_a_job_of_two_nodes_and_start_up_counts():
    site = cluster("a", [100.0], nodes=[node(cpus=8)], pools=(ON_DEMAND,))
    two = job(bundles=(Bundle(gpus=8), Bundle(gpus=8)), gpu_type="A100")
    one = job(gpus=8.0, gpu_type="A100")
    both, single = (offered(decided([site], waiting), "a").overhead_g for waiting in (two, one))
    assert both == pytest.approx(2 * single)
    slow = with_belief(one, start_up_s=900.0)
    assert offered(decided([site], slow), "a").overhead_g == pytest.approx(2 * single)


@pytest.mark.parametrize(
    ("pools", "kind", "exists"),
    [
        ((ON_DEMAND,), "gpu:a100", True),
        ((ON_DEMAND,), "gpu:h100", False),
        ((ON_DEMAND,), "cpu", False),
        ((), "gpu:a100", False),
        ((ON_DEMAND, replace(ON_DEMAND, node_lifetime="always-on")), "gpu:a100", False),
        ((replace(ON_DEMAND, node_resources={"CPU": 4.0}, gpu_type=None),), "cpu", True),
    ],
)
def test_nodes_exist_for_jobs_where_every_pool_of_their_kind_is_on_demand(pools, kind, exists):
    assert (exists_for_jobs(cluster("a", pools=pools).cluster, kind) is not None) is exists


def test_nodes_that_come_where_the_grid_is_not_known_never_win():
    unknown = cluster("a", [], nodes=[node(cpus=8)], pools=(ON_DEMAND,))
    known = cluster("b", [900.0], nodes=[node(gpus=8, cpus=64, kind="A100")])
    decision = decided([unknown, known], job(gpus=8.0, gpu_type="A100"))
    assert decision.cluster == "b"
    assert offered(decision, "a").co2e_g is None


# data --------------------------------------------------------------------------------------------


def test_nothing_moves_where_a_copy_is_and_else_the_copy_that_causes_least():
    sites = [cluster("a", [100.0]), cluster("b", [300.0]), cluster("c", [200.0])]
    copies = (DataInput("s3://b/c", 10 * GB, "Z-a"), DataInput("s3://b/c", 10 * GB, "Z-b"))
    decision = decided(sites, with_spec(job(), data=copies))
    kwh = 10 * priors.NETWORK_KWH_PER_GB
    moved = {name: offered(decision, name).transfer_g for name in "abc"}
    assert moved == {"a": 0, "b": 0, "c": pytest.approx(kwh * (200 + 100) / 2)}


def test_different_inputs_add_up_and_an_unknown_origin_counts_as_the_other_end():
    sites = [cluster("a", [100.0]), cluster("b", [300.0])]
    inputs = (DataInput("s3://b/c", 10 * GB, "Z-a"), DataInput("s3://d/e", 5 * GB, "XX"))
    decision = decided(sites, with_spec(job(), data=inputs))
    assert offered(decision, "a").transfer_g == pytest.approx(5 * priors.NETWORK_KWH_PER_GB * 100)
    expected = priors.NETWORK_KWH_PER_GB * (10 * (300 + 100) / 2 + 5 * 300)
    assert offered(decision, "b").transfer_g == pytest.approx(expected)


def test_data_moves_at_the_intensity_of_its_own_hour():
    sites = [cluster("a", [400.0, 100.0]), cluster("b", [900.0])]
    inputs = (DataInput("s3://b/c", 10 * GB, "Z-b"),)
    decision = decided(sites, with_spec(job(wait_h=2.0), data=inputs))
    assert (decision.verdict, decision.cluster) == (Verdict.DELAY, "a")
    assert offered(decision, "a").transfer_g == pytest.approx(10 * priors.NETWORK_KWH_PER_GB * (100 + 900) / 2)


def test_jobs_of_different_size_with_the_same_data_are_not_taken_for_alike():
    data = (DataInput("s3://b/c", 1000 * GB, "Z-a"),)
    sites = [cluster("a", [200.0], nodes=[node(cpus=64)]), cluster("b", [100.0], nodes=[node(cpus=64)])]
    small, large = (
        with_spec(job(f"j{cpus}", cpus=cpus, watts=w), data=data) for cpus, w in ((1.0, 1000.0), (32.0, 320_000.0))
    )
    plans = plan(snapshot(sites, [small, large], home="a")).decisions
    assert [decision.cluster for decision in plans] == ["a", "b"]


# other GPUs --------------------------------------------------------------------------------------

GPU = {"a": "A100", "h": "H100"}


def gpu_sites(a: float, h: float):
    return [
        cluster(name, [grams], nodes=[node(gpus=8, cpus=64, kind=GPU[name])]) for name, grams in (("a", a), ("h", h))
    ]


def test_a_move_to_another_gpu_type_must_gain_more_than_the_ratios_error():
    known = ratio("A100", "H100")
    same = known.duration * known.power
    waiting = with_belief(job(gpus=1.0), gpu_type="A100")
    # at equal grams an H100 is expected to need less energy, by more than the error
    assert same * (1 + known.error) < 1
    assert decided(gpu_sites(100, 100), waiting, home="a").cluster == "h"
    within = 100 / same / (1 + known.error / 2)
    decision = decided(gpu_sites(100, within), waiting, home="a")
    assert decision.cluster == "a"
    assert offered(decision, "h").co2e_g < offered(decision, "a").co2e_g
    beyond = 100 / same / (1 + known.error * 1.1)
    assert decided(gpu_sites(100, beyond), waiting, home="a").cluster == "h"


def test_what_is_expected_on_another_type_is_converted_and_marked_estimated():
    known = ratio("A100", "H100")
    decision = decided(gpu_sites(900, 100), with_belief(job(gpus=1.0, hours=2.0), gpu_type="A100"), home="a")
    assert decision.cluster == "h"
    assert "converted to H100 by datasheet ratios, estimated" in decision.estimate_source
    assert decision.expected_duration_s == pytest.approx(7200 * known.duration)
    assert decision.expected_energy_kwh == pytest.approx(2.0 * known.duration * known.power)
    assert decision.expected_power_w == pytest.approx(1000 * known.power)
    assert decision.expected_co2e_g == pytest.approx(2.0 * known.duration * known.power * 100, rel=0.01)


def test_without_a_type_the_estimate_is_meant_for_home():
    decision = decided(gpu_sites(100, 900), job(gpus=1.0), home="a")
    assert decision.cluster == "a"
    assert "converted" not in decision.estimate_source


def test_embodied_carbon_is_reported_beside_and_never_ranked():
    decision = decided(gpu_sites(100, 900), with_belief(job(gpus=2.0), gpu_type="A100"), home="a")
    here = offered(decision, "a")
    assert here.embodied_g == embodied_g("A100", 2.0, 3600.0)
    low, high = here.embodied_g
    assert 0 < low < high
    assert here.co2e_g == pytest.approx(100)
    assert offered(decided([cluster("a")], job()), "a").embodied_g is None


# money and waiting -------------------------------------------------------------------------------


def priced(name: str, grams: float, price: float | None):
    return cluster(name, [grams], nodes=[node(gpus=8, cpus=64)], price_per_gpu_hour=price)


def test_money_counts_with_its_weight_and_an_unknown_price_as_the_dearest():
    sites = [priced("clean", 100.0, 4.0), priced("cheap", 150.0, 1.0), priced("unknown", 90.0, None)]
    waiting = job(gpus=1.0)
    assert decided(sites, waiting).cluster == "unknown"
    weighed = replace(waiting, weights=Weights(cost=20.0))
    assert decided(sites, weighed).cluster == "cheap"
    assert decided(sites[:1] + sites[2:], replace(waiting, weights=Weights(cost=1.0))).cluster == "unknown"


def test_waiting_counts_with_its_weight():
    site = [cluster("a", [200.0, 200.0, 150.0])]
    waiting = job(wait_h=3.0)
    assert decided(site, waiting).verdict is Verdict.DELAY
    assert decided(site, replace(waiting, weights=Weights(waiting=20.0))).verdict is Verdict.DELAY
    assert decided(site, replace(waiting, weights=Weights(waiting=30.0))).verdict is Verdict.PLACE


# what is out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"allowed": frozenset({"b"})}, "not allowed by the policy"),
        ({"denied": frozenset({"a"})}, "denied by the policy"),
        ({"max_price_per_gpu_hour": 2.0}, "costs 3 per GPU hour, above the policy's cap of 2"),
        (
            {"residency": (Residency(("EU", "CH"), "a rule"),)},
            "data must stay in EU, CH (a rule); this cluster is tagged",
        ),
    ],
)
def test_what_a_policy_rules_out_says_which_rule(fields, said):
    sites = [
        cluster("a", [10.0], nodes=[node(gpus=8, cpus=64)], price_per_gpu_hour=3.0),
        cluster("b", [500.0], nodes=[node(gpus=8, cpus=64)], price_per_gpu_hour=2.0, residency=("EU",)),
    ]
    decision = decided(sites, job(gpus=1.0, **fields))
    assert decision.cluster == "b"
    assert said in offered(decision, "a").reason


def test_a_cluster_without_a_price_cannot_keep_a_cap():
    sites = [cluster("a", [10.0], nodes=[node(gpus=8, cpus=64)])]
    decision = decided(sites, job(gpus=1.0, max_price_per_gpu_hour=2.0))
    assert decision.verdict is Verdict.REFUSE
    assert "its price is not known" in decision.reason


def test_gpus_need_the_memory_asked_for():
    sites = [
        cluster("small", [10.0], nodes=[node(gpus=8, cpus=64, kind="A100-40G")]),
        cluster("large", [500.0], nodes=[node(gpus=8, cpus=64, kind="H100")]),
        cluster("unknown", [10.0], nodes=[node(gpus=8, cpus=64, kind="TPU")]),
    ]
    asked = Resources(bundles=(Bundle(gpus=1),), gpu_memory_gb=80)
    decision = decided(sites, with_spec(job(), resources=asked))
    assert decision.cluster == "large"
    assert "no GPU with 80 GB of memory: it has A100-40G (40 GB)" in offered(decision, "small").reason
    assert "TPU (memory unknown)" in offered(decision, "unknown").reason
