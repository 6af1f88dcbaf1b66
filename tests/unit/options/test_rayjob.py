"""RayJob manifests read as jobs: pods as bundles, annotations as options, and what cannot wait refused."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import Bundle
from carbon_sched.options.given import Given
from carbon_sched.options.rayjob import CLUSTER, bundles_of, quantity, request_of
from tests.fakes.manifests import rayjob

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def request(manifest, **flags):
    options = {name.replace("_", "-"): Given(value, f"--{name}") for name, value in flags.items()}
    return request_of(manifest, options, NOW, timezone.utc)


def test_flags_win_over_annotations_and_the_manifest_travels_along():
    manifest = rayjob(team="vision", max_delay="6h", data="s3://b/c=5GB@DE, s3://d/e=1GB@FR", interruptible="true")
    made = request(manifest, max_delay="2h")
    assert (made["name"], made["entrypoint"], made["team"]) == ("train", "python train.py", "vision")
    assert (made["max_delay_s"], made["interruptible"]) == (7200.0, True)
    assert [item["zone"] for item in made["data"]] == ["DE", "FR"]
    assert made["rayjob"] == manifest


def test_every_pod_is_a_bundle_of_what_its_ray_container_asks_for():
    manifest = rayjob()
    workers = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    container = {"resources": {"requests": {"cpu": "500m"}, "limits": {"nvidia.com/gpu": "8", "memory": "64Gi"}}}
    workers[0] = {
        "replicas": 2,
        "numOfHosts": 2,
        "template": {"spec": {"containers": [container, {"name": "sidecar"}]}},
    }
    head, *others = bundles_of(manifest)
    assert head == Bundle(2.0, 0.0, 2 * 2**30)
    assert others == [Bundle(0.5, 8.0, 64 * 2**30)] * 4


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("4", 4.0), ("1.5", 1.5), ("16Gi", 16 * 2**30), ("2G", 2e9), ("1e3", 1000.0)]
)
def test_quantities(text, value):
    assert quantity("cpu", text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("kind", "Job", "rayjob.kind"),
        ("metadata.name", "Not A Name", "rayjob.metadata.name"),
        ("metadata.labels", {"kueue.x-k8s.io/queue-name": "q"}, "rayjob.metadata.labels"),
        ("spec.managedBy", "kueue.x-k8s.io/multikueue", "rayjob.metadata.labels"),
        ("spec.rayClusterSpec", None, "rayjob.spec.clusterSelector"),
        ("spec.shutdownAfterJobFinishes", False, "rayjob.spec.shutdownAfterJobFinishes"),
        ("spec.submissionMode", "InteractiveMode", "rayjob.spec.submissionMode"),
        ("spec.entrypoint", "", "rayjob.spec.entrypoint"),
        ("spec.runtimeEnvYAML", "[1, 2]", "rayjob.spec.runtimeEnvYAML"),
        ("spec.runtimeEnvYAML", "a: b: c", "rayjob.spec.runtimeEnvYAML"),
        ("spec", "all", "rayjob.spec"),
        ("spec.rayClusterSpec.workerGroupSpecs", [{"replicas": -1}], f"{CLUSTER}.workerGroupSpecs.0.replicas"),
        ("metadata.annotations", {"carbon-sched/deadline": "never"}, "annotation carbon-sched/deadline"),
        ("metadata.annotations", {"carbon-sched/gpus": "8"}, "annotation carbon-sched/gpus"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_its_field(path, value, field):
    manifest = rayjob()
    *folders, last = path.split(".")
    place = manifest
    for folder in folders:
        place = place[folder]
    place[last] = value
    with pytest.raises(InvalidInput) as caught:
        request(manifest)
    assert caught.value.field == field
