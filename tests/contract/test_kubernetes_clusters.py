"""RayClusters found on a Kubernetes cluster, RayJobs made on the one of several that is chosen, what a check tells."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.clusters.kubernetes.check import check_kubernetes
from carbon_sched.domain.job import JobState
from carbon_sched.service.kubernetes.discovered import Discovered
from carbon_sched.service.spec import secret_ref
from tests.fakes.manifests import rayjob
from tests.fakes.rayjobs import Kube

GRID = {"DE": [(0, 400.0)], "FR": [(0, 50.0)], "NO": [(0, 20.0)]}
TWO = {"kube": "DE", "north": "NO"}


@pytest.fixture
def kube(request, tmp_path, server):
    with Kube(tmp_path, GRID, server=server, **getattr(request, "param", {})) as made:
        yield made


@pytest.fixture
def look(kube):
    """Looks for RayClusters once."""
    return Discovered(kube.world.fleet, kube.adapters, lambda zone: zone).step


def found(kube):
    return {cluster.name: cluster for cluster in kube.world.fleet.all() if cluster.kubernetes is None}


def raycluster(kube, name, *, ready=True, **annotations):
    """A RayCluster that stands by itself, with its head and its service."""
    spec = rayjob()["spec"]["rayClusterSpec"]
    metadata = {"name": name, "namespace": "ml", "labels": {"carbon-sched/managed": "true"}}
    metadata["annotations"] = {f"carbon-sched/{key}": value for key, value in annotations.items()}
    made = kube.api.create("rayclusters", {"metadata": metadata, "spec": spec})
    status = {"head": {"serviceName": f"{name}-head-svc"}, **({"state": "ready"} if ready else {})}
    kube.api.replace(("rayclusters", "ml", name), {**made, "status": status}, status=True)
    kube.operator.create_head("ml", f"{name}-head-svc")
    return kube.heads.begin(f"{name}-head-svc")


def submit(kube, name="train", **more):
    manifest = rayjob(name=name, **more)
    return kube.world.submit(entrypoint=manifest["spec"]["entrypoint"], name=name, rayjob=manifest)


def names(site):
    return [one["metadata"]["name"] for one in site.api.of("rayjobs")]


# RayClusters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kube", [{"discover": True}], indirect=True)
def test_rayclusters_become_clusters_with_the_zone_and_pue_of_their_annotations_or_of_kubernetes(kube, look):
    raycluster(kube, "annotated", zone="FR", pue="1.25")
    raycluster(kube, "plain")
    raycluster(kube, "coming", ready=False)
    look()
    assert {name: (one.zone, one.pue.ppm) for name, one in found(kube).items()} == {
        "kube-ml-annotated": ("FR", 1_250_000),
        "kube-ml-plain": ("DE", kube.cluster.pue.ppm),
    }
    assert found(kube)["kube-ml-annotated"].pue.source == "annotation of the RayCluster"


@pytest.mark.parametrize("kube", [{"discover": True}], indirect=True)
def test_a_job_runs_on_a_found_raycluster_through_the_api_servers_proxy(kube, look):
    head = raycluster(kube, "annotated", zone="FR")
    look()
    job = kube.world.submit(bundle_sha256=kube.world.a_bundle())
    kube.world.settle()
    (attempt,) = kube.world.attempts(job)
    assert attempt.cluster == "kube-ml-annotated"
    asked = head.jobs[attempt.attempt_id].request["runtime_env"]["working_dir"]
    assert asked.rpartition("/")[2] in head.packages


@pytest.mark.parametrize("kube", [{"discover": True}], indirect=True)
def test_the_raycluster_of_a_rayjob_is_no_cluster_of_its_own(kube, look):
    kube.api.create("rayjobs", rayjob())
    kube.submitted("train")
    (owned,) = kube.api.of("rayclusters")
    assert owned["metadata"]["labels"]["carbon-sched/managed"] == "true"
    status = {"head": {"serviceName": "x"}, "state": "ready"}
    kube.api.replace(("rayclusters", "ml", owned["metadata"]["name"]), {**owned, "status": status}, status=True)
    look()
    assert found(kube) == {}


@pytest.mark.parametrize("kube", [{"discover": True}], indirect=True)
def test_an_annotation_that_cannot_be_meant_is_named_and_the_others_are_registered(kube, look, caplog):
    raycluster(kube, "wrong", pue="none")
    raycluster(kube, "right")
    look()
    assert set(found(kube)) == {"kube-ml-right"}
    assert "annotation carbon-sched/pue: 'none' is not a PUE" in caplog.text


@pytest.mark.parametrize("kube", [{"discover": True}], indirect=True)
def test_a_raycluster_that_changes_is_registered_anew_and_one_that_is_gone_is_forgotten_when_its_jobs_are(kube, look):
    raycluster(kube, "a", zone="FR")
    look()
    kube.world.fleet.put(replace(found(kube)["kube-ml-a"], cordoned=True))
    (there,) = kube.api.of("rayclusters")
    there["metadata"]["annotations"] = {"carbon-sched/zone": "NO"}
    kube.api.replace(("rayclusters", "ml", "a"), there, status=False)
    look()
    assert (found(kube)["kube-ml-a"].zone, found(kube)["kube-ml-a"].cordoned) == ("NO", True)
    kube.world.fleet.put(replace(found(kube)["kube-ml-a"], cordoned=False))
    job = kube.world.submit(entrypoint="python job.py")
    kube.world.settle()
    kube.api.delete(("rayclusters", "ml", "a"), None)
    look()
    assert set(found(kube)) == {"kube-ml-a"}, "a job is there"
    kube.world.accept.stop(job.job_id)
    kube.heads.by_service["a-head-svc"].finish(kube.world.attempts(job)[0].attempt_id, "STOPPED", None)
    kube.world.settle()
    look()
    assert found(kube) == {}


# several Kubernetes clusters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kube", [{"zones": TWO, "create_in": ("ml",)}], indirect=True)
def test_a_submitted_manifest_is_made_on_the_cleaner_cluster_alone_and_runs_to_its_end(kube):
    south, north = kube.sites
    job = submit(kube)
    attempt = kube.submitted("train")
    assert (names(south), names(north)) == ([], [f"train-{attempt.attempt_id}"])
    (made,) = north.api.of("rayjobs")
    assert (made["metadata"]["namespace"], made["spec"]["suspend"]) == ("ml", False)
    kube.starts(attempt)
    kube.turn()
    kube.world.clock.pass_s(60)
    kube.closes(attempt, start=kube.world.clock.now() - timedelta(seconds=60))
    kube.finishes(attempt)
    for _ in range(4):
        kube.turn()
    assert kube.job("train").state is JobState.SUCCEEDED
    receipt = kube.world.statements.receipt(job.job_id)
    assert receipt["co2e_g"] == pytest.approx(0.001 * 20)
    assert north.heads.by_service == {}, "its cluster went when its energy was collected"


@pytest.mark.parametrize("kube", [{"zones": TWO, "create_in": ("ml",)}], indirect=True)
def test_two_submissions_of_one_manifest_are_two_rayjobs(kube):
    for key in "ab":
        kube.world.submit(key=key, entrypoint="python train.py", rayjob=rayjob())
    for _ in range(3):
        kube.turn()
    assert len(names(kube.sites[1])) == len(set(names(kube.sites[1]))) == 2


@pytest.mark.parametrize("kube", [{"zones": TWO, "create_in": ("ml",)}], indirect=True)
def test_a_stopped_submission_is_deleted_once_its_energy_is_collected(kube):
    job = submit(kube)
    attempt = kube.submitted("train")
    kube.starts(attempt)
    kube.turn()
    kube.world.accept.stop(job.job_id)
    kube.turn()
    north = kube.sites[1]
    assert north.heads.job(attempt.attempt_id).stop_asked
    kube.closes(attempt, start=kube.world.clock.now() - timedelta(seconds=3), exit_code=143)
    for _ in range(4):
        kube.turn()
    assert (kube.job("train").state, names(north)) == (JobState.STOPPED, [])
    assert kube.world.attempts(job)[0].collected


@pytest.mark.parametrize("kube", [{"zones": TWO}], indirect=True)
def test_where_none_may_be_made_the_job_says_so_and_waits_nowhere(kube):
    job = submit(kube)
    kube.world.settle()
    assert [names(site) for site in kube.sites] == [[], []]
    assert "create_in" in kube.world.job(job).reason


@pytest.mark.parametrize("kube", [{"zones": {"kube": "DE", "quick": "DE"}, "create_in": ("ml",)}], indirect=True)
def test_nodes_that_take_long_to_come_cost_energy_in_the_plan_and_in_the_receipt(kube):
    pool = replace(kube.cluster.pools[0], provisioning_s=3000.0)
    kube.world.fleet.put(replace(kube.cluster, pools=(pool,)))
    job = submit(kube)
    attempt = kube.submitted("train")
    assert attempt.cluster == "quick", "whose nodes come in a minute"
    kube.world.clock.pass_s(60)
    kube.starts(attempt)
    kube.turn()
    kube.world.clock.pass_s(60)
    kube.closes(attempt, start=kube.world.clock.now() - timedelta(seconds=60))
    kube.finishes(attempt)
    for _ in range(4):
        kube.turn()
    (ended,) = kube.world.attempts(job)
    seconds = (ended.started_at - ended.opened_at).total_seconds()
    assert seconds >= 60
    (note,) = [one for one in kube.world.statements.receipt(job.job_id)["notes"] if "to come" in one]
    assert note.startswith(f"1 node of the on-demand pool spot had {seconds:.0f} s to come and start")


# what a check tells ---------------------------------------------------------------------------------------------------


def check(kube):
    findings = check_kubernetes(kube.adapters.kubernetes(kube.cluster), kube.cluster)
    return [(one.level.value, one.topic, one.text) for one in findings]


def test_a_check_tells_what_is_held_and_where_kueue_decides(kube):
    queued = rayjob(name="queued", namespace="nlp")
    queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "team"
    for one in (queued, rayjob(name="held"), rayjob(name="train")):
        kube.api.create("rayjobs", one)
    kube.submitted("train")
    told = check(kube)
    assert ("ok", "RayJobs", "3 carry our label, 2 admitted") in told
    (kueue,) = [text for level, topic, text in told if (level, topic) == ("warning", "Kueue")]
    assert kueue == (
        "Kueue decides about RayJobs in namespace nlp (kueue.x-k8s.io/queue-name: team): ours are left alone there"
    )


@pytest.mark.parametrize("kube", [{"discover": True}], indirect=True)
def test_a_check_counts_the_rayclusters_that_are_looked_for(kube):
    raycluster(kube, "a")
    assert ("ok", "RayClusters", "1 that are ready carry our label") in check(kube)


def test_a_check_of_a_server_without_kuberay_says_what_to_install(kube):
    nowhere = replace(kube.cluster, name="nowhere", address=f"{kube.cluster.address}/nowhere")
    (finding,) = check_kubernetes(kube.adapters.kubernetes(nowhere), nowhere)
    assert finding.level.value == "problem"
    assert "Install KubeRay there" in finding.text


def test_a_check_says_what_an_api_server_refuses(kube):
    nobody = replace(kube.cluster, token=secret_ref("token", "env:NOBODY"))
    (finding,) = check_kubernetes(kube.adapters.kubernetes(nobody), nobody)
    assert (finding.level.value, finding.topic) == ("problem", "reachable")
    assert "NOBODY" in finding.text
