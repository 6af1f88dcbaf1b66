"""Read what the wrapper and the meter wrote beside a job: records of the attempt and energy segments of the machine.

Everything here was written by the job's own user and may be hostile: only names we derive are fetched, sizes are
capped, and `carbon_sched_runtime.wire` checks every byte.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import EnergySpan, Reporter, SourceClass, Window
from carbon_sched.domain.errors import ClusterRefused
from carbon_sched.domain.time import EPOCH
from carbon_sched.service.remarks import Remark, remark
from carbon_sched_runtime import wire
from carbon_sched_runtime.batch_file import LIMIT as BATCH_LIMIT
from carbon_sched_runtime.batch_file import batch_name, parse_batch
from carbon_sched_runtime.request_counts import LIMIT as COUNTS_LIMIT
from carbon_sched_runtime.request_counts import counts_name, parse_counts
from carbon_sched_runtime.window_file import LIMIT, parse_windows, windows_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.job import Attempt
    from carbon_sched.meter_keys import MeterKey
    from carbon_sched.ports import ClusterClient
    from carbon_sched_runtime.batch_file import BatchState
    from carbon_sched_runtime.request_counts import Counts
    from carbon_sched_runtime.window_file import WindowRecord

NODES = 256
"""So many nodes of one attempt are asked for segments: a job writes its record, and could name any number."""
COMPARED_US = 20_000_000
"""Over less a step of the counter, and power between two looks, weigh too much."""
TOLERATED = 0.10
REPLICAS = 256
"""So many replicas of one service on a node are asked for what they answered."""
SEGMENT_PATTERN = "carbon-sched-*.seg"


class BadJournal(Exception):
    """Evidence that cannot be accepted; the message says why, in words for the receipt."""


@dataclass(frozen=True)
class NodeJournal:
    """What the wrapper says of another node of its job; `segments` and `journal` as in `AttemptRecord` once closed."""

    node_id: str
    closed: bool = False
    segments: int = 0
    journal: str = ""


@dataclass(frozen=True)
class AttemptRecord:
    """The wrapper's own account of an attempt; times are seconds since the epoch, on the node's clock.

    `fenced`: it came too late and ran nothing. `complete`: it says that all its energy segments are written, and
    `segments` how many, `journal` which (as `wire.Event` says it), `remark` what a reader of the figures should know,
    `nodes` the other nodes on which the job had workers. Of a suspension: when a resumed run had its state back
    (`resumed`), when the stop came (`stopping`), and when the state was last saved by then (`saved`).
    """

    started: float | None
    ended: float | None
    exit_code: int | None
    fenced: bool
    complete: bool
    segments: int
    faults: tuple[str, ...]
    remark: str = ""
    journal: str = ""
    nodes: tuple[NodeJournal, ...] = ()
    resumed: float | None = None
    stopping: float | None = None
    saved: float | None = None


@dataclass(frozen=True)
class Segment:
    """One verified energy segment of a machine.

    `key_id` names the key that signed it: one of this cluster's meters (then `reporter` is independent), or one that we
    do not know; empty for what wrappers write. `kinds` are the kinds of devices it speaks of. `compared_uj`: what the
    counters of devices whose power was read beside them say, and the integral of that power; None without any.
    """

    name: str
    sha256: str
    spans: tuple[EnergySpan, ...]
    machine: str
    start: datetime
    end: datetime
    kinds: tuple[str, ...]
    reporter: Reporter = Reporter.SELF_REPORTED
    key_id: str = ""
    remarks: tuple[Remark, ...] = ()
    compared_uj: tuple[int, int] | None = None

    @property
    def independent(self) -> bool:
        """Whether a machine meter of this cluster vouches for it."""
        return self.reporter is Reporter.INDEPENDENT

    @property
    def identity(self) -> str:
        """What it is booked under: nobody can take a signed segment's place with an unsigned one of its name."""
        return f"{self.name}#{self.key_id}" if self.key_id else self.name

    @property
    def owners(self) -> frozenset[str]:
        """Everybody who has energy in it."""
        return frozenset(span.owner for span in self.spans)


class Journals:
    """Fetches through the cluster's own log API (design section 6); holds no state."""

    def record(self, client: ClusterClient, attempt: Attempt, node_id: str) -> AttemptRecord | None:
        """The attempt's record, None while there is none."""
        name = wire.record_name(attempt.attempt_id)
        if not node_id or name not in client.list_files(node_id, name):
            return None
        try:
            data = client.read_file(node_id, name, limit=wire.RECORD_LIMIT)
        except ClusterRefused as error:
            # It is there and is not what a wrapper writes: a job may fill, link or replace it.
            return _unreadable(f"the record is not read: {error}")
        return _attempt_record(wire.parse_record(data, attempt.attempt_id))

    def windows(self, client: ClusterClient, attempt: Attempt, node_id: str) -> list[Window]:
        """What the attempt's code on a node named, in the order it ended there; what cannot be read is left out.

        They cut no energy and add none: the figures of a window are those of the attempt over its time.
        """
        name = windows_name(attempt.attempt_id)
        if name not in client.list_files(node_id, name):
            return []
        try:
            found = parse_windows(client.read_file(node_id, name, limit=LIMIT), attempt.attempt_id)
        except (ClusterRefused, wire.WireError):
            return []
        return [_window(one) for one in found.windows]

    def batch(self, client: ClusterClient, attempt: Attempt, node_id: str) -> BatchState | None:
        """How far the attempt's batch has come, by its own word; None where it tells none, or none that can be read."""
        name = batch_name(attempt.attempt_id)
        if name not in client.list_files(node_id, name):
            return None
        try:
            return parse_batch(client.read_file(node_id, name, limit=BATCH_LIMIT), attempt.attempt_id)
        except (ClusterRefused, wire.WireError):
            return None

    def requests(self, client: ClusterClient, attempt: Attempt, node_id: str) -> dict[str, Counts]:
        """What each replica of the attempt's service on a node answered so far; what cannot be read is left out."""
        found = {}
        for name in client.list_files(node_id, counts_name(attempt.attempt_id, "*"))[:REPLICAS]:
            try:
                told = parse_counts(client.read_file(node_id, name, limit=COUNTS_LIMIT), attempt.attempt_id)
            except (ClusterRefused, wire.WireError):
                continue
            if name == counts_name(attempt.attempt_id, told.replica):
                found[told.replica] = told.counts
        return found

    def segment_names(self, client: ClusterClient, node_id: str) -> list[str]:
        """Names of the segments in the node's session; names that are not ours are passed over."""
        return sorted(name for name in client.list_files(node_id, SEGMENT_PATTERN) if is_segment(name))

    def segment(self, client: ClusterClient, node_id: str, name: str) -> bytes:
        """A segment as it lies there; BadJournal when the cluster will not give it, ClusterError when it is unclear."""
        try:
            return client.read_file(node_id, name, limit=wire.SEGMENT_LIMIT)
        except ClusterRefused as error:
            raise BadJournal(str(error)) from error


def checked(data: bytes, name: str, cluster: str, keys: Sequence[MeterKey]) -> Segment:
    """A segment's bytes as energy spans of a cluster; independent where one of the `keys` of its meters signed it.

    Raises BadJournal when it is torn, altered, implausible, or not signed by the key it names.
    """
    try:
        segment = wire.parse_segment(data, name)
    except wire.WireError as error:
        raise BadJournal(str(error)) from error
    reporter = _reporter(segment.signature, keys)
    digest = hashlib.sha256(data).hexdigest()
    spans = tuple(_span(segment, row, cluster, digest, reporter) for row in segment.rows)
    return Segment(
        name,
        digest,
        spans,
        machine=segment.machine,
        start=_instant(segment.start_us),
        end=_instant(segment.end_us),
        kinds=tuple(sorted({device.kind for device in segment.devices.values()})),
        reporter=reporter,
        key_id=segment.signature.key_id if segment.signature else "",
        remarks=(*(remark(note) for note in segment.notes), *_doubts(segment)),
        compared_uj=_compared_uj(segment),
    )


def _compared_uj(segment: wire.Segment) -> tuple[int, int] | None:
    pairs = [
        (span.last_uj - span.first_uj, span.integral_uj)
        for span in segment.spans
        if span.source == wire.COUNTER and span.integral_uj is not None
    ]
    return (sum(counter for counter, _ in pairs), sum(integral for _, integral in pairs)) if pairs else None


def _doubts(segment: wire.Segment) -> list[Remark]:
    """Devices whose counter and power, read side by side, say different things over long enough a time."""
    return [
        Remark("counter-disagrees", span.device)
        for span in segment.spans
        if span.source == wire.COUNTER and span.integral_uj and span.end_us - span.start_us >= COMPARED_US
        if abs(span.last_uj - span.first_uj - span.integral_uj) > TOLERATED * span.integral_uj
    ]


def _reporter(signature: wire.Signature | None, keys: Sequence[MeterKey]) -> Reporter:
    """Whose word it is. A signature by a key that nobody vouches for proves nothing, and harms nothing."""
    key = next((key for key in keys if signature and key.key_id == signature.key_id), None)
    if signature is None or key is None:
        return Reporter.SELF_REPORTED
    if not key.made(signature):
        message = f"it is not signed by the key it names ({signature.key_id}): it was altered or forged"
        raise BadJournal(message)
    return Reporter.INDEPENDENT


def is_segment(name: str) -> bool:
    """Whether a reader's segment can have this name."""
    try:
        wire.parse_segment_name(name)
    except wire.WireError:
        return False
    return True


def _attempt_record(record: wire.Record) -> AttemptRecord:
    started, ended, closed = record.last("spawned"), record.last("ended"), record.last("closed")
    refused = record.last("refused")
    faults = [event.reason or "metering failed" for event in record.events if event.event == "fault"]
    return AttemptRecord(
        started=_seconds(started),
        ended=_seconds(ended),
        exit_code=ended.exit_code if ended else None,
        fenced=refused is not None and started is None,
        complete=closed is not None,
        segments=(closed.segments or 0) if closed else 0,
        faults=(*faults, *record.problems),
        remark=(closed.reason or "") if closed else "",
        journal=(closed.journal or "") if closed else "",
        nodes=_nodes(record),
        resumed=_seconds(record.last("resumed")),
        stopping=_seconds(record.last("stopping")),
        saved=_seconds(record.last("saved")),
    )


def _nodes(record: wire.Record) -> tuple[NodeJournal, ...]:
    """Each other node once, by what was said last: an actor leaves a node whose workers left, and may come again."""
    found: dict[str, NodeJournal] = {}
    for event in record.events:
        if event.node_id is None or event.event not in ("node", "node-closed"):
            continue
        earlier = found.get(event.node_id, NodeJournal(event.node_id))
        if event.event == "node":
            found[event.node_id] = replace(earlier, closed=False)
        else:
            journal = ",".join(part for part in (earlier.journal, event.journal) if part)
            segments = earlier.segments + (event.segments or 0)
            found[event.node_id] = NodeJournal(event.node_id, closed=True, segments=segments, journal=journal)
    return tuple(found.values())[:NODES]


def _unreadable(reason: str) -> AttemptRecord:
    return AttemptRecord(None, None, None, fenced=False, complete=False, segments=0, faults=(reason,))


def _seconds(event: wire.Event | None) -> float | None:
    return None if event is None else event.time_us / 1e6


def _span(segment: wire.Segment, row: wire.Row, cluster: str, digest: str, reporter: Reporter) -> EnergySpan:
    device = segment.devices[row.device]
    return EnergySpan(
        owner=row.owner,
        cluster=cluster,
        machine=segment.machine,
        device=row.device,
        device_kind=device.kind,
        start=_instant(row.start_us),
        end=_instant(row.end_us),
        energy_uj=row.energy_uj,
        source=SourceClass(row.source),
        reporter=reporter,
        scope=device.scope,
        rule=row.rule,
        error_ppm=row.error_ppm,
        segment_sha256=digest,
        flags=row.flags,
    )


def _window(record: WindowRecord) -> Window:
    """A window that was over between two looks at the counters, as a report of quality is, lasts a microsecond."""
    end_us = max(record.end_us, record.start_us + 1)
    return Window(record.name, _instant(record.start_us), _instant(end_us), dict(record.units))


def _instant(microseconds: int) -> datetime:
    """Exact to the microsecond, which a float of seconds would not be."""
    return EPOCH + timedelta(microseconds=microseconds)
