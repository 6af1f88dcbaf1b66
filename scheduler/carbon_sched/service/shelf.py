"""What is known of the energy segments of one node, shared by every attempt that ran there.

A node's session folder holds the segments of all its jobs, and any of them may fill it with files that look like ours.
So each name is fetched once, whoever asks; so many a minute; readers that have proved good go first, and the others
take turns, so that one flood does not starve the rest.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import Reporter
from carbon_sched.service.journal import BadJournal
from carbon_sched.service.remarks import Findings, of_remarks
from carbon_sched_runtime.wire import parse_segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime

    from carbon_sched.ports import Clock
    from carbon_sched.service.journal import Segment
    from carbon_sched.service.remarks import Remark

log = logging.getLogger(__name__)

FILES_A_MINUTE = 240
"""Per node. A machine seals two segments a minute, and one more at each end of an attempt."""
MINUTE_S = 60.0
RETRY_S = 10.0
"""What was refused is looked at again this long after, for ended attempts: a wrapper puts back what was altered."""


@dataclass(frozen=True)
class Kept:
    """What stays known of a stored segment."""

    owners: frozenset[str]
    remarks: tuple[Remark, ...]
    reporter: Reporter
    key_id: str


@dataclass
class Refusal:
    """Why a file was not booked, since when, and when it was last looked at (on the clock that never steps)."""

    reason: str
    since: datetime
    tried: float


@dataclass
class Shelf:
    """The segments of one node. `before` are names stored earlier, of which nothing but the name is known.

    `metered`: an independent meter was seen there. Then what came unsigned is read once more when a job has ended and
    its wrapper has put back what was altered: somebody may have written over a signed segment.
    """

    before: set[str]
    metered: bool = False
    kept: dict[str, Kept] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    _looked_again: set[str] = field(default_factory=set)
    _fetched_at: deque[float] = field(default_factory=deque)

    def pull(self, names: Collection[str], fetch: Callable[[str], Segment], clock: Clock, *, again: bool) -> None:
        """Fetch what is new among `names`, and with `again` what was refused, as far as this minute's limit goes.

        `fetch` reads, checks and stores one segment: BadJournal when it cannot be accepted. ClusterError leaves.
        """
        now = clock.monotonic()
        self.unread = set(names) - self.before - self.kept.keys() - self.refused.keys()
        wanted = self._in_turn(self.unread)
        if again:
            wanted += self._once_more(now)
        refused = set()
        for name in wanted[: self._allowance(now)]:
            if name not in names:
                continue
            self._fetched_at.append(now)
            if name in self.kept:
                self._looked_again.add(name)
            if not self._take(name, fetch, clock):
                refused.add(name)
            self.unread.discard(name)
        if refused:
            name = min(refused)
            log.warning("energy segments refused count=%d first=%s: %s", len(refused), name, self.refused[name].reason)

    def keep(self, segment: Segment) -> None:
        """It is stored."""
        self.refused.pop(segment.name, None)
        self.metered |= segment.independent
        owners = frozenset(span.owner for span in segment.spans)
        self.kept[segment.name] = Kept(owners, segment.remarks, segment.reporter, segment.key_id)

    def names(self) -> list[str]:
        """Every segment that is stored."""
        return [*self.before, *self.kept]

    def findings(self, attempt: str, since: datetime, elsewhere: Collection[str] = ()) -> Findings:
        """What these segments say of an attempt, and what was refused or not read since it began.

        `elsewhere` are names that came another way.
        """
        remarks = itertools.chain.from_iterable(
            kept.remarks if attempt in kept.owners else [o for o in kept.remarks if attempt in (o.attempt, o.holder)]
            for kept in self.kept.values()
        )
        found = of_remarks(attempt, remarks)
        found.notes += self._unvouched(attempt)
        found.missing += self._holes(attempt, elsewhere)
        found.missing += self._refusals(since)
        if self.unread:
            limit = f"at most {FILES_A_MINUTE} a minute are read"
            found.missing.append(f"{len(self.unread)} files named like energy segments were not read: {limit}")
            good = {_reader(name) for name in self.kept}
            found.unread = sum(_reader(name) in good for name in self.unread)
        return found

    def forget(self) -> None:
        """No attempt here waits for its energy: the names are enough."""
        self.before |= self.kept.keys()
        self.kept.clear()
        self._looked_again.clear()

    def _once_more(self, now: float) -> list[str]:
        """What was refused a while ago, and what was not signed on a machine that has a meter."""
        refused = [name for name, refusal in self.refused.items() if now - refusal.tried >= RETRY_S]
        unsigned = [n for n, kept in self.kept.items() if kept.reporter is not Reporter.INDEPENDENT]
        doubtful = [n for n in unsigned if n not in self._looked_again] if self.metered else []
        return sorted({*refused, *doubtful})

    def _take(self, name: str, fetch: Callable[[str], Segment], clock: Clock) -> bool:
        try:
            segment = fetch(name)
        except BadJournal as error:
            earlier = self.refused.get(name)
            self.refused[name] = Refusal(str(error), earlier.since if earlier else clock.now(), clock.monotonic())
            return False
        self.keep(segment)
        return True

    def _refusals(self, since: datetime) -> list[str]:
        """What was refused, one sentence a reason: a flood is one thing to say."""
        names: dict[str, list[str]] = {}
        for name, refusal in self.refused.items():
            if refusal.since >= since:
                names.setdefault(refusal.reason, []).append(name)
        said = {
            reason: f" and {len(alike) - 1} more were" if len(alike) > 1 else " was" for reason, alike in names.items()
        }
        return [f"segment {min(alike)}{said[reason]} refused: {reason}" for reason, alike in names.items()]

    def _allowance(self, now: float) -> int:
        while self._fetched_at and self._fetched_at[0] <= now - MINUTE_S:
            self._fetched_at.popleft()
        return FILES_A_MINUTE - len(self._fetched_at)

    def _in_turn(self, names: Iterable[str]) -> list[str]:
        """Segments of readers that proved good, independent ones first; then one of each other reader in turn."""
        queues: dict[tuple[str, str, str], list[str]] = {}
        for name in sorted(names):
            queues.setdefault(_reader(name), []).append(name)
        good = {_reader(name) for name in self.kept}
        independent = {_reader(name) for name, kept in self.kept.items() if kept.reporter is Reporter.INDEPENDENT}
        first = sorted(queues.keys() & good, key=lambda reader: (reader not in independent, reader))
        trusted = [name for reader in first for name in queues.pop(reader)]
        others = [n for layer in itertools.zip_longest(*queues.values()) for n in layer if n is not None]
        return trusted + others

    def _holes(self, attempt: str, elsewhere: Collection[str]) -> list[str]:
        """Readers number their segments without holes: what lacks between two of an attempt's was removed."""
        seqs: dict[tuple[str, str, str], set[int]] = {}
        for name in (*self.names(), *elsewhere):
            seqs.setdefault(_reader(name), set()).add(parse_segment_name(name).seq)
        mine: dict[tuple[str, str, str], list[int]] = {}
        for name, kept in self.kept.items():
            if attempt in kept.owners:
                mine.setdefault(_reader(name), []).append(parse_segment_name(name).seq)
        lost = sum(
            max(own) - min(own) + 1 - sum(min(own) <= seq <= max(own) for seq in seqs[reader])
            for reader, own in mine.items()
        )
        return [f"{lost} energy segments between those that were found"] if lost else []

    def _unvouched(self, attempt: str) -> list[str]:
        """Signed by a meter that this cluster was not told of."""
        strangers = {
            kept.key_id
            for kept in self.kept.values()
            if attempt in kept.owners and kept.key_id and kept.reporter is not Reporter.INDEPENDENT
        }
        remedy = "register it with `carbon-sched clusters add --meter-key` for independent figures"
        return [
            f"signed by a machine meter whose key {key} the cluster does not know: {remedy}"
            for key in sorted(strangers)
        ]


def _reader(name: str) -> tuple[str, str, str]:
    found = parse_segment_name(name)
    return found.machine, found.boot8, found.reader
