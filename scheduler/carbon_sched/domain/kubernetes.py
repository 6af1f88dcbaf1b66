"""Kubernetes as we meet it: clusters on which KubeRay runs RayJobs, and the RayJob that a job of ours is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kubernetes:
    """What makes a `Cluster` a Kubernetes cluster: its address is an API server's, its pools are nodes of Kubernetes.

    RayJobs are looked for in `namespaces` (empty: in all), and made only in those of `create_in`. With `discover`, the
    RayClusters there that carry our label are registered as clusters of their own.
    """

    namespaces: tuple[str, ...] = ()
    create_in: tuple[str, ...] = ()
    discover: bool = False


@dataclass(frozen=True)
class RayJobObject:
    """The RayJob of a job: one that was there (`uid`), or one to be made from a manifest, which is kept encrypted."""

    namespace: str
    name: str
    uid: str = ""
    sealed_manifest: str = ""

    @property
    def ray_id(self) -> str:
        """What the job of a RayJob that was there answers to under Ray's protocol, so that it is taken up once."""
        return f"rayjob-{self.uid}"
