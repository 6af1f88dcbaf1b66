"""Configured clusters in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, func, insert, select, true, update

from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.store.codec import cluster_from_json, cluster_to_json
from carbon_sched.store.tables import OPEN, attempts, clusters, policies

if TYPE_CHECKING:
    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.store.session import Session

_ALL = select(clusters.c.document).order_by(clusters.c.id)
_LAST_POLICY = select(func.max(policies.c.version).label("version")).subquery()
_RULES = (
    select(_LAST_POLICY.c.version, clusters.c.name)
    .select_from(_LAST_POLICY.outerjoin(clusters, true()))
    .order_by(clusters.c.id)
)
_REPLACE = update(clusters).where(clusters.c.name == bindparam("its_name")).values(document=bindparam("document"))
_REMOVE = delete(clusters).where(clusters.c.name == bindparam("its_name"))
_OPEN_THERE = select(attempts.c.attempt_id).where(OPEN, attempts.c.cluster == bindparam("cluster"))


class ClusterRows:
    """The part of `ports.Transaction` about clusters."""

    _db: Session

    def put_cluster(self, cluster: Cluster) -> None:
        """Insert or replace by name; a replaced one keeps its place in the order."""
        document = cluster_to_json(cluster)
        if self._db.write(_REPLACE, {"its_name": cluster.name, "document": document}) == 0:
            self._db.write(insert(clusters), {"name": cluster.name, "document": document})

    def remove_cluster(self, name: str) -> None:
        """NotFound where there is none, Conflict while it has open attempts."""
        attempt = self._db.first(_OPEN_THERE, {"cluster": name})
        if attempt is not None:
            raise Conflict(
                f"cluster {name} has the open attempt {attempt.attempt_id}. Stop its job, or wait for its end"
            )
        if self._db.write(_REMOVE, {"its_name": name}) == 0:
            raise NotFound(f"there is no cluster {name!r}. `carbon-sched clusters list` shows those there are")

    def clusters(self) -> list[Cluster]:
        """By order of first insertion."""
        return [cluster_from_json(row.document) for row in self._db.rows(_ALL)]

    def rules(self) -> tuple[int, tuple[str, ...]]:
        """By one look, since every turn to store submissions begins with it."""
        rows = self._db.rows(_RULES)
        return rows[0].version or 0, tuple(row.name for row in rows if row.name is not None)
