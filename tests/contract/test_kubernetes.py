"""RayJobs as jobs: taken up, held, admitted, suspended, resumed, finished and booked.

The API server is `tests/fakes/kube_api.py`, built from the CRDs that KubeRay publishes, and in the slow tests a real
kube-apiserver over etcd, where we are the chart's account with the chart's role. The operator is
`tests/fakes/kuberay.py`; adapter, service and database are the real ones.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
import yaml

from carbon_sched.domain.job import JobState
from carbon_sched.ports import RaySubmission
from carbon_sched.service.journal import is_segment
from tests.fakes.kubernetes import ROOT
from tests.fakes.manifests import rayjob
from tests.fakes.ray_head_http import text
from tests.fakes.rayjobs import Kube
from tests.fakes.world import START

HOUR = 3600.0
DIRTY_EVENING = {"DE": [(0, 50.0), (2 * HOUR, 900.0), (6 * HOUR, 100.0)]}
CLEAN_NIGHT = {"DE": [(0, 900.0), (6 * HOUR, 50.0)]}


@pytest.fixture
def kube(request, tmp_path, server):
    with Kube(tmp_path, getattr(request, "param", None), server=server) as made:
        yield made


def attempts(kube, name="train"):
    return kube.world.attempts(kube.job(name))


def turns(kube, number):
    for _ in range(number):
        kube.turn()


def state(kube, name="train"):
    return kube.job(name).state


def create(kube, **more):
    kube.api.create("rayjobs", rayjob(**more))


def run(kube, name="train"):
    """Its newest attempt begins to run."""
    attempt = kube.submitted(name)
    kube.starts(attempt)
    turns(kube, 2)
    assert state(kube, name) is JobState.RUNNING
    return attempt


def end(kube, attempt, **more):
    kube.closes(attempt, start=kube.world.clock.now() - timedelta(seconds=60), **more)
    kube.finishes(attempt)
    turns(kube, 3)


def told(kube):
    return [(event["reason"], event["message"]) for event in kube.api.of("events")]


def test_a_suspended_rayjob_is_taken_up_admitted_followed_and_booked(kube):
    create(kube, team="vision", phase="finetuning")
    turns(kube, 2)
    job = kube.job("train")
    assert (job.spec.team, job.spec.phase.value) == ("vision", "finetuning")
    assert [(bundle.cpus, bundle.memory) for bundle in job.spec.resources.bundles] == [(2.0, 2**31)] * 2
    attempt = run(kube)
    spec = kube.object("train")["spec"]
    assert (spec["suspend"], spec["jobId"]) == (False, attempt.attempt_id)
    kube.world.clock.pass_s(60)
    end(kube, attempt)
    assert state(kube) is JobState.SUCCEEDED
    (ended,) = attempts(kube)
    assert (ended.collected, ended.exit_code) == (True, 0)
    receipt = kube.world.statements.receipt(job.job_id)
    assert receipt["energy_kwh"] == pytest.approx(0.001)
    assert receipt["missing"] == []
    assert kube.operator.submitted == {attempt.attempt_id: 1}
    assert told(kube)[0] == ("TakenUp", f"it waits as job {job.job_id} of carbon-sched")


def test_the_example_is_held_with_the_hints_that_it_gives(kube):
    example = yaml.safe_load((ROOT / "examples" / "rayjob.yaml").read_text(encoding="utf-8"))
    kube.api.create("rayjobs", {**example, "metadata": {**example["metadata"], "namespace": "ml"}})
    turns(kube, 2)
    spec = kube.job("patient").spec
    assert (spec.team, spec.flexibility.max_delay_s, len(spec.resources.bundles)) == ("vision", 6 * HOUR, 2)


def test_an_admitted_rayjob_runs_our_wrapper_from_a_config_map_on_every_pod(kube):
    create(kube)
    attempt = run(kube)
    (package,) = kube.api.of("configmaps")
    spec = kube.object("train")["spec"]
    for group in (spec["rayClusterSpec"]["headGroupSpec"], spec["rayClusterSpec"]["workerGroupSpecs"][0]):
        pod = group["template"]["spec"]
        assert [one["configMap"]["name"] for one in pod["volumes"]] == [package["metadata"]["name"]]
        (mount,) = pod["containers"][0]["volumeMounts"]
    submitted = kube.heads.job(attempt.attempt_id).request
    assert submitted["entrypoint"].startswith("exec python -m carbon_sched_runtime.run -- ")
    (module,) = submitted["runtime_env"]["py_modules"]
    assert module == f"file://{mount['mountPath']}/{next(iter(package['binaryData']))}"
    assert submitted["runtime_env"]["env_vars"]["LR"] == "0.1"
    assert submitted["runtime_env"]["env_vars"]["CARBON_SCHED_ATTEMPT"] == attempt.attempt_id


@pytest.mark.parametrize("kube", [CLEAN_NIGHT], indirect=True)
def test_a_patient_rayjob_stays_suspended_until_the_clean_hour(kube):
    create(kube, duration="1h", max_delay="12h")
    turns(kube, 3)
    kube.world.clock.pass_s(3 * HOUR)
    turns(kube, 2)
    assert state(kube) is JobState.QUEUED
    assert kube.object("train")["spec"]["suspend"]
    kube.world.clock.pass_s(3 * HOUR)
    end(kube, run(kube))
    assert state(kube) is JobState.SUCCEEDED


@pytest.mark.parametrize("kube", [DIRTY_EVENING], indirect=True)
def test_an_interruptible_rayjob_is_stopped_by_ray_then_suspended_and_the_same_object_resumes(kube):
    create(kube, duration="4h", max_delay="12h", interruptible="true")
    first = run(kube)
    while kube.world.clock.now() < START + timedelta(hours=2.25):
        kube.world.clock.pass_s(900)
        kube.turn()
    assert kube.heads.job(first.attempt_id).stop_asked
    assert not kube.object("train")["spec"]["suspend"]  # its energy is still there
    kube.closes(first, start=kube.world.clock.now() - timedelta(seconds=60), exit_code=143)
    turns(kube, 4)
    assert kube.object("train")["status"]["jobDeploymentStatus"] == "Suspended"
    assert attempts(kube)[0].collected
    kube.world.clock.pass_s(4 * HOUR)
    second = run(kube)
    assert (second.number, kube.object("train")["spec"]["jobId"]) == (2, second.attempt_id)
    end(kube, second, seq=1)
    assert state(kube) is JobState.SUCCEEDED
    assert kube.operator.cut_off == []
    assert [one["metadata"]["name"] for one in kube.api.of("rayjobs")] == ["train"]
    assert kube.world.statements.receipt(kube.job("train").job_id)["energy_kwh"] == pytest.approx(0.002)


@pytest.mark.parametrize("kube", [DIRTY_EVENING], indirect=True)
def test_a_rayjob_that_kuberay_called_complete_meanwhile_is_followed_by_another_one(kube):
    create(kube, duration="4h", max_delay="12h", interruptible="true")
    first = run(kube)
    while kube.world.clock.now() < START + timedelta(hours=2.25):
        kube.world.clock.pass_s(900)
        kube.turn()
    kube.finishes(first, "STOPPED", 143)
    turns(kube, 3)
    assert kube.object("train")["status"]["jobDeploymentStatus"] == "Complete"
    kube.world.clock.pass_s(4 * HOUR)
    second = run(kube)
    assert kube.object(f"train-{second.attempt_id}")["spec"]["jobId"] == second.attempt_id
    end(kube, second)
    assert state(kube) is JobState.SUCCEEDED


@pytest.mark.parametrize("stopped", [False, True], ids=["finished", "stopped"])
def test_a_cluster_is_kept_until_its_energy_is_collected_and_no_longer(kube, monkeypatch, stopped):
    create(kube, ttl="soon")  # a note of ours, which is no business of its user
    attempt = run(kube)
    head = kube.heads.by_job[attempt.attempt_id]
    read = head.get_file

    def unread(query, **_):
        return text("busy", 503) if is_segment(query["filename"]) else read(query)

    kube.world.clock.pass_s(60)
    if stopped:
        kube.world.accept.stop(kube.job("train").job_id)
        turns(kube, 1)
    kube.closes(attempt, start=kube.world.clock.now() - timedelta(seconds=60), exit_code=143 if stopped else 0)
    if not stopped:
        kube.finishes(attempt)
    with monkeypatch.context() as patch:
        patch.setattr(head, "get_file", unread)
        turns(kube, 4)
        assert not attempts(kube)[0].open
        assert head.folder.exists()
    turns(kube, 6)
    assert attempts(kube)[0].collected
    assert not head.folder.exists()
    receipt = kube.world.statements.receipt(kube.job("train").job_id)
    assert (receipt["energy_kwh"], receipt["missing"]) == (pytest.approx(0.001), [])
    assert kube.object("train")["spec"].get("ttlSecondsAfterFinished", 0) == (900 if stopped else 0)


def test_heads_that_are_gone_are_forgotten(kube):
    create(kube, name="first")
    end(kube, run(kube, "first"))
    create(kube, name="second")
    head = run(kube, "second").attempt_id
    heads = kube.adapters.kubernetes(kube.cluster)._heads
    assert [head in address for address in heads._clients] == [True]
    assert len(heads._nodes) == len(heads._attempts) - 1 == 1


def test_a_stop_while_pods_are_coming_suspends_at_once(kube):
    create(kube)
    turns(kube, 4)
    kube.world.accept.stop(kube.job("train").job_id)
    turns(kube, 5)
    assert state(kube) is JobState.STOPPED
    assert kube.object("train")["spec"]["suspend"]


@pytest.mark.parametrize("kube", [CLEAN_NIGHT], indirect=True)
def test_a_held_rayjob_that_is_deleted_or_started_by_hand_is_no_job_any_more(kube):
    create(kube, name="deleted", max_delay="12h")
    create(kube, name="begun", max_delay="12h")
    turns(kube, 3)
    kube.api.delete(("rayjobs", "ml", "deleted"), None)
    begun = kube.object("begun")
    kube.api.replace(("rayjobs", "ml", "begun"), {**begun, "spec": {**begun["spec"], "suspend": False}}, status=False)
    turns(kube, 2)
    assert {state(kube, "deleted"), state(kube, "begun")} == {JobState.STOPPED}
    assert "was deleted" in kube.job("deleted").reason
    assert "started by somebody else" in kube.job("begun").reason


def test_a_running_rayjob_that_is_deleted_has_stopped(kube):
    create(kube)
    run(kube)
    kube.api.delete(("rayjobs", "ml", "train"), None)
    turns(kube, 2)
    assert (state(kube), kube.job("train").reason) == (JobState.STOPPED, "its RayJob was deleted")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"suspend": False}, "was not created suspended"),
        ({"max_delay": "soon"}, "annotation carbon-sched/max-delay"),
        ({"maxdelay": "6h"}, "is not a hint"),
    ],
)
def test_what_cannot_be_held_is_left_alone_and_told_once(kube, change, words):
    create(kube, **change)
    turns(kube, 3)
    assert kube.jobs() == []
    ((_, message),) = told(kube)
    assert words in message


@pytest.mark.parametrize("by", ["label", "queue"])
def test_kueues_rayjobs_are_never_touched(kube, by):
    made = rayjob()
    if by == "label":
        made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "team"
    else:
        kube.api.create("localqueues", {"metadata": {"name": "team", "namespace": "ml"}})
    kube.api.create("rayjobs", made)
    before = kube.object("train")["spec"]
    turns(kube, 3)
    assert kube.jobs() == []
    assert kube.object("train")["spec"] == before
    ((reason, message),) = told(kube)
    assert reason == "NotManaged"
    assert "Kueue decides" in message


def test_an_old_leaders_admission_comes_too_late(kube):
    """Its write was read before a newer attempt was admitted."""
    create(kube)
    attempt = run(kube)
    client = kube.adapters.kubernetes(kube.cluster)
    stale = RaySubmission(
        attempt.attempt_id, "true", {}, {"carbon-sched.job": attempt.job_id}, rayjob=kube.job("train").spec.rayjob
    )
    before = kube.object("train")
    client.submit(stale)
    assert kube.object("train") == before
