"""Ray's own power gauge on a real Ray head whose agent sees two stubbed GPUs: read, and booked where no reader runs."""

from __future__ import annotations

import pytest

from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.cluster import SecretRef
from carbon_sched.domain.time import from_rfc3339
from tests.e2e.conftest import GPU_WATTS
from tests.fakes.nvml import uuid
from tests.fakes.ray_cluster import RealClock, RealRayHead
from tests.fakes.real_server import recorded_spans

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def unmetered(installation):
    """A head of its own, registered as `unmetered`: no meter can start there, for its meeting place cannot be made."""
    nowhere = {"CARBON_SCHED_MACHINE_DIR": "/proc/no-such-folder"}
    head = RealRayHead(gpus=len(GPU_WATTS), environment={**installation.nvml.environment, **nowhere})
    head.start()
    try:
        place = ("--address", head.address, "--token", f"file:{head.token_file}", "--zone", "DE", "--pue", "1.0")
        installation.run("clusters", "add", "unmetered", *place)
        yield head
        installation.run("clusters", "remove", "unmetered")
    finally:
        head.stop()


def test_a_job_that_nobody_of_ours_meters_is_booked_from_rays_gauge_and_says_so(installation, unmetered, tmp_path):
    endpoint = Endpoint("unmetered", unmetered.address, SecretRef(file=str(unmetered.token_file)))
    gpus = RayClient("unmetered", lambda: endpoint, RealClock()).gpu_power()
    assert {f"gpu:{gpu.uuid}": gpu.power_mw for gpu in gpus} == {uuid(n): 1000 * w for n, w in enumerate(GPU_WATTS)}

    path = tmp_path / "train.py"
    path.write_text("import time; time.sleep(100)\n", encoding="utf-8")
    job = installation.start("--cluster", "unmetered", "--entrypoint-num-gpus", "1", str(path))
    installation.run("wait", job)
    receipt = installation.finished(job)
    with installation.client() as client:
        spans = [span for span in recorded_spans(client) if span["rule"] == "ray-gauge"]

    [device] = receipt["devices"]
    assert (device["device"], device["source"], device["reporter"]) == (uuid(0), "integrated", "ray")
    assert {span["owner"] for span in spans} == {f"cs-{job}-a1"}
    looked_at_s = sum((from_rfc3339(span["end"]) - from_rfc3339(span["start"])).total_seconds() for span in spans)
    assert looked_at_s >= 10
    assert device["energy_j"] == pytest.approx(GPU_WATTS[0] * looked_at_s, rel=1e-3)
    assert any("Ray's own power gauge" in note for note in receipt["notes"])
    assert any("the wrapper says" in line for line in receipt["missing"])
