"""Jobs that run but wait for nodes which do not come: stopped after a time, and queued again.

On an on-demand pool a submission is the request for nodes. Where the provider has none, the driver waits in its
placement group for ever, and holds the nodes it has.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.errors import ClusterError
from carbon_sched.service.recall import recall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, Store
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.lanes import Lanes
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

LOOK_S = 30.0
GRACE_S = 300.0


class Stuck:
    """Asks clusters with on-demand pools whether jobs of ours wait for room there."""

    def __init__(self, store: Store, fleet: Fleet, clock: Clock, signals: Signals, lanes: Lanes) -> None:
        self._store, self._fleet, self._lanes = store, fleet, lanes
        self._clock, self._signals = clock, signals
        self._since: dict[str, float] = {}

    def step(self) -> float:
        """Look once at every such cluster, side by side; returns the seconds until the next look."""
        with self._store.transaction(write=False) as tx:
            running = [one for one in tx.attempts(open_only=True) if one.started_at and not one.recalled]
            clusters = [cluster for cluster in tx.clusters() if patience_s(cluster) is not None]
        there = [(cluster, [one for one in running if one.cluster == cluster.name]) for cluster in clusters]
        self._lanes.run({cluster.name: partial(self._look, cluster, mine) for cluster, mine in there if mine})
        open_ids = {attempt.attempt_id for attempt in running}
        self._since = {name: since for name, since in self._since.items() if name in open_ids}
        return LOOK_S

    def _look(self, cluster: Cluster, attempts: Sequence[Attempt]) -> None:
        try:
            waiting = self._fleet.client(cluster).waiting_for_room()
        except ClusterError as error:
            log.warning("cluster does not tell who waits for room cluster=%s: %s", cluster.name, error)
            waiting = set()  # not known to wait without a break: the time begins anew
        now = self._clock.monotonic()
        for attempt in attempts:
            if attempt.attempt_id not in waiting:
                self._since.pop(attempt.attempt_id, None)
                continue
            waited_s = now - self._since.setdefault(attempt.attempt_id, now)
            if waited_s >= (patience_s(cluster) or 0.0):
                self._recall(cluster, attempt, waited_s)

    def _recall(self, cluster: Cluster, attempt: Attempt, waited_s: float) -> None:
        reason = f"{cluster.name} had no room for its placement group within {waited_s / 60:.0f} minutes"
        with self._store.transaction() as tx:
            recalled = recall(tx, tx.attempt(attempt.attempt_id), Cause.STUCK, reason)
        if recalled:
            log.warning("stuck attempt recalled attempt=%s: %s", attempt.attempt_id, reason)
            self._signals.dispatch.set()
            self._signals.job_changed()


def patience_s(cluster: Cluster) -> float | None:
    """Twice the time that nodes of its on-demand pools take to come, and five minutes; None where it has no such pool.

    On pools that are always there, what waits for room waits for other jobs to end.
    """
    times = [pool.provisioning_s for pool in cluster.pools if pool.node_lifetime == "on-demand"]
    return 2 * max(times) + GRACE_S if times else None
