"""What we write into a RayJob to admit it, and what KubeRay's status of one means to us. Pure."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import yaml

from carbon_sched.domain.time import from_rfc3339
from carbon_sched.options.rayjob import MANAGED, PREFIX, pod_templates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from carbon_sched.ports import RaySubmission

    Json = dict[str, Any]

ATTEMPT = f"{PREFIX}attempt"
"""A label: RayJobs are found by it."""
JOB = f"{PREFIX}job"
STOPPING = f"{PREFIX}stopping"
"""An annotation: Ray was asked to stop the job, and its cluster goes once its energy is collected."""
FOLDER = "/etc/carbon-sched/runtime"
VOLUME = "carbon-sched-runtime"
TTL = f"{PREFIX}ttl"
"""An annotation: what its user wrote as ttlSecondsAfterFinished, while its cluster is kept for us."""
KEPT_S = 900
"""A finished job's cluster stays at most this long for its energy to be collected, and goes when that is done."""
ENDED = ("Complete", "Failed")
REFUSED = "ValidationFailed"
FINAL = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Runtime:
    """Our package in a ConfigMap of the RayJob's namespace."""

    config_map: str
    file: str

    @property
    def uri(self) -> str:
        """Where a runtime_env finds it, on every node."""
        return f"file://{FOLDER}/{self.file}"


@dataclass(frozen=True)
class Told:
    """What a RayJob's status says of its attempt, in Ray's words."""

    status: str
    message: str = ""
    error_type: str | None = None


def attempt_of(rayjob: Mapping[str, Any]) -> str:
    """The last attempt that was admitted; empty before the first."""
    return str((rayjob["metadata"].get("labels") or {}).get(ATTEMPT, ""))


def annotation(rayjob: Mapping[str, Any], key: str) -> str:
    """One annotation, empty where it is not there."""
    return str((rayjob["metadata"].get("annotations") or {}).get(key, ""))


def is_suspended(rayjob: Mapping[str, Any]) -> bool:
    """Whether its cluster is not wanted."""
    return bool(rayjob["spec"].get("suspend"))


def deployment(rayjob: Mapping[str, Any]) -> str:
    """KubeRay's word for where it is; empty while it has not looked."""
    return str((rayjob.get("status") or {}).get("jobDeploymentStatus") or "")


def is_waiting(rayjob: Mapping[str, Any]) -> bool:
    """Whether it is suspended and KubeRay has brought it to rest, or has not looked at it yet."""
    return is_suspended(rayjob) and deployment(rayjob) in ("", "Suspended")


def has_ended(rayjob: Mapping[str, Any]) -> bool:
    """Whether KubeRay is done with it for good."""
    return deployment(rayjob) in ENDED


def is_kept(rayjob: Mapping[str, Any]) -> bool:
    """Whether it has a cluster that stays until its energy is collected."""
    return bool(annotation(rayjob, TTL)) if has_ended(rayjob) else not is_suspended(rayjob)


def has_cluster(rayjob: Mapping[str, Any], now: datetime) -> bool:
    """Whether there is a Ray head to ask: KubeRay deletes the cluster so many seconds after its end."""
    status, spec = rayjob.get("status") or {}, rayjob["spec"]
    if not status.get("dashboardURL") or not (ended := status.get("endTime")) or not has_ended(rayjob):
        return bool(status.get("dashboardURL"))
    return now < from_rfc3339(ended) + timedelta(seconds=spec.get("ttlSecondsAfterFinished") or 0)


def told(rayjob: Mapping[str, Any]) -> Told:
    """What became of the admitted attempt so far.

    A suspended one has stopped once its cluster is gone. Ray's own end counts when it is there, though the pod that
    submitted may still be about to end; without one it is KubeRay that gave up (a deadline, pods that cannot start).
    """
    status, where = rayjob.get("status") or {}, deployment(rayjob)
    ray, message = status.get("jobStatus") or "", status.get("message") or ""
    if is_waiting(rayjob):
        return Told("STOPPED", "suspended")
    if where == REFUSED:
        return Told("FAILED", message, status.get("reason") or REFUSED)
    if where in ENDED and ray not in FINAL:
        return Told("FAILED", message, status.get("reason"))
    if where in (*ENDED, "Running") and ray in (*FINAL, "RUNNING"):
        return Told(ray, message, status.get("reason"))
    return Told("PENDING", message)


def admitted(rayjob: Json, submission: RaySubmission, runtime: Runtime | None, *, keep: bool) -> Json:
    """The object as it runs an attempt: not suspended, with our wrapper, environment and id.

    `keep` has its cluster outlive the job for as long as its energy journal takes to be pulled from there.
    """
    made = deepcopy(rayjob)
    made.pop("status", None)
    metadata, spec = made["metadata"], made["spec"]
    metadata["labels"] = {**(metadata.get("labels") or {}), MANAGED: "true", ATTEMPT: submission.submission_id}
    annotations = {**(metadata.get("annotations") or {}), JOB: submission.metadata["carbon-sched.job"]}
    annotations.pop(STOPPING, None)
    if keep:
        wanted_s = _wanted_ttl_s(rayjob)
        annotations[TTL], spec["ttlSecondsAfterFinished"] = str(wanted_s), max(KEPT_S, wanted_s)
    metadata["annotations"] = annotations
    spec["suspend"] = False
    spec["jobId"] = submission.submission_id
    spec["entrypoint"] = submission.entrypoint
    spec["runtimeEnvYAML"] = yaml.safe_dump(dict(submission.runtime_env))
    spec["metadata"] = {**(spec.get("metadata") or {}), **submission.metadata}
    if runtime is not None:
        for template in pod_templates(spec):
            _mount(template["spec"], runtime)
    return made


def _mount(pod: Json, runtime: Runtime) -> None:
    """Our package in the Ray container, which is a pod's first."""
    volume = {"name": VOLUME, "configMap": {"name": runtime.config_map}}
    pod["volumes"] = [*(one for one in pod.get("volumes") or () if one["name"] != VOLUME), volume]
    ray, mount = pod["containers"][0], {"name": VOLUME, "mountPath": FOLDER, "readOnly": True}
    ray["volumeMounts"] = [*(one for one in ray.get("volumeMounts") or () if one["name"] != VOLUME), mount]


def fresh(rayjob: Json) -> Json:
    """A manifest to make another one by: without what the server and KubeRay wrote into it."""
    metadata = rayjob["metadata"]
    kept = {key: deepcopy(metadata[key]) for key in ("name", "namespace", "labels", "annotations") if key in metadata}
    return {**{key: rayjob[key] for key in ("apiVersion", "kind")}, "metadata": kept, "spec": deepcopy(rayjob["spec"])}


def suspended(rayjob: Json) -> Json:
    """The object with its cluster not wanted any more."""
    made = deepcopy(rayjob)
    made["spec"]["suspend"] = True
    return made


def released(rayjob: Json) -> Json:
    """The object of an ended one, whose cluster goes when its user wanted it to."""
    made = deepcopy(rayjob)
    made["spec"]["ttlSecondsAfterFinished"] = _wanted_ttl_s(rayjob)
    made["metadata"]["annotations"].pop(TTL, None)
    return made


def _wanted_ttl_s(rayjob: Json) -> int:
    """What its user wrote: noted by us where one was admitted before, unless somebody else changed that note."""
    noted = annotation(rayjob, TTL)
    if attempt_of(rayjob) and noted:
        return int(noted) if noted.isdigit() else 0
    return int(rayjob["spec"].get("ttlSecondsAfterFinished") or 0)


def being_stopped(rayjob: Json, at: str) -> Json:
    """The object with a note that its Ray job was asked to stop."""
    made = deepcopy(rayjob)
    made["metadata"]["annotations"] = {**(made["metadata"].get("annotations") or {}), STOPPING: at}
    return made
