"""What services put into the ledger for statements: direct intensity, hindsight, hardware, lists of jobs, revisions."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.cluster import Pool
from carbon_sched.domain.intensity import Basis
from carbon_sched.domain.job import Bundle, JobSpec, Resources
from carbon_sched.ledger.selection import Selection
from carbon_sched.ledger.statement import statement
from carbon_sched.ports import RayJob
from carbon_sched.service.lanes import Lanes
from carbon_sched.service.reconcile import Reconcile
from carbon_sched.service.reserved import reserved
from carbon_sched.service.restate import AGAIN, Restate
from tests.fakes.world import InOrder, World, a_cluster

GRAM = 1_000_000


@pytest.fixture
def world(tmp_path):
    clusters = [a_cluster("home", "DE", 1.2, home=True), a_cluster("north", "SE-SE3", 1.1)]
    made = World(tmp_path, clusters, {"DE": [(0, 400.0), (1800, 20.0)], "SE-SE3": [(0, 50.0)]})
    yield made
    made.close()


def stated(world):
    return world.statements.ask(lambda book: statement(book, Selection()))


def ran(world, **request):
    job = world.submit(name="train", **request)
    world.settle()
    world.run_to_end(job, seconds=10, energy_uj=3_600_000_000)  # 1 Wh
    return job


def test_direct_intensity_is_booked_beside_that_of_the_life_cycle(world):
    def direct(zone, start, end, now):
        found = world.grid.actual(zone, start, end, now)
        return [replace(one, basis=Basis.DIRECT, intensity_mg_per_kwh=10_000) for one in found]

    world.book._direct = direct
    ran(world)
    got = stated(world)
    assert (got.total("co2e_ug"), got.total("direct_ug")) == (55_000, 11_000)  # 1 Wh x 1.1 x 50, and x 10
    assert got.upstream_ug == 44_000


def test_the_best_allowed_choice_in_hindsight_is_booked_like_any_other(world):
    job = world.submit(name="train", duration_s=60, max_delay_s=3600, clusters=["north", "home"])
    world.settle()
    world.clock.pass_s(1801)
    world.settle()
    world.run_to_end(job, seconds=10, energy_uj=3_600_000_000)
    world.clock.pass_s(7200)
    roles = {row.role: row for row in stated(world).compared}
    assert roles["run-now-home"].theirs_ug == 480_000  # 1 Wh x 1.2 x 400
    assert roles["best-in-hindsight"].theirs_ug == 24_000  # from half past on: 1 Wh x 1.2 x 20
    assert roles["best-in-hindsight"].saved_ug <= 0


def test_a_job_that_may_not_wait_has_no_hindsight(world):
    ran(world)
    assert {row.role for row in stated(world).compared} == {"run-now-home", "best-fixed"}


def test_reserved_hardware_is_in_the_fact_of_the_attempt(world):
    ran(world, resources={"entrypoint_num_cpus": 2})
    (attempt,) = world.statements.ask(lambda book: [a for j in book.jobs.values() for a in j.attempts.values()])
    (host,) = attempt.reserved["parts"]
    assert (attempt.reserved["gpus_milli"], host["hardware"]) == (0, "host without GPUs")
    assert 0 < host["share_ppm"] < 1_000_000
    assert [row.hardware for row in stated(world).embodied] == ["host without GPUs"]


def test_gpus_are_reserved_with_their_share_of_a_host():
    spec = JobSpec("true", "train", resources=Resources(bundles=(Bundle(cpus=4, gpus=2),), gpu_type="H100"))
    found = reserved(spec, a_cluster("north", "SE-SE3"), None)
    card, host = found["parts"]
    assert found["gpus_milli"] == 2000
    assert (card["hardware"], card["share_ppm"]) == ("GPU H100", 2_000_000)
    assert (host["hardware"], host["share_ppm"]) == ("host without GPUs", 250_000)
    assert 0 < card["low_g"] <= card["high_g"] < host["low_g"]


def test_hardware_of_which_nothing_is_known_has_no_part():
    spec = JobSpec("true", "train", resources=Resources(bundles=(Bundle(cpus=4),)))
    assert reserved(spec, a_cluster("north", "SE-SE3"), None)["parts"] == []


def test_nodes_that_come_for_a_job_are_booked_apart_from_what_it_used(tmp_path):
    node = {"CPU": 8.0}
    pool = Pool("burst", node, max_nodes=4, node_lifetime="on-demand", provisioning_s=120.0)
    world = World(tmp_path, [a_cluster("north", "SE-SE3", pools=(pool,), home=True)], {"SE-SE3": [(0, 50.0)]})
    world.clusters["north"].resources = dict(node)
    job = world.submit(resources={"entrypoint_num_cpus": 2})
    world.settle()
    world.clock.pass_s(90)
    world.run_to_end(job, energy_uj=3_600_000)
    receipt = world.statements.receipt(job.job_id)
    (said,) = [text for text in receipt["notes"] if "on-demand pool" in text]
    assert said.startswith("1 node of the on-demand pool burst had 90 s to come and start")
    (attempt,) = world.statements.ask(lambda book: [a for j in book.jobs.values() for a in j.attempts.values()])
    watts = attempt.reserved["nodes"]["idle_mw"] / 1000
    assert f"at most {90 * watts:.3g} J while idle" in said
    assert receipt["energy_kwh"] == pytest.approx(1e-6), "it is no part of this"
    world.close()


def test_a_clusters_own_list_tells_what_came_past_us_once(world):
    job = ran(world)
    north = world.clusters["north"]
    theirs = [RayJob("secret-project", "FAILED", lasted_us=5_000_000), RayJob("going-on", "RUNNING")]
    ours = RayJob(f"cs-{job.job_id}-a1", "SUCCEEDED")
    lost = RayJob("cs-job9999999-a1", "SUCCEEDED")
    north.jobs = lambda: [*theirs, ours, lost]
    loop = Reconcile(world.store, world.fleet, world.statements, world.clock, InOrder("reconcile"))
    loop.step()
    loop.step()
    (row,) = [row for row in stated(world).completeness.clusters if row.cluster == "north"]
    assert (row.listings, row.ours, row.past_us, row.past_us_us) == (1, 1, 1, 5_000_000)
    assert (row.unknown, row.coverage_ppm) == (1, 333_333)
    with world.store.transaction(write=False) as tx:
        assert not any(b"secret-project" in entry.payload for entry in tx.entries(after_seq=0, limit=1000))


def test_clusters_are_asked_for_their_lists_side_by_side(world):
    both = threading.Barrier(2, timeout=60)

    def jobs():
        both.wait()  # which breaks where one is asked after the other
        return [RayJob("theirs", "SUCCEEDED", lasted_us=1)]

    for cluster in world.clusters.values():
        cluster.jobs = jobs
    world.settle()
    Reconcile(world.store, world.fleet, world.statements, world.clock, Lanes("reconcile", patience_s=120)).step()
    listed = world.statements.ask(lambda book: [(one.cluster, len(one.others)) for one in book.listings])
    assert sorted(listed) == [("home", 1), ("north", 1)]


def test_a_revised_history_restates_and_the_same_again_does_not(world):
    ran(world)
    loop = Restate(world.store, world.statements, world.book, world.clock)
    loop.step()
    world.grid.steps["SE-SE3"] = [(0, 60.0)]
    loop.step()
    assert stated(world).restatements == ()  # looked at once a day
    world.clock.pass_s(AGAIN / timedelta(seconds=1))
    loop.step()
    (row,) = stated(world).restatements
    assert (row.why, row.co2e_before_ug, row.co2e_ug) == ("readings were revised", 55_000, 66_000)
    assert stated(world).total("co2e_ug") == 66_000
    size = world.statements.verify().size
    world.clock.pass_s(AGAIN / timedelta(seconds=1))
    loop.step()
    assert world.statements.verify().size == size
