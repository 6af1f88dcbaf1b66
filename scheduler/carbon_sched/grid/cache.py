"""Memory for a provider: fresh answers are reused, one request is under way per zone, errors are answered from memory.

A provider is asked at most once per zone and interval (its `ttl`), whether it answered or failed. What it said before
stands in while it fails: values of the past stay true, forecasts are used for a day at most.
"""

from __future__ import annotations

import copy
import logging
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import GridError, GridRateLimited, ZoneNotCovered
from carbon_sched.domain.intensity import Kind
from carbon_sched.grid.level import derived

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from carbon_sched.domain.intensity import Reading
    from carbon_sched.grid.provider import Provider

log = logging.getLogger(__name__)

RECENT = timedelta(days=2)
"""Values younger than this may still be revised: they are asked for again with every answer."""
OLD_FORECAST = timedelta(hours=24)
KEEP = timedelta(days=90)
NOT_COVERED_FOR = timedelta(hours=6)
PAST_AGAIN = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass
class _Memory:
    """What is known of one zone; `asking` is held while its provider is asked, `guard` while `readings` change.

    `held` are whole past days already asked for.
    """

    asking: threading.Lock = field(default_factory=threading.Lock)
    guard: threading.Lock = field(default_factory=threading.Lock)
    readings: dict[datetime, Reading] = field(default_factory=dict)
    held: set[datetime] = field(default_factory=set)
    next_recent: datetime | None = None
    next_past: datetime | None = None
    error: GridError | None = None


class CachedSource:
    """Implements `ports.GridSource` over a provider; safe for several threads.

    `on_new` is called with readings never seen before (new times, revised values), to be archived; a revision comes as
    a further reading of the same interval, issued later.
    """

    def __init__(
        self,
        provider: Provider,
        on_new: Callable[[Sequence[Reading]], None] | None = None,
        zones: Collection[str] | None = None,
    ) -> None:
        """`zones`: those it may be asked for; by default all it covers."""
        self._provider, self._on_new = provider, on_new
        self._zones = provider.zones() if zones is None else provider.zones() & frozenset(zones)
        self._memories: dict[str, _Memory] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._provider.name

    def zones(self) -> frozenset[str]:
        """The provider's zones."""
        return self._zones

    def problem(self, zone: str) -> str | None:
        """Why the newest request for the zone failed; None when it did not."""
        memory = self._memories.get(zone)
        return str(memory.error) if memory and memory.error else None

    def problems(self) -> tuple[tuple[str, str], ...]:
        """(zone, why) of every zone whose newest request failed."""
        with self._lock:
            zones = sorted(self._memories)
        return tuple((zone, why) for zone in zones if (why := self.problem(zone)) is not None)

    def readings(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """What is known of `[start, end)`; asks the provider for what is not fresh.

        Waits for the answer, unless somebody else is asking already and something is known.

        Raises the provider's error while it fails and nothing usable is known of the period.
        """
        memory = self._covered(zone)
        # Who finds a request under way waits for it only while nothing at all is known.
        if memory.asking.acquire(blocking=not memory.readings):
            try:
                self._refresh(memory, zone, start, now)
            finally:
                memory.asking.release()
        return self.known(zone, start, end, now)

    def refresh(self, zone: str, start: datetime, now: datetime) -> None:
        """Ask for what is not fresh from `start` on, and wait for it; a failure is kept (`problem`), not raised."""
        memory = self._covered(zone)
        with memory.asking:
            self._refresh(memory, zone, start, now)

    def known(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """What is remembered of `[start, end)`, without asking; raises as `readings` does."""
        memory = self._covered(zone)
        with memory.guard:
            known = list(memory.readings.values())
        found = [r for r in known if r.start < end and r.end > start and _usable(r, now)]
        if not found and memory.error is not None:
            raise copy.copy(memory.error).with_traceback(None)
        return _ordered(found)

    def restore(self, zone: str, archived: Sequence[Reading], now: datetime) -> int:
        """Take in what was archived, before a restart or by another server; returns how many readings that is.

        Of several values for one time the one fetched last is remembered. Past days that are whole are not asked for
        again.
        """
        memory = self._covered(zone)
        mine = [r for r in archived if r.provider == self.name and _said(r) and r.end > now - KEEP]
        with memory.asking, memory.guard:
            newest = _newest(mine)
            memory.readings = _newest([*mine, *memory.readings.values()])
            memory.held |= _whole_days(newest.values())
            return len(newest)

    def _covered(self, zone: str) -> _Memory:
        if zone not in self._zones:
            raise ZoneNotCovered(f"{self.name} does not cover {zone}")
        return self._memory(zone)

    def _memory(self, zone: str) -> _Memory:
        with self._lock:
            return self._memories.setdefault(zone, _Memory())

    def _refresh(self, memory: _Memory, zone: str, start: datetime, now: datetime) -> None:
        provider = self._provider
        recent = _midnight(now - min(RECENT, provider.lookback))
        recent = max(recent, now - provider.lookback)
        if memory.next_recent is None or now >= memory.next_recent:
            memory.next_recent = now + provider.ttl
            self._ask(memory, zone, recent, now + provider.horizon + provider.ttl, now)
        if memory.error is None and start < recent and (memory.next_past is None or now >= memory.next_past):
            self._ask_past(memory, zone, max(_midnight(start), now - provider.lookback), recent, now)
        _forget(memory, now - KEEP)

    def _ask_past(self, memory: _Memory, zone: str, start: datetime, recent: datetime, now: datetime) -> None:
        """Days that were never asked for, in as few requests as the provider's longest span allows."""
        for first, last in _missing(memory.held, start, recent, self._provider.max_span):
            self._ask(memory, zone, first, last, now)
            if memory.error is not None:
                memory.next_past = now + max(PAST_AGAIN, self._provider.ttl)
                return
            day = _midnight(first)
            while day < last:
                memory.held.add(day)
                day += DAY

    def _ask(self, memory: _Memory, zone: str, start: datetime, end: datetime, now: datetime) -> None:
        try:
            found = self._provider.fetch(zone, start, end, now)
        except GridError as error:
            self._failed(memory, zone, error, now)
            return
        if memory.error is not None:
            log.info("%s: %s: answers again", self.name, zone)
        memory.error = None
        self._take(memory, found)

    def _failed(self, memory: _Memory, zone: str, error: GridError, now: datetime) -> None:
        memory.error = error
        pause = self._provider.ttl
        if isinstance(error, GridRateLimited) and error.retry_after_s is not None:
            pause = max(pause, timedelta(seconds=error.retry_after_s))
        if isinstance(error, ZoneNotCovered):
            pause = max(pause, NOT_COVERED_FOR)
        memory.next_recent = now + pause
        log.warning("%s: %s: %s", self.name, zone, error)

    def _take(self, memory: _Memory, found: Sequence[Reading]) -> None:
        """Keep the first sight of a value: asked again and unchanged, it is not a new reading."""
        new = []
        with memory.guard:
            for reading in found:
                old = memory.readings.get(reading.start)
                if old is None or not _same(old, reading):
                    memory.readings[reading.start] = reading
                    new.append(reading)
                elif reading.kind is Kind.FORECAST:
                    memory.readings[reading.start] = reading  # the same forecast, confirmed now: it does not grow old
        if new and self._on_new:
            self._on_new(new)


class FromMemory:
    """Implements `ports.GridSource` on a `CachedSource` for who must never wait for a network."""

    def __init__(self, source: CachedSource) -> None:
        self._source = source

    def zones(self) -> frozenset[str]:
        """Those of the source."""
        return self._source.zones()

    def readings(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """What the source remembers; its last error when that is nothing and the last request failed."""
        return self._source.known(zone, start, end, now)


def _said(reading: Reading) -> bool:
    """Whether it is what the provider said: the archive also holds what was booked, cut and at another's level."""
    aligned = all(at.second == at.microsecond == 0 for at in (reading.start, reading.end))
    return aligned and not derived(reading)


def _newest(readings: Iterable[Reading]) -> dict[datetime, Reading]:
    """By start, of each the one fetched last, and of those the last in order."""
    return {one.start: one for one in sorted(readings, key=lambda one: (one.fetched_at, one.issued_at))}


def _whole_days(readings: Collection[Reading]) -> set[datetime]:
    """Midnights of the days that past values cover without a hole."""
    covered: dict[datetime, timedelta] = {}
    for reading in readings:
        if reading.kind is not Kind.FORECAST:
            day = _midnight(reading.start)
            covered[day] = covered.get(day, timedelta()) + (reading.end - reading.start)
    return {day for day, length in covered.items() if length >= DAY}


def _same(left: Reading, right: Reading) -> bool:
    return (left.end, left.intensity_mg_per_kwh, left.kind) == (right.end, right.intensity_mg_per_kwh, right.kind)


def _usable(reading: Reading, now: datetime) -> bool:
    return reading.kind is not Kind.FORECAST or reading.fetched_at > now - OLD_FORECAST


def _ordered(found: list[Reading]) -> list[Reading]:
    """Ordered and without overlaps; where steps changed between two answers, the younger answer wins."""
    kept: list[Reading] = []
    for reading in sorted(found, key=lambda r: r.start):
        while kept and kept[-1].end > reading.start and kept[-1].fetched_at < reading.fetched_at:
            kept.pop()
        if not kept or kept[-1].end <= reading.start:
            kept.append(reading)
    return kept


def _missing(
    held: set[datetime], start: datetime, recent: datetime, span: timedelta
) -> list[tuple[datetime, datetime]]:
    """Runs of days in `[start, recent)` that are not held, newest first, each at most `span` long."""
    runs: list[tuple[datetime, datetime]] = []
    day = _midnight(start)
    while day < recent:
        last = min(day + DAY, recent)
        first = max(day, start)
        if day not in held and first < last:
            if runs and runs[-1][1] == first and last - runs[-1][0] <= span:
                runs[-1] = (runs[-1][0], last)
            else:
                runs.append((first, last))
        day += DAY
    return runs[::-1]


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _forget(memory: _Memory, before: datetime) -> None:
    if any(day < before for day in memory.held):
        memory.held = {day for day in memory.held if day >= before}
        with memory.guard:
            memory.readings = {start: r for start, r in memory.readings.items() if r.end > before}
