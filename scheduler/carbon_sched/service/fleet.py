"""The clusters: registered ones, the embedded default, and what each said when last asked."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from carbon_sched.domain.cluster import DEFAULT_PUE_PPM, DEFAULT_PUE_SOURCE, Cluster, ClusterStatus, LocalHead, Pue
from carbon_sched.domain.errors import ClusterError, NotFound
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.service.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.ports import Clock, ClusterClient, Clusters, Store
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

UNKNOWN_ZONE = "WORLD"
POLL_S = 5.0
STARTING_POLL_S = 0.5
STARTING = "its Ray head on this machine is starting"
"""Of one that was never up since this server started, and has an address: it is no trouble yet."""
MAX_BACKOFF_S = 60.0
FIRST_ANSWER_S = 10.0
"""A plan waits this long for clusters that were never asked; those that hang longer are left out of it."""
CLOSE_S = 1.0


def embedded_default() -> Cluster:
    """The local Ray head used when nobody configured a cluster: world-average intensity, industry-average PUE."""
    pue = Pue(DEFAULT_PUE_PPM, "2025", DEFAULT_PUE_SOURCE)
    return Cluster(name="local", zone=UNKNOWN_ZONE, pue=pue, local=LocalHead(), home=True)


class Fleet:
    """Registered clusters and their last statuses; polling them is one loop's step."""

    def __init__(
        self,
        store: Store,
        clusters: Clusters,
        clock: Clock,
        signals: Signals,
        hosts_local: Callable[[], bool] = lambda: True,
    ) -> None:
        """Local heads run on the machine of the server for which `hosts_local` is true, and only that one asks them."""
        self._hosts_local = hosts_local
        self._store, self._clusters, self._clock, self._signals = store, clusters, clock, signals
        self._lock = threading.Lock()
        self._statuses: dict[str, ClusterStatus] = {}
        self._seen: set[str] = set()
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._awaited: set[str] = set()
        self._lanes = Lanes("poll")

    # configuration -------------------------------------------------------------------------------

    def all(self) -> list[Cluster]:
        """Every registered cluster, in order of registration."""
        with self._store.transaction(write=False) as tx:
            return tx.clusters()

    def zones(self) -> list[str]:
        """The grid zones of all clusters, each once."""
        return list(dict.fromkeys(cluster.zone for cluster in self.all()))

    def get(self, name: str) -> Cluster:
        """One cluster, or NotFound."""
        return self._named(self.all(), name)

    def _named(self, clusters: list[Cluster], name: str) -> Cluster:
        for cluster in clusters:
            if cluster.name == name:
                return cluster
        message = f"no cluster is called {name!r}; `carbon-sched clusters list` shows those there are"
        raise NotFound(message)

    def ensure_any(self) -> list[Cluster]:
        """The clusters; registers the embedded default when there is none."""
        registered = self.all()  # a reader: every submission asks, and must not wait for its turn to write
        if not registered:
            self.put(embedded_default())
        return registered or self.all()

    def put(self, cluster: Cluster) -> None:
        """Register or replace a cluster; its zone and PUE go to the ledger."""
        body = {
            "name": cluster.name,
            "zone": cluster.zone,
            "pue_ppm": cluster.pue.ppm,
            "pue_period": cluster.pue.period,
            "pue_source": cluster.pue.source,
            "local": cluster.local is not None,
            "home": cluster.home,
            "residency": list(cluster.residency),
            "meter_keys": list(cluster.meter_keys),
        }
        with self._store.transaction() as tx:
            for other in tx.clusters():
                if cluster.home and other.home and other.name != cluster.name:
                    tx.put_cluster(replace(other, home=False))
            tx.put_cluster(cluster)
            tx.append_fact(Fact(FactKind.CLUSTER_REGISTERED, self._clock.now(), body))
        self._clusters.forget(cluster.name)
        with self._lock:
            self._due.pop(cluster.name, None)
        self._signals.poll.set()
        self._signals.zones_changed()

    def cordon(self, name: str, *, cordoned: bool) -> None:
        """Give the cluster no new jobs, or give it some again; those that are there go on."""
        with self._store.transaction() as tx:
            tx.put_cluster(replace(self._named(tx.clusters(), name), cordoned=cordoned))
        log.info("cluster cordoned=%s cluster=%s", cordoned, name)
        self._signals.decide.set()

    def remove(self, name: str) -> None:
        """Forget a cluster; Conflict while jobs are open there. A local head of ours is ended."""
        cluster = self.get(name)
        with self._store.transaction() as tx:
            tx.remove_cluster(name)
            tx.append_fact(Fact(FactKind.CLUSTER_REMOVED, self._clock.now(), {"name": name}))
        if cluster.local is not None:
            self._clusters.stop_local(name)
        self._clusters.forget(name)
        with self._lock:
            self._statuses.pop(name, None)

    def stop_local(self, name: str) -> None:
        """End the local head of this cluster, if it runs."""
        self._clusters.stop_local(name)

    # what they say -------------------------------------------------------------------------------

    def client(self, cluster: Cluster) -> ClusterClient:
        """The client of a cluster; raises ClusterError when a local head cannot be started."""
        return self._clusters.client(cluster)

    def status(self, name: str) -> ClusterStatus | None:
        """What the cluster said when last asked; None before the first answer."""
        with self._lock:
            return self._statuses.get(name)

    def statuses(self) -> dict[str, ClusterStatus]:
        """What every cluster said that was asked, by name."""
        with self._lock:
            return dict(self._statuses)

    def mark_unusable(self, cluster: Cluster, problem: str) -> None:
        """Note that a call just failed, so that the next plan does not send jobs there before it answered again."""
        self._keep(cluster, ClusterStatus(cluster.name, self._clock.now(), cluster.address, problem=problem))

    def poll(self, cluster: Cluster) -> ClusterStatus:
        """Ask one cluster now and remember the answer."""
        try:
            status = self._clusters.client(cluster).status()
        except ClusterError as error:
            status = ClusterStatus(cluster.name, self._clock.now(), cluster.address, problem=str(error))
        self._keep(cluster, status)
        return status

    def poll_due(self) -> None:
        """Ask every cluster whose time has come, side by side; one that keeps failing is asked less often."""
        now = self._clock.monotonic()
        due = [cluster for cluster in self._asked() if self._due.get(cluster.name, 0.0) <= now]
        self._lanes.run({cluster.name: partial(self.poll, cluster) for cluster in due})

    def ask_unknown(self) -> bool:
        """Ask those that never answered yet, side by side; whether there were any. Each is waited for once."""
        with self._lock:
            known = set(self._statuses)
        unknown = {cluster.name: cluster for cluster in self._asked() if cluster.name not in known}
        self._lanes.run({name: partial(self.poll, cluster) for name, cluster in unknown.items()})
        self._lanes.drain(FIRST_ANSWER_S, unknown.keys() - self._awaited)
        self._awaited.update(unknown)
        return bool(unknown)

    def _asked(self) -> list[Cluster]:
        hosted = self._hosts_local()
        return [cluster for cluster in self.all() if hosted or cluster.local is None]

    def close(self) -> None:
        """Let the polls under way end, for a moment."""
        self._lanes.drain(CLOSE_S)

    def _keep(self, cluster: Cluster, status: ClusterStatus) -> None:
        with self._lock:
            if status.usable:
                self._seen.add(cluster.name)
            elif cluster.local is not None and status.address and cluster.name not in self._seen:
                status = replace(status, problem=STARTING)
            before = self._statuses.get(status.name)
            self._statuses[status.name] = status
            failures = 0 if status.usable else self._failures.get(status.name, 0) + 1
            self._failures[status.name] = failures
            self._due[status.name] = self._clock.monotonic() + _pause_s(cluster, failures)
        if before is None or before.problem != status.problem:
            log.info("cluster status cluster=%s problem=%s nodes=%d", status.name, status.problem, len(status.nodes))
        if before is None or _capacity(before) != _capacity(status):
            self._signals.decide.set()


def _pause_s(cluster: Cluster, failures: int) -> float:
    """Until the next poll: longer and longer for one that fails, soon again for our own head that is starting."""
    if failures and cluster.local is not None:
        return STARTING_POLL_S
    return min(MAX_BACKOFF_S, POLL_S * 2.0 ** max(0, failures - 1))


def _capacity(status: ClusterStatus) -> object:
    """What a plan could see change: usability and free resources per node."""
    return status.problem, [(node.node_id, dict(node.resources), dict(node.used or {})) for node in status.nodes]
