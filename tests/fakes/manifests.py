"""RayJob manifests of tests."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def rayjob(
    name: str = "train", *, namespace: str = "ml", cpus: int = 2, suspend: bool = True, **annotations: str
) -> Json:
    """A RayJob that asks for us; annotations by our names, with _ for -."""
    pod = {"spec": {"containers": [{"name": "ray", "image": "rayproject/ray:2.52.0",
                                    "resources": {"limits": {"cpu": str(cpus), "memory": "2Gi"}}}]}}  # fmt: skip
    worker = {
        "groupName": "w",
        "replicas": 1,
        "minReplicas": 1,
        "maxReplicas": 1,
        "rayStartParams": {},
        "template": pod,
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"carbon-sched/managed": "true"},
            "annotations": {f"carbon-sched/{key.replace('_', '-')}": value for key, value in annotations.items()},
        },
        "spec": {
            "suspend": suspend,
            "shutdownAfterJobFinishes": True,
            "entrypoint": "python train.py",
            "runtimeEnvYAML": "env_vars: {LR: '0.1'}\n",
            "rayClusterSpec": {
                "headGroupSpec": {"rayStartParams": {}, "template": pod},
                "workerGroupSpecs": [worker],
            },
        },
    }
