"""A KubeRay operator without pods: drives the status of RayJobs as KubeRay 1.4's reconciler does, a step at a time.

A created RayJob is initialised before its `suspend` is looked at; a suspended one loses its cluster without a word to
Ray; Ray's end makes a RayJob complete, and a complete one never runs again. The clusters of all RayJobs are one fake
Ray head; to delete a cluster is to have the head forget the job.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import requests
import yaml

if TYPE_CHECKING:
    from tests.fakes.ray_head import FakeRayHead

Json = dict[str, Any]
FINAL = ("SUCCEEDED", "FAILED", "STOPPED")
SERVICE = "heads-head-svc"


class KubeRay:
    """`submitted` counts how often each Ray job was begun; `cut_off` are those whose cluster went while they ran."""

    def __init__(self, address: str, head: FakeRayHead, **session: Any) -> None:
        self.address, self.head = address, head
        self.session = requests.Session()
        for name, value in session.items():
            setattr(self.session, name, value)
        self.submitted: Counter[str] = Counter()
        self.cut_off: list[str] = []

    def step(self) -> None:
        """One reconciliation of every RayJob; a write that somebody was faster than is left to the next one."""
        answer = self.session.get(f"{self.address}/apis/ray.io/v1/rayjobs")
        answer.raise_for_status()
        for rayjob in answer.json()["items"]:
            before = rayjob.get("status") or {}
            status = self.next(rayjob, {**before})
            if status != before:
                metadata = rayjob["metadata"]
                path = f"{self.address}/apis/ray.io/v1/namespaces/{metadata['namespace']}/rayjobs/{metadata['name']}"
                answer = self.session.put(f"{path}/status", json={**rayjob, "status": status})
                assert answer.status_code in (200, 404, 409), answer.text

    def next(self, rayjob: Json, status: Json) -> Json:  # noqa: PLR0911 - one for each state
        spec, where = rayjob["spec"], status.get("jobDeploymentStatus", "")
        if where == "":
            job = status.get("jobId") or spec.get("jobId") or f"{rayjob['metadata']['name']}-generated"
            return {
                **status,
                "jobId": job,
                "rayClusterName": f"{job}-raycluster",
                "jobDeploymentStatus": "Initializing",
            }
        if where in ("Initializing", "Running") and spec.get("suspend"):
            return {**status, "jobDeploymentStatus": "Suspending"}
        if where == "Initializing":
            url = f"{SERVICE}.{rayjob['metadata']['namespace']}.svc.cluster.local:8265"
            return {**status, "dashboardURL": url, "jobDeploymentStatus": "Running"}
        if where == "Running":
            return self.running(spec, status)
        if where == "Suspending":
            self.delete_cluster(status["jobId"])
            return {"jobDeploymentStatus": "Suspended"}
        if where == "Suspended" and not spec.get("suspend"):
            return {}
        return status

    def running(self, spec: Json, status: Json) -> Json:
        job = self.head.jobs.get(status["jobId"])
        if job is None:
            self.submitted[status["jobId"]] += 1
            body = {
                "entrypoint": spec["entrypoint"],
                "submission_id": status["jobId"],
                "runtime_env": yaml.safe_load(spec.get("runtimeEnvYAML") or "{}"),
                "metadata": spec.get("metadata") or {},
            }
            self.head.answer("POST", "/api/jobs/", {}, json.dumps(body).encode())
            return status
        status = {**status, "jobStatus": job.status, "message": job.message}
        if job.status in FINAL:
            status["jobDeploymentStatus"] = "Failed" if job.status == "FAILED" else "Complete"
        return status

    def delete_cluster(self, job_id: str) -> None:
        job = self.head.jobs.pop(job_id, None)
        if job is not None and job.status == "RUNNING" and not job.stop_asked:
            self.cut_off.append(job_id)
