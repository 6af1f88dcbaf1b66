"""Pull energy segments from the nodes of a cluster: each once, whichever attempts ran there.

Turns of one cluster are taken one after another (its lane); those of different clusters side by side.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import ClusterError
from carbon_sched.meter_keys import parse_meter_key
from carbon_sched.service.journal import BadJournal, is_segment
from carbon_sched.service.remarks import Findings, of_node, of_record
from carbon_sched.service.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Attempt
    from carbon_sched.meter_keys import MeterKey
    from carbon_sched.ports import Clock, ClusterClient, Store
    from carbon_sched.service.journal import AttemptRecord, Journals, Segment

CLOCK_SKEW = timedelta(minutes=10)
"""A segment that ends later than this from now was not metered yet."""
NODES_KEPT = 500
"""Per cluster; of the longest unused is forgotten what was fetched, and the store is asked again."""


class Rack:
    """What one cluster's nodes are known to hold, and which of them were looked at in this turn.

    `beyond` maps an attempt's own node to the other nodes of the jobs whose wrappers run there. `pushed` is what nodes
    delivered themselves, whichever they are.
    """

    def __init__(self) -> None:
        self.pushed = Shelf(set())
        self.arriving: SimpleQueue[Segment] = SimpleQueue()
        self.shelves: dict[str, Shelf] = {}
        self.pulled: set[str] = set()
        self.beyond: dict[str, set[str]] = {}

    def pulled_names(self) -> list[str]:
        """Every segment that was read from a node; nothing is looked for where no node pushes."""
        return [name for shelf in self.shelves.values() for name in shelf.names()] if self.pushed.kept else []


class Pull:
    """Fetches and checks; `keep` stores a segment that an attempt's node delivered (BadJournal when it cannot)."""

    def __init__(
        self, store: Store, journals: Journals, clock: Clock, keep: Callable[[Attempt, Segment], None]
    ) -> None:
        self._store, self._journals, self._clock, self._keep = store, journals, clock, keep
        self._racks: dict[str, Rack] = {}

    def begin(self, cluster: str, waiting: Collection[str]) -> None:
        """Begin a turn of a cluster; `waiting` are the nodes of attempts whose energy is still to come."""
        rack = self._racks.setdefault(cluster, Rack())
        rack.pulled.clear()
        while not rack.arriving.empty():
            rack.pushed.keep(rack.arriving.get())
        if not waiting:
            rack.pushed.forget()
        rack.beyond = {node: others for node, others in rack.beyond.items() if node in waiting}
        waited_for = set(waiting).union(*rack.beyond.values())
        for node, shelf in rack.shelves.items():
            if node not in waited_for:
                shelf.forget()
        for node in list(rack.shelves)[:-NODES_KEPT]:
            del rack.shelves[node]

    def arrived(self, cluster: str, segment: Segment) -> None:
        """A node of the cluster pushed a segment, and it is stored; may be called from any thread."""
        self._racks.setdefault(cluster, Rack()).arriving.put(segment)

    def attempt(self, client: ClusterClient, cluster: Cluster, attempt: Attempt) -> Findings:
        """Pull the attempt's nodes, unless this turn has; for one that has ended, say what is missing and what to know.

        Of one that runs its `gaps` are what its wrapper could not meter so far.

        ClusterError when the cluster gives no answer: what was read before stays read. A node of the job beside the
        wrapper's that gives none (it may be gone) is named as missing.
        """
        if not attempt.node_id:
            return Findings([] if attempt.open else ["the node it ran on is not known"])
        shelf = self._node(client, cluster, attempt, attempt.node_id)
        record = self._journals.record(client, attempt, attempt.node_id)
        others = self._others(client, cluster, attempt, record)
        if attempt.open:
            return Findings(gaps=list(record.faults) if record else [])
        rack = self._racks[cluster.name]
        said = of_record(record, [*shelf.names(), *rack.pushed.names()])
        found = shelf.findings(attempt.attempt_id, attempt.opened_at, rack.pushed.names())
        pushed = rack.pushed.findings(attempt.attempt_id, attempt.opened_at, rack.pulled_names())
        parts = [said, found, pushed, *others]
        missing, notes = [line for p in parts for line in p.missing], [line for p in parts for line in p.notes]
        windows = self._journals.windows(client, attempt, attempt.node_id)
        windows += [window for p in parts for window in p.windows]
        gaps = [line for p in parts for line in p.gaps]
        return Findings(missing, notes, gaps, windows, sum(p.unread for p in parts))

    def _others(
        self, client: ClusterClient, cluster: Cluster, attempt: Attempt, record: AttemptRecord | None
    ) -> list[Findings]:
        """The job's other nodes, as its wrapper names them."""
        findings, nodes = [], record.nodes if record else ()
        self._racks[cluster.name].beyond.setdefault(attempt.node_id, set()).update(node.node_id for node in nodes)
        for node in nodes:
            try:
                shelf = self._node(client, cluster, attempt, node.node_id)
            except ClusterError as error:
                findings.append(
                    Findings([f"the energy journal of node {node.node_id[:12]} could not be read: {error}"])
                )
                continue
            pushed = self._racks[cluster.name].pushed.names()
            findings += [
                of_node(node, [*shelf.names(), *pushed]),
                shelf.findings(attempt.attempt_id, attempt.opened_at, pushed),
            ]
            if not attempt.open:
                findings.append(Findings(windows=self._journals.windows(client, attempt, node.node_id)))
        return findings

    def _node(self, client: ClusterClient, cluster: Cluster, attempt: Attempt, node: str) -> Shelf:
        """What a node holds, with what is new there fetched once in this turn."""
        rack = self._racks.setdefault(cluster.name, Rack())
        shelf = rack.shelves.pop(node, None) or self._new_shelf(attempt)
        rack.shelves[node] = shelf
        if node not in rack.pulled:
            names = self._journals.segment_names(client, node)
            keys = tuple(map(parse_meter_key, cluster.meter_keys))
            fetch = partial(self._fetch, client, cluster, keys, attempt, node)
            shelf.pull(names, fetch, self._clock, again=not attempt.open)
            rack.pulled.add(node)
        return shelf

    def _new_shelf(self, attempt: Attempt) -> Shelf:
        """What was stored before the attempt was opened says nothing of it, and is not fetched again."""
        with self._store.transaction(write=False) as tx:
            ids = tx.segment_ids(attempt.cluster, received_before=attempt.opened_at)
        return Shelf({name for one in ids if is_segment(name := one.rpartition("/")[2].partition("#")[0])})

    def _fetch(
        self, client: ClusterClient, cluster: Cluster, keys: Sequence[MeterKey], attempt: Attempt, node: str, name: str
    ) -> Segment:
        segment = self._journals.segment(client, cluster, node, name, keys)
        if segment.end > self._clock.now() + CLOCK_SKEW:
            message = "it speaks of a time that has not come"
            raise BadJournal(message)
        self._keep(attempt, segment)
        return segment
