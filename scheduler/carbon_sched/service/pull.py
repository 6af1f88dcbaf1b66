"""Pull energy segments from a cluster's nodes and its journal store: each once, whichever attempts ran there.

Turns of one cluster are taken one after another (its lane); those of different clusters side by side.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import ClusterError, NotFound, StoreError
from carbon_sched.meter_keys import parse_meter_key
from carbon_sched.service.journal import BadJournal, checked, is_segment
from carbon_sched.service.overhead import overhead
from carbon_sched.service.remarks import Findings, of_node, of_record
from carbon_sched.service.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, ClusterClient, DeliveredJournals, Store
    from carbon_sched.service.journal import AttemptRecord, Journals, Segment

CLOCK_SKEW = timedelta(minutes=10)
"""A segment that ends later than this from now was not metered yet."""
NODES_KEPT = 500
"""Per cluster, and as many attempts; of the longest unused is forgotten what was fetched, and it is asked again."""


class Rack:
    """What one cluster's nodes are known to hold, and which of them were looked at in this turn.

    `beyond` maps an attempt's own node to the other nodes of the jobs whose wrappers run there. `pushed` is what nodes
    delivered themselves, whichever they are; `stored` what an attempt's nodes left in the journal store.
    """

    def __init__(self) -> None:
        self.pushed = Shelf(set())
        self.stored: dict[str, Shelf] = {}
        self.arriving: SimpleQueue[Segment] = SimpleQueue()
        self.shelves: dict[str, Shelf] = {}
        self.pulled: set[str] = set()
        self.beyond: dict[str, set[str]] = {}

    def delivered(self, attempt_id: str) -> list[Shelf]:
        """What came from nodes otherwise than by asking them."""
        return [self.pushed, *([self.stored[attempt_id]] if attempt_id in self.stored else [])]

    def delivered_names(self, attempt_id: str) -> list[str]:
        """The names of that."""
        return [name for shelf in self.delivered(attempt_id) for name in shelf.names()]

    def pulled_names(self) -> list[str]:
        """Every segment that was read from a node."""
        return [name for shelf in self.shelves.values() for name in shelf.names()]


class Pull:
    """Fetches and checks; `keep` stores a segment that an attempt's node delivered (BadJournal when it cannot)."""

    def __init__(
        self,
        store: Store,
        journals: Journals,
        folders: DeliveredJournals,
        clock: Clock,
        keep: Callable[[Attempt, Segment], None],
    ) -> None:
        self._store, self._journals, self._folders = store, journals, folders
        self._clock, self._keep = clock, keep
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
        for shelves in (rack.shelves, rack.stored):
            for longest_unused in list(shelves)[:-NODES_KEPT]:
                del shelves[longest_unused]

    def arrived(self, cluster: str, segment: Segment) -> None:
        """A node of the cluster pushed a segment, and it is stored; may be called from any thread."""
        self._racks.setdefault(cluster, Rack()).arriving.put(segment)

    def attempt(self, client: ClusterClient, cluster: Cluster, attempt: Attempt) -> Findings:
        """Pull the attempt's nodes, unless this turn has; for one that has ended, say what is missing and what to know.

        Of one that runs its `gaps` are what its wrapper could not meter so far.

        ClusterError when the cluster gives no answer: what was read before stays read, the journal store too. A node
        of the job beside the wrapper's that gives none (it may be gone) is named as missing.
        """
        unseen = self._from_store(cluster, attempt)
        if not attempt.node_id:
            return Findings([] if attempt.open else ["the node it ran on is not known"])
        shelf = self._node(client, cluster, attempt, attempt.node_id)
        record = self._journals.record(client, attempt, attempt.node_id)
        others = self._others(client, cluster, attempt, record)
        if attempt.open:
            return Findings(gaps=list(record.faults) if record else [])
        rack = self._racks[cluster.name]
        delivered = rack.delivered_names(attempt.attempt_id)
        said = of_record(record, [*shelf.names(), *delivered])
        parts = [unseen, said, shelf.findings(attempt.attempt_id, attempt.opened_at, delivered), *others]
        for one in rack.delivered(attempt.attempt_id):
            elsewhere = [*rack.pulled_names(), *delivered] if one.kept else []
            parts.append(one.findings(attempt.attempt_id, attempt.opened_at, elsewhere))
        missing, notes = [line for p in parts for line in p.missing], [line for p in parts for line in p.notes]
        windows = self._journals.windows(client, attempt, attempt.node_id)
        windows += [window for p in parts for window in p.windows]
        gaps = [line for p in parts for line in p.gaps]
        unread = sum(p.unread for p in parts)
        return Findings(missing, notes, gaps, windows, unread, overhead(attempt, record))

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
            delivered = self._racks[cluster.name].delivered_names(attempt.attempt_id)
            findings += [
                of_node(node, [*shelf.names(), *delivered]),
                shelf.findings(attempt.attempt_id, attempt.opened_at, delivered),
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
            read = partial(self._journals.segment, client, node)
            shelf.pull(names, self._fetch(read, cluster, attempt), self._clock, again=not attempt.open)
            rack.pulled.add(node)
        return shelf

    def _new_shelf(self, attempt: Attempt) -> Shelf:
        """What was stored before the attempt was opened says nothing of it, and is not fetched again."""
        with self._store.transaction(write=False) as tx:
            ids = tx.segment_ids(attempt.cluster, received_before=attempt.opened_at)
        return Shelf({name for one in ids if is_segment(name := one.rpartition("/")[2].partition("#")[0])})

    def _from_store(self, cluster: Cluster, attempt: Attempt) -> Findings:
        """Take what the attempt's nodes left in the journal store; what is missing where that cannot be read."""
        root = cluster.journal_store
        if not root:
            return Findings()
        try:
            names = sorted(filter(is_segment, self._folders.names(root, attempt.attempt_id)))
        except StoreError as error:
            return Findings([str(error)])
        stored = self._racks[cluster.name].stored
        shelf = stored[attempt.attempt_id] = stored.pop(attempt.attempt_id, Shelf(set()))

        def read(name: str) -> bytes:
            try:
                return self._folders.read(root, attempt.attempt_id, name)
            except NotFound as error:
                raise BadJournal(str(error)) from None

        shelf.pull(names, self._fetch(read, cluster, attempt), self._clock, again=not attempt.open)
        return Findings()

    def _fetch(self, read: Callable[[str], bytes], cluster: Cluster, attempt: Attempt) -> Callable[[str], Segment]:
        """How a shelf gets one segment by its name: read, checked, stored."""
        keys = tuple(map(parse_meter_key, cluster.meter_keys))

        def fetch(name: str) -> Segment:
            segment = checked(read(name), name, cluster.name, keys)
            if segment.end > self._clock.now() + CLOCK_SKEW:
                message = "it speaks of a time that has not come"
                raise BadJournal(message)
            self._keep(attempt, segment)
            return segment

        return fetch
