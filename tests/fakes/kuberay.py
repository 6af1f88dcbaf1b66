"""A KubeRay operator without pods: what KubeRay 1.4's reconciler writes, a step at a time, over the API server.

A created RayJob gets a finalizer and is initialised before its `suspend` is looked at; a suspended one loses its
cluster without a word to Ray; Ray's end makes a RayJob complete, its cluster goes `ttlSecondsAfterFinished` later, and
a complete one never runs again. To delete a cluster is to have its Ray head vanish, with all its files.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import requests
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.ray_heads import RayHeads

Json = dict[str, Any]
FINAL = ("SUCCEEDED", "FAILED", "STOPPED")
ENDED = ("Complete", "Failed")
FINALIZER = "ray.io/rayjob-finalizer"
RAY, CORE = "apis/ray.io/v1", "api/v1"
POD = {"containers": [{"name": "ray-head", "image": "rayproject/ray:2.52.0"}]}


class KubeRay:
    """`submitted` counts how often each Ray job was begun; `cut_off` are those whose cluster went while they ran."""

    def __init__(
        self, address: str, heads: RayHeads, now: Callable[[], datetime], *, heads_at: tuple[str, int], **session: Any
    ) -> None:
        """`heads_at` is where pods would be: what answers there answers for every head."""
        self.address, self.heads, self.now, self.heads_at = address, heads, now, heads_at
        self.session = requests.Session()
        for name, value in session.items():
            setattr(self.session, name, value)
        self.submitted: Counter[str] = Counter()
        self.cut_off: list[str] = []

    def step(self) -> None:
        """One reconciliation of every RayJob; a write that somebody was faster than is left to the next one."""
        for rayjob in self.ask("GET", f"{RAY}/rayjobs").json()["items"]:
            self.reconcile(rayjob)

    def reconcile(self, rayjob: Json) -> None:
        if rayjob["metadata"].get("deletionTimestamp"):
            self.finalize(rayjob)
            return
        before = rayjob.get("status") or {}
        if not before.get("jobDeploymentStatus"):
            rayjob["metadata"]["finalizers"] = [FINALIZER]
            answer = self.ask("PUT", _path(rayjob), rayjob)
            if not answer.ok:
                return
            rayjob = answer.json()
        status = self.next(rayjob, {**before})
        if status != before:
            self.ask("PUT", f"{_path(rayjob)}/status", {**rayjob, "status": status})

    def finalize(self, rayjob: Json) -> None:
        """KubeRay asks Ray to stop and does not wait; its cluster goes with it, as the garbage collector would do."""
        status = rayjob.get("status") or {}
        if (job := self.heads.job(status.get("jobId", ""))) is not None:
            job.stop_asked = True
        rayjob["metadata"]["finalizers"] = []
        if self.ask("PUT", _path(rayjob), rayjob).ok:
            self.delete_cluster(rayjob)

    def next(self, rayjob: Json, status: Json) -> Json:  # noqa: PLR0911 - one for each state
        spec, where = rayjob["spec"], status.get("jobDeploymentStatus", "")
        if where == "":
            job = status.get("jobId") or spec.get("jobId") or f"{rayjob['metadata']['name']}-generated"
            known = {"jobId": job, "rayClusterName": f"{job}-cluster", "startTime": self.at()}
            return {**status, **known, "jobDeploymentStatus": "Initializing"}
        if where in ("Initializing", "Running") and spec.get("suspend"):
            return {**status, "jobDeploymentStatus": "Suspending"}
        if where == "Initializing":
            self.create_cluster(rayjob)
            url = f"{service(rayjob)}.{rayjob['metadata']['namespace']}.svc.cluster.local:8265"
            return {**status, "dashboardURL": url, "jobDeploymentStatus": "Running"}
        if where == "Running":
            return self.running(rayjob, status)
        if where == "Suspending":
            self.delete_cluster(rayjob)
            return {"jobDeploymentStatus": "Suspended"}
        if where == "Suspended" and not spec.get("suspend"):
            return {}
        if where in ENDED and self.now() >= _time(status["endTime"]) + timedelta(seconds=_ttl(spec)):
            self.delete_cluster(rayjob)
        return status

    def running(self, rayjob: Json, status: Json) -> Json:
        spec, job = rayjob["spec"], self.heads.job(status["jobId"])
        if job is None:
            self.submitted[status["jobId"]] += 1
            body = {
                "entrypoint": spec["entrypoint"],
                "submission_id": status["jobId"],
                "runtime_env": yaml.safe_load(spec.get("runtimeEnvYAML") or "{}"),
                "metadata": spec.get("metadata") or {},
            }
            self.heads.submit(service(rayjob), status["jobId"], json.dumps(body).encode())
            return status
        status = {**status, "jobStatus": job.status, "message": job.message}
        if job.status in FINAL:
            ended = "Failed" if job.status == "FAILED" else "Complete"
            status |= {"jobDeploymentStatus": ended, "endTime": self.at()}
        return status

    # clusters ------------------------------------------------------------------------------------

    def create_cluster(self, rayjob: Json) -> None:
        """A RayCluster that the RayJob owns, and its head with a service; those that are there stay."""
        metadata, name = rayjob["metadata"], rayjob["status"]["rayClusterName"]
        namespace = metadata["namespace"]
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": metadata["name"], "uid": metadata["uid"]}
        made = {"name": name, "namespace": namespace, "ownerReferences": [{**owner, "controller": True}]}
        made |= {key: metadata.get(key) or {} for key in ("labels", "annotations")}
        cluster = {"metadata": made, "spec": rayjob["spec"]["rayClusterSpec"]}
        self.create(f"{RAY}/namespaces/{namespace}/rayclusters", "RayCluster", cluster)
        self.create_head(namespace, service(rayjob))
        if service(rayjob) not in self.heads.by_service:
            self.heads.begin(service(rayjob))

    def create_head(self, namespace: str, name: str) -> None:
        """A head's pod and service, by which an API server's proxy finds it: it goes to addresses of pods alone."""
        core, ip = f"{CORE}/namespaces/{namespace}", self.heads_at[0]
        head, port = {"name": name, "namespace": namespace}, {"name": "dashboard", "port": 8265}
        pod = self.create(f"{core}/pods", "Pod", {"metadata": head, "spec": POD})
        if pod.ok:
            running = {**pod.json(), "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}}
            self.ask("PUT", f"{core}/pods/{name}/status", running)
        self.create(f"{core}/services", "Service", {"metadata": head, "spec": {"ports": [port]}})
        address = {"ip": ip, "targetRef": {"kind": "Pod", **head}}
        subset = {"addresses": [address], "ports": [{**port, "port": self.heads_at[1]}]}
        self.create(f"{core}/endpoints", "Endpoints", {"metadata": head, "subsets": [subset]})

    def delete_cluster(self, rayjob: Json) -> None:
        namespace, name = rayjob["metadata"]["namespace"], (rayjob.get("status") or {}).get("rayClusterName")
        if not name or service(rayjob) not in self.heads.by_service:
            return
        self.ask("DELETE", f"{RAY}/namespaces/{namespace}/rayclusters/{name}")
        for plural in ("services", "endpoints", "pods"):
            self.ask("DELETE", f"{CORE}/namespaces/{namespace}/{plural}/{service(rayjob)}")
        jobs = self.heads.end(service(rayjob))
        self.cut_off += [job.submission_id for job in jobs if job.status == "RUNNING" and not job.stop_asked]

    # how -----------------------------------------------------------------------------------------

    def create(self, path: str, kind: str, one: Json) -> requests.Response:
        version = "ray.io/v1" if path.startswith(RAY) else "v1"
        return self.ask("POST", path, {"apiVersion": version, "kind": kind, **one})

    def ask(self, method: str, path: str, body: Json | None = None) -> requests.Response:
        """The answer; what is there already, is gone, or was changed by others is left to the next reconciliation."""
        answer = self.session.request(method, f"{self.address}/{path}", json=body)
        assert answer.ok or answer.status_code in (404, 409), answer.text
        return answer

    def at(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def service(rayjob: Json) -> str:
    """Of the head of a RayJob's cluster."""
    return f"{rayjob['status']['rayClusterName']}-head-svc"


def _path(rayjob: Json) -> str:
    return f"{RAY}/namespaces/{rayjob['metadata']['namespace']}/rayjobs/{rayjob['metadata']['name']}"


def _ttl(spec: Json) -> float:
    return float(spec.get("ttlSecondsAfterFinished") or 0)


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
