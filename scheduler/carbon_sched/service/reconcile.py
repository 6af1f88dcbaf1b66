"""Note what each cluster's own list of jobs shows, so that statements can tell what came past us.

A job is noted once, when it is first seen at its end; ids of others are hashed, since people write names into them.
Drivers that nobody submitted (`ray.init` from a shell) are not in that list.
"""

from __future__ import annotations

import hashlib
import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import ClusterError
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.time import to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.ports import Clock, RayJob, Store
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.lanes import Lanes
    from carbon_sched.service.statements import Statements

log = logging.getLogger(__name__)

EVERY_S = 600.0
OURS = re.compile(r"cs-[0-9a-z]+-a\d+")
"""How attempts are named. One that the ledger does not know was sent by another server, or the ledger lost it."""
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


class Reconcile:
    """One loop over clusters that answer, all asked side by side."""

    def __init__(self, store: Store, fleet: Fleet, statements: Statements, clock: Clock, lanes: Lanes) -> None:
        self._store, self._fleet, self._statements, self._clock = store, fleet, statements, clock
        self._lanes = lanes

    def step(self) -> float:
        """List every usable cluster once; returns the seconds until the next time."""
        usable = [cluster for cluster in self._fleet.all() if self._usable(cluster)]
        self._lanes.run({cluster.name: partial(self._list, cluster) for cluster in usable})
        return EVERY_S

    def _usable(self, cluster: Cluster) -> bool:
        status = self._fleet.status(cluster.name)
        return status is not None and status.usable

    def _list(self, cluster: Cluster) -> None:
        try:
            jobs = self._fleet.client(cluster).jobs()
        except ClusterError as error:
            log.warning("jobs not listed cluster=%s: %s", cluster.name, error)
        else:
            self._note(cluster.name, jobs)

    def _note(self, cluster: str, jobs: Sequence[RayJob]) -> None:
        listings = self._statements.of(
            (), lambda book: [one for one in book.listings if one.cluster == cluster], others=True
        )
        noted = {name for one in listings for name in (*one.ours, *(item["job"] for item in one.others))}
        ended = {job.submission_id: job for job in jobs if job.status in ENDED}
        known = self._statements.look(
            lambda index: {name for name in ended if index.attempts.get(name, (0, ""))[1] == cluster}
        )
        named = known | {name for name in ended if OURS.fullmatch(name)}
        ours, now = sorted(named - noted), self._clock.now()
        others = [_other(job, now) for name, job in ended.items() if name not in named]
        new = [item for item in others if item["job"] not in noted]
        if listings and not ours and not new:
            return
        body = {
            "cluster": cluster,
            "since": to_rfc3339(listings[-1].until) if listings else None,
            "until": to_rfc3339(now),
            "ours": ours,
            "others": new,
        }
        with self._store.transaction() as tx:
            tx.append_fact(Fact(FactKind.CLUSTER_JOBS_LISTED, now, body))


def _other(job: RayJob, now: datetime) -> dict[str, Any]:
    return {
        "job": hashlib.sha256(job.submission_id.encode()).hexdigest()[:16],
        "kind": "SUBMISSION",
        "state": job.status,
        "seen_at": to_rfc3339(now),
        "lasted_us": job.lasted_us,
    }
