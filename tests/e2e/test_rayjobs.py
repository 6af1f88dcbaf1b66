"""RayJobs end to end: commands, a server process, and a Kubernetes cluster whose operator and pods are played here.

The API server is the fake, and in the slow tests a real one.
"""

from __future__ import annotations

import json
import threading
from datetime import datetime, timezone

import pytest
import yaml

from tests.fakes.kube_apiserver import KubeApiserver, running
from tests.fakes.manifests import rayjob
from tests.fakes.rayjobs import POOL, Site
from tests.fakes.real_server import eventually, place
from tests.fakes.world import a_cluster

__all__ = ["place"]

RUN_S = 2.0
POOLS = [{"name": "spot", "node_resources": dict(POOL.node_resources), "max_nodes": 4, "node_lifetime": "on-demand"}]


def now():
    return datetime.now(timezone.utc)


class Nodes(threading.Thread):
    """The operator, Ray and the wrapper: every job begins at once, and is done in two seconds."""

    def __init__(self, site):
        super().__init__(name="nodes")
        self.site, self.ending = site, threading.Event()
        self.begun = {}
        self.failure = None

    def run(self):
        while not self.ending.wait(0.1):
            self.site.operator.step()
            for attempt in list(self.site.heads.by_job):
                self.work(attempt)

    def work(self, attempt):
        status = self.site.heads.job(attempt).status
        if status == "PENDING":
            self.begun[attempt] = now()
            self.site.starts(attempt)
        elif status == "RUNNING" and (now() - self.begun[attempt]).total_seconds() > RUN_S:
            self.site.closes(attempt, start=self.begun[attempt], seq=len(self.begun))
            self.site.finishes(attempt)


@pytest.fixture
def api_server(request):
    if request.param == "fake":
        yield None
    else:
        yield from running(KubeApiserver())


@pytest.fixture
def site(api_server, tmp_path):
    made = Site(a_cluster("kube", "NO"), now, tmp_path, api_server)
    nodes = Nodes(made)
    nodes.start()
    yield made
    nodes.ending.set()
    nodes.join()
    made.close()


@pytest.mark.parametrize("api_server", ["fake", pytest.param("real", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.timeout(300)
def test_a_manifest_is_submitted_and_another_held_by_a_cluster_that_a_command_added(site, place, tmp_path):
    client, cli = place.begin(), place.server.cli
    (tmp_path / "pools.yaml").write_text(yaml.safe_dump(POOLS))
    ca_file = ["--ca-file", site.api.ca_file] if site.api.ca_file else []
    cli(
        "clusters", "add", "kube", "--kubernetes", "--address", site.api.address, "--token", site.api.token, *ca_file,
        "--zone", "NO", "--pue", "1.2", "--pools", str(tmp_path / "pools.yaml"), "--create-in", "ml", "--home",
        check=True,
    )  # fmt: skip
    assert "RayJobs can be listed" in cli("clusters", "check", "kube", check=True).stdout
    manifest = rayjob(name="submitted", team="vision")
    del manifest["metadata"]["labels"]
    (tmp_path / "rayjob.yaml").write_text(json.dumps(manifest))
    done = cli("submit", str(tmp_path / "rayjob.yaml"))
    assert done.returncode == 0, done.stderr
    site.api.create("rayjobs", rayjob(name="held"))
    jobs = eventually(lambda: client.jobs()["jobs"], lambda found: len(found) == 2)
    receipts = {job["name"]: place.finished(job["job_id"]) for job in jobs}
    assert {name: receipt["energy_kwh"] for name, receipt in receipts.items()} == {
        "submitted": pytest.approx(0.001), "held": pytest.approx(0.001),
    }  # fmt: skip
    assert all(receipt["co2e_g"] == pytest.approx(0.001 * 1.2 * 100) for receipt in receipts.values())
    made = {one["metadata"]["name"] for one in site.api.of("rayjobs")}
    assert made == {"held", f"submitted-cs-{receipts['submitted']['job_id']}-a1"}
    assert set(site.operator.submitted.values()) == {1}
