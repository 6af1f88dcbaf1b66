"""Ray's own power gauge over HTTP, as Ray 2.60 shows it, and as older releases do not."""

from __future__ import annotations

import pytest

from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.errors import ClusterUnclear
from carbon_sched.ports import GpuPower, RaySubmission
from tests.fakes.ray_cluster import RealClock
from tests.fakes.ray_head import FakeRayHead

GROUP = "Cdcc1F63C22794F76B0361F72Caf01000000"


def a_gpu(index, power_mw, **more):
    return {"index": index, "name": "NVIDIA H100", "uuid": f"GPU-{index}", "powerMw": power_mw, **more}


def a_worker(job_id, name="GPU", actor_id="", **slots):
    used = {name: {"resourceSlots": [{"slot": slot[1:], "allocation": part} for slot, part in slots.items()]}}
    return {"pid": 1, "jobId": job_id, "actorId": actor_id, "usedResources": used | {"CPU": {"resourceSlots": []}}}


@pytest.fixture
def head():
    with FakeRayHead(gpus=2.0, execute=False) as head:
        yield head


def client_of(head):
    return RayClient("c", lambda: Endpoint("c", head.address, None), RealClock())


def show(head, gpus, *workers):
    head.nodes = [{"raylet": {"nodeId": head.node_id, "coreWorkersStats": list(workers)}, "gpus": gpus}]


def submit(head, name, job_id=None):
    client_of(head).submit(RaySubmission(name, "python job.py", {}, {}))
    head.jobs[name].job_id = job_id


def test_power_and_holders_are_joined_by_ray_job_and_by_the_entrypoints_supervisor(head):
    submit(head, "cs-a-a1", "03000000")
    submit(head, "cs-b-a1")
    head.actors = [{"actor_id": "ab01", "class_name": "JobSupervisor", "name": "_ray_internal_job_actor_cs-b-a1"}]
    workers = (
        a_worker("03000000", s0=0.5),
        a_worker("03000000", name=f"GPUGroup{GROUP}", s0=0.25),
        a_worker("01000000", actor_id="ab01", s1=1.0),
        a_worker("09000000", s0=0.25),  # a driver that nobody submitted
    )
    show(head, [a_gpu(0, 310_000), a_gpu(1, 120_000)], *workers)

    assert client_of(head).gpu_power() == [
        GpuPower(head.node_id, "GPU-0", 310_000, {"cs-a-a1": 750_000}),
        GpuPower(head.node_id, "GPU-1", 120_000, {"cs-b-a1": 1_000_000}),
    ]


def test_a_release_without_the_gauge_and_a_mig_slice_show_no_power(head):
    gpu = a_gpu(0, None)
    old = a_gpu(1, 1)
    del old["powerMw"]
    show(head, [gpu, old])

    assert [one.power_mw for one in client_of(head).gpu_power()] == [None, None]


def test_slots_of_a_raylet_that_may_not_use_every_gpu_name_no_device(head):
    submit(head, "cs-a-a1", "03000000")
    show(head, [a_gpu(0, 1), a_gpu(1, 1), a_gpu(2, 1)], a_worker("03000000", s0=1.0))

    assert [one.holders for one in client_of(head).gpu_power()] == [{}, {}, {}]


def test_a_cluster_without_gpus_has_no_gauge(head):
    assert client_of(head).gpu_power() == []


@pytest.mark.parametrize("gpus", [7, [{"index": 0}], [a_gpu(0, -5)], [a_gpu(0, "much")]])
def test_another_shape_is_no_answer(head, gpus):
    show(head, gpus)

    with pytest.raises(ClusterUnclear, match="/nodes"):
        client_of(head).gpu_power()
