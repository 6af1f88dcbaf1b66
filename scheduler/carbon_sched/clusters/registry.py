"""All clusters by name, with their clients: the port `Clusters`."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.kubernetes.client import KubernetesCluster
from carbon_sched.clusters.local_client import LocalClient
from carbon_sched.clusters.local_head import LocalRayHead
from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.cluster import LocalHead
from carbon_sched.domain.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.ports import Clock


class RayClusters:
    """Implements `ports.Clusters`; thread-safe. Local heads keep their files below `data_dir/local-heads`."""

    def __init__(self, data_dir: Path, clock: Clock, python: str = sys.executable) -> None:
        """`python` is the interpreter whose environment local heads run in."""
        self._folder = data_dir / "local-heads"
        self._clock = clock
        self._python = python
        self._mutex = threading.Lock()
        self._clients: dict[str, tuple[Cluster, RayClient | KubernetesCluster]] = {}
        self._heads: dict[str, LocalRayHead] = {}

    def kubernetes(self, cluster: Cluster) -> KubernetesCluster:
        """The cached client of a Kubernetes cluster."""
        client = self.client(cluster)
        if not isinstance(client, KubernetesCluster):
            message = f"{cluster.name} is no Kubernetes cluster"
            raise TypeError(message)
        return client

    def client(self, cluster: Cluster) -> RayClient | KubernetesCluster:
        """The cached client of a cluster; a changed cluster gets a new one. Starts or adopts a local head.

        A head that cannot be started is told by the client: `status().problem`, ClusterUnreachable by all others. A
        head that dies later is started again at the next call of any kind.
        """
        with self._mutex:
            known = self._clients.get(cluster.name)
            if known is None or known[0] != cluster:
                if known is not None:
                    known[1].close()
                known = self._clients[cluster.name] = (cluster, self._new_client(cluster))
        if cluster.local is not None:
            head = self._head(cluster.name, cluster.local)
            head.wanted = cluster.local  # for its next start; one that runs is not disturbed
            with contextlib.suppress(ClusterError):  # the client's first call says it
                head.endpoint()
        return known[1]

    def forget(self, name: str) -> None:
        """Drop the cached client; a local head that runs is left running."""
        with self._mutex:
            _, client = self._clients.pop(name, (None, None))
            self._heads.pop(name, None)
        if client is not None:
            client.close()

    def stop_local(self, name: str) -> None:
        """End a local head that we own; no-op when it is gone. It starts again only after `forget`."""
        self._head(name, LocalHead()).stop()

    def _new_client(self, cluster: Cluster) -> RayClient | KubernetesCluster:
        if cluster.kubernetes is not None:
            return KubernetesCluster(cluster, self._clock)
        if cluster.local is not None:
            return LocalClient(self._head(cluster.name, cluster.local), self._clock)
        fixed = Endpoint(
            cluster.name,
            cluster.address,
            cluster.token,
            cluster.ca_file,
            cluster.headers,
            cluster.allow_plain_http_token,
        )
        return RayClient(cluster.name, lambda: fixed, self._clock)

    def _head(self, name: str, wanted: LocalHead) -> LocalRayHead:
        folder = self._folder / quote(name, safe="").replace(".", "%2E")
        return self._heads.setdefault(name, LocalRayHead(name, folder, wanted, self._clock, self._python))
