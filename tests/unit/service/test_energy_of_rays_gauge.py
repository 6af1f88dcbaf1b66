"""Ray's own power gauge: integrated where nobody of ours reads, marked, never beside our own figures for one GPU."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import ClusterUnreachable
from carbon_sched.domain.units import PPM
from carbon_sched.ports import GpuPower
from carbon_sched_runtime import wire
from tests.fakes.cluster import NODE
from tests.fakes.world import World, a_cluster

UUID = "GPU-0001"
IMAGE = {"runtime_env": {"image_uri": "registry.example/train:1"}}


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("c", "DE")], {"DE": [(0, 100.0)]})
    yield world
    world.close()


def begin(world, **request):
    job = world.submit(**request)
    world.settle()
    attempt = world.attempts(job)[-1]
    world.clusters["c"].run(attempt.attempt_id)
    world.settle()
    return job, attempt


def looks(world, attempt, *watts, part=PPM, every_s=10):
    """The gauge shows one power after another, one look each."""
    for w in watts:
        power_mw = None if w is None else w * 1000
        world.clusters["c"].gpus = [GpuPower(NODE, UUID, power_mw, {attempt.attempt_id: part})]
        world.gauge.step()
        world.clock.pass_s(every_s)


def receipt_of(world, job, attempt):
    world.clusters["c"].end(attempt.attempt_id, "SUCCEEDED", 0)
    world.settle()
    world.gauge.step()
    for _ in range(3):
        world.clock.pass_s(61)
        world.settle()
    receipt = world.statements.receipt(job.job_id)
    assert receipt["final"]
    return receipt


def our_reader(world, attempt, start, end, owner):
    """A segment in which a reader of ours read the same GPU, for somebody."""
    segment = world.made_segment(start, end, {owner: 7_000_000})
    device = wire.Device(f"gpu:{UUID}", "gpu", "a GPU", "board")
    rows = tuple(replace(row, device=device.id) for row in segment.rows)
    spans = tuple(replace(span, device=device.id) for span in segment.spans)
    segment = replace(segment, devices={device.id: device}, rows=rows, spans=spans)
    world.clusters["c"].files[str(segment.name)] = wire.format_segment(segment)


def test_an_unwrapped_jobs_gpus_are_integrated_from_rays_gauge_by_the_trapezoid(world):
    job, attempt = begin(world, **IMAGE)
    looks(world, attempt, 100, 300, 300, 200, 200, 200)

    receipt = receipt_of(world, job, attempt)

    [device] = receipt["devices"]
    joules = (100 + 300) / 2 * 10 + 300 * 10 + (300 + 200) / 2 * 10 + 200 * 10 + 200 * 10
    assert receipt["energy_kwh"] == pytest.approx(joules / 3.6e6)
    assert (device["rule"], device["source"], device["reporter"]) == ("ray-gauge", "integrated", "ray")
    assert device["device"] == f"gpu:{UUID}"
    assert any("Ray's own power gauge" in note for note in receipt["notes"])
    assert any("without our wrapper" in line for line in receipt["missing"])


def test_who_holds_a_part_of_a_gpu_is_charged_that_part(world):
    job, attempt = begin(world, **IMAGE)
    looks(world, attempt, 400, 400, part=PPM // 4)

    assert receipt_of(world, job, attempt)["energy_kwh"] == pytest.approx(1000 / 3.6e6)


@pytest.mark.parametrize("owner", ["the attempt", wire.IDLE, wire.UNATTRIBUTED])
def test_nothing_is_booked_beside_a_reader_of_ours_whichever_came_first(world, owner):
    job, attempt = begin(world, **IMAGE)
    start = world.clock.now()
    looks(world, attempt, 100, 100, 100, 100, 100, 100, 100)  # sealed after 30 s, and after another 30 s
    ours = attempt.attempt_id if owner == "the attempt" else owner
    our_reader(world, attempt, start + timedelta(seconds=10), start + timedelta(seconds=20), ours)

    receipt = receipt_of(world, job, attempt)

    booked = 3000 + (7 if owner == "the attempt" else 0)
    assert receipt["energy_kwh"] == pytest.approx(booked / 3.6e6)
    assert any(note.startswith("3000 J that Ray's power gauge showed are evidence only") for note in receipt["notes"])


def test_a_wrapped_job_is_looked_at_only_once_its_wrapper_cannot_meter_everything(world):
    job, attempt = begin(world)
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    looks(world, attempt, 100, 100)
    world.record(attempt, {"event": "fault", "reason": "other nodes are not metered: no Ray"})
    world.clock.pass_s(31)
    world.collect.step()
    looks(world, attempt, 100, 100)
    world.record(attempt, {"event": "ended", "exit_code": 0}, {"event": "closed", "exit_code": 0, "segments": 0})

    assert receipt_of(world, job, attempt)["energy_kwh"] == pytest.approx(1000 / 3.6e6)


def test_a_ray_that_shows_no_power_leaves_a_gap_that_the_receipt_names(world):
    job, attempt = begin(world, **IMAGE)
    looks(world, attempt, None, None)

    receipt = receipt_of(world, job, attempt)

    assert receipt["energy_kwh"] == 0
    assert "the power of GPUs, which this cluster's Ray does not show over HTTP" in receipt["missing"]


def test_nothing_is_made_up_for_a_time_without_looks(world):
    job, attempt = begin(world, **IMAGE)
    looks(world, attempt, 100, 100)
    world.clusters["c"].failures["gpu_power"] = [ClusterUnreachable("connection refused")] * 4
    looks(world, attempt, 100, 100, 100, 100)
    looks(world, attempt, 100, 100)

    receipt = receipt_of(world, job, attempt)

    assert receipt["energy_kwh"] == pytest.approx(2000 / 3.6e6)
    assert "Ray's power gauge did not answer for a time" in receipt["missing"]
    assert "GPU power between looks at Ray's gauge over 30 s apart" in receipt["missing"]
