"""kill -9 at a chosen moment, inside one process: a fuse that blows at the n-th commit or call of a cluster.

From then on everything that would leave the process raises too, as if it were not there any more; the test goes on with
a new server over the same database and the same clusters.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.ports import ClusterClient, Clusters, Store, Transaction


class Killed(BaseException):
    """The process is no more; no `except Exception` survives it."""


class Fuse:
    """Counts moments by name; blows at the moment with number `at`, counted from 1 (None: never)."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.blown = at, False
        self.doing = ""
        self.moments: list[str] = []

    def check(self) -> None:
        if self.blown:
            raise Killed

    def moment(self, name: str) -> None:
        self.check()
        self.moments.append(f"{self.doing}: {name}")
        if len(self.moments) == self.at:
            self.blown = True
            raise Killed


class FusedStore:
    """A store whose process may die before and after each commit that changes something."""

    def __init__(self, store: Store, fuse: Fuse) -> None:
        self._store, self._fuse = store, fuse

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Transaction]:
        self._fuse.check()
        with self._store.transaction(write=write) as tx:
            watched = WatchedTransaction(tx)
            yield watched  # type: ignore[misc]
            what = ", ".join(watched.changes)
            if what:
                self._fuse.moment(f"before commit of {what}")
        if what:
            self._fuse.moment(f"after commit of {what}")

    def close(self) -> None:
        self._store.close()


class WatchedTransaction:
    """A transaction that keeps the names of what it was asked to change, each once, in order."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self.changes: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._transaction, name)
        if name not in CHANGES:
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            answer = method(*arguments, **options)
            if answer != []:  # nothing was there to claim
                self.changes[name] = None
            return answer

        return call


CHANGES = frozenset({
    "add_job", "add_jobs", "move_job", "amend_job", "tell_waiting", "put_decisions", "add_attempt", "put_attempt",
    "enqueue", "claim_outbox", "finish_outbox", "delay_outbox", "release_outbox", "put_cluster", "remove_cluster",
    "add_segment", "add_readings", "append_fact", "append_facts", "take_lease", "advance_schedule",
})  # fmt: skip


class FusedClusters:
    """Clusters whose caller may die before and after each call."""

    def __init__(self, clusters: Clusters, fuse: Fuse) -> None:
        self._clusters, self._fuse = clusters, fuse

    def client(self, cluster: Cluster) -> FusedClient:
        return FusedClient(self._clusters.client(cluster), self._fuse)

    def kubernetes(self, cluster: Cluster) -> FusedClient:
        return FusedClient(self._clusters.kubernetes(cluster), self._fuse)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clusters, name)


class FusedClient:
    """One cluster's client."""

    def __init__(self, client: ClusterClient, fuse: Fuse) -> None:
        self._client, self._fuse = client, fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._fuse.moment(f"before {name}")
            answer = method(*arguments, **options)
            self._fuse.moment(f"after {name}")
            return answer

        return call
