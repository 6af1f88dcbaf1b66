"""A RayJob manifest, read as a job: what it runs, on which pods, and the hints in its annotations. Pure.

Annotations `carbon-sched/max-delay`, `carbon-sched/team` and so on are `submit`'s options by their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import Bundle
from carbon_sched.options.given import NOT_SHOWN, Given
from carbon_sched.options.request import OPTIONS, build

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, tzinfo

    from carbon_sched.wire import JobRequest

    Manifest = Mapping[str, Any]

PREFIX = "carbon-sched/"
MANAGED = f"{PREFIX}managed"
"""The label by which a RayJob or RayCluster asks for us, with the value `true`."""
OWN = tuple(f"{PREFIX}{name}" for name in ("managed", "job", "attempt", "stopping", "made", "ttl", "zone", "pue"))
HINTS = tuple(
    name
    for name in OPTIONS
    if name not in ("working-dir", "runtime-env", "cluster", "secret", "metadata", "placement")
    and not name.startswith(("entrypoint-", "workers", "gpus"))
)
"""What the manifest itself does not say."""
LISTS = ("data", "after")
FLAGS = ("interruptible", "now")
GPUS = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "habana.ai/gaudi")
QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE = "kueue.x-k8s.io/multikueue"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i)?(?:[eE]([+-]?[0-9]{1,2}))?")
UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)
}
CLUSTER = "rayjob.spec.rayClusterSpec"
PODS = 10_000
"""More in one job is a slip of the pen."""


def request_of(manifest: Manifest, options: Mapping[str, Given], now: datetime, zone: tzinfo) -> JobRequest:
    """The request of a manifest; `options` (flags) win over its annotations.

    Raises InvalidInput naming the field for what cannot be run by us, or cannot be meant.
    """
    require_usable(manifest)
    request = build(entrypoint_of(manifest), {**hints(manifest), **options}, now, zone).request
    request.setdefault("name", manifest["metadata"]["name"])
    request["rayjob"] = dict(manifest)
    return request


def hints(manifest: Manifest) -> dict[str, Given]:
    """`submit`'s options from annotations; InvalidInput for one of ours that is no option."""
    found: dict[str, Given] = {}
    for key, text in _map(manifest, "metadata.annotations").items():
        if not key.startswith(PREFIX) or key in OWN:
            continue
        name = key.removeprefix(PREFIX)
        if name not in HINTS:
            raise InvalidInput(f"annotation {key}", text, "is not a hint", f"There are: {', '.join(HINTS)}")
        value: Any = text
        if name in LISTS:
            value = [item.strip() for item in str(text).split(",")]
        elif name in FLAGS and str(text).lower() in ("true", "false"):
            value = str(text).lower() == "true"
        found[name] = Given(value, f"annotation {key}")
    return found


def require_usable(manifest: Manifest) -> None:
    """Raise InvalidInput for a document that is no RayJob, or one that cannot wait and be suspended."""
    if manifest.get("kind") != "RayJob" or not str(manifest.get("apiVersion", "")).startswith("ray.io/"):
        kind = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
        raise InvalidInput("rayjob.kind", kind, "is not a RayJob", "Write apiVersion: ray.io/v1 and kind: RayJob")
    metadata, spec = _map(manifest, "metadata"), _map(manifest, "spec")
    for field, name in (("name", metadata.get("name")), ("namespace", metadata.get("namespace", "default"))):
        if not NAME.fullmatch(str(name)):
            raise InvalidInput(f"rayjob.metadata.{field}", name, "is not a name", "Use a-z, 0-9 and -, at most 63")
    if queue := kueue_of(manifest):
        raise InvalidInput("rayjob.metadata.labels", queue, "gives it to Kueue, which starts it", "Take it out")
    if not spec.get("rayClusterSpec"):
        remedy = (
            "Write rayClusterSpec; a job for a Ray cluster that is there is submitted to that (carbon-sched submit)"
        )
        raise InvalidInput("rayjob.spec.clusterSelector", spec.get("clusterSelector"), "cannot wait suspended", remedy)
    if not spec.get("shutdownAfterJobFinishes"):
        remedy = "Write shutdownAfterJobFinishes: true; KubeRay suspends no others"
        raise InvalidInput("rayjob.spec.shutdownAfterJobFinishes", False, "forbids to wait", remedy)  # noqa: FBT003
    if spec.get("submissionMode") == "InteractiveMode":
        remedy = "Leave it out, or use HTTPMode"
        raise InvalidInput("rayjob.spec.submissionMode", "InteractiveMode", "is submitted by hand", remedy)
    entrypoint_of(manifest)
    runtime_env_of(manifest)
    bundles_of(manifest)


def kueue_of(manifest: Manifest) -> str:
    """By what a manifest gives itself to Kueue; empty where it does not."""
    if (queue := _map(manifest, "metadata.labels").get(QUEUE)) is not None:
        return f"{QUEUE}: {queue}"
    return f"managedBy: {KUEUE}" if _map(manifest, "spec").get("managedBy") == KUEUE else ""


def entrypoint_of(manifest: Manifest) -> str:
    """What it runs."""
    entrypoint = _map(manifest, "spec").get("entrypoint")
    if not isinstance(entrypoint, str) or not entrypoint.strip():
        raise InvalidInput("rayjob.spec.entrypoint", entrypoint, "is not a command", "Write: entrypoint: python job.py")
    return entrypoint


def runtime_env_of(manifest: Manifest) -> dict[str, Any]:
    """Its runtime environment; values are not shown in errors, they may be secrets."""
    field, remedy = "rayjob.spec.runtimeEnvYAML", "Write the keys of a Ray runtime_env as YAML in a text block (|)"
    try:
        found = yaml.safe_load(_map(manifest, "spec").get("runtimeEnvYAML") or "")
    except (yaml.YAMLError, AttributeError):
        raise InvalidInput(field, NOT_SHOWN, "is not YAML", remedy) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidInput(field, NOT_SHOWN, "is not a mapping", remedy)
    return found


def bundles_of(manifest: Manifest) -> tuple[Bundle, ...]:
    """One bundle per pod of its Ray cluster, by what the Ray container of each asks for, the head's first."""
    cluster = _map(manifest, "spec.rayClusterSpec")
    groups = [(1, "headGroupSpec", cluster.get("headGroupSpec"))]
    workers = cluster.get("workerGroupSpecs") or []
    if not isinstance(workers, list):
        raise InvalidInput(f"{CLUSTER}.workerGroupSpecs", workers, "is not a list", "Write a list of groups")
    groups += [(_pods(group, i), f"workerGroupSpecs.{i}", group) for i, group in enumerate(workers)]
    if sum(count for count, _, _ in groups) > PODS:
        raise InvalidInput(f"{CLUSTER}.workerGroupSpecs", "(all)", f"have more than {PODS} pods", "Ask for fewer")
    return tuple(bundle for count, field, group in groups for bundle in count * (_bundle(group, field),))


def _pods(group: Any, number: int) -> int:
    """How many pods a group has at its start: an autoscaling one begins with its least."""
    found = 1
    for name, default in (("replicas", None), ("numOfHosts", 1)):
        value = _map(group, "").get(name, default)
        if value is None:
            value = _map(group, "").get("minReplicas") or 0
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            field = f"{CLUSTER}.workerGroupSpecs.{number}.{name}"
            raise InvalidInput(field, value, "is not a number of pods", "Write 0 or more")
        found *= value
    return found


def _bundle(group: Any, field: str) -> Bundle:
    containers = _map(group, "template.spec").get("containers") or [{}]
    resources = _map(containers[0], "resources") if isinstance(containers, list) else {}
    asked = {**_map(resources, "requests"), **_map(resources, "limits")}
    amounts = {name: quantity(f"{CLUSTER}.{field}.resources.{name}", value) for name, value in asked.items()}
    gpus = sum(amounts.get(name, 0.0) for name in GPUS)
    return Bundle(cpus=amounts.get("cpu", 0.0), gpus=gpus, memory=int(amounts.get("memory", 0.0)))


def quantity(field: str, value: object) -> float:
    """A Kubernetes quantity (`500m`, `16Gi`) as a number."""
    found = QUANTITY.fullmatch(str(value).strip())
    if found is None:
        raise InvalidInput(field, value, "is not a quantity", "Write it as Kubernetes does, such as 4 or 16Gi")
    number, unit, exponent = found.groups()
    return float(number) * UNITS.get(unit or "", 1.0) * 10.0 ** int(exponent or 0)


def pod_templates(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every pod template of a RayJob's Ray cluster, the head's first."""
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *(cluster.get("workerGroupSpecs") or ())):
        yield group["template"]


def _map(document: Any, path: str) -> dict[str, Any]:
    """The mapping at a dotted path, empty where there is none; InvalidInput where something else stands there."""
    found = document
    for key in (*filter(None, path.split(".")), None):
        if found is not None and not isinstance(found, Mapping):
            raise InvalidInput(f"rayjob.{path}", found, "is not a mapping", "Write keys and values")
        if key is not None:
            found = (found or {}).get(key)
    return dict(found or {})
