"""Keeps what providers say fresh in memory and in the archive, so that planning and booking never wait for a network.

Each provider has a loop of its own: a slow one delays nobody else. A source asks at most once per zone and interval
and answers from what it said before while it fails; this module only decides for which zones, and when to look. Of
several servers on a database only the leader asks for zones in use; the others read what it stored.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol

from carbon_sched.service.loops import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from carbon_sched.domain.intensity import Reading
    from carbon_sched.ports import Clock, Store
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

OUTLOOK = timedelta(days=28)
"""What outlooks and the best fixed cluster look back on: all that a person waits for."""
HISTORY = timedelta(days=84)
"""What the loops ask for zones in use, because our own forecast looks back on 80 days; it finds older ones archived."""
AHEAD = timedelta(days=7)
RETOLD = timedelta(days=3)
"""How far back a server that does not lead looks again for what the leader stored; older revisions it reads when it
leads."""
DAY = timedelta(days=1)
LOOK_S = 30.0
"""How often a source is offered each of its zones; whether that is a request is its own matter."""
PATIENCE_S = 10.0
"""A person who asks for a zone waits so long for slow providers, then gets what is known."""
BATCH = 2000
"""Readings written in one transaction: a month of quarter hours."""


class LiveSource(Protocol):
    """A provider with its memory (`grid.cache.CachedSource`)."""

    @property
    def name(self) -> str:
        """Whom its readings name as provider."""

    def zones(self) -> frozenset[str]:
        """Zones it can answer for."""

    def refresh(self, zone: str, start: datetime, now: datetime) -> None:
        """Ask for what is not fresh from `start` on, and wait for it; a failure is kept, not raised."""

    def restore(self, zone: str, archived: Sequence[Reading], now: datetime) -> int:
        """Take in what was archived, before a restart or by another server; returns how many readings that is."""


class Archive:
    """Readings on their way to the store; they wait here while it cannot be written."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._waiting: list[Reading] = []
        self._news = False

    def take(self, new: Sequence[Reading]) -> None:
        """Keep new readings until the next `flush`; not those whose licence allows only what was used to be stored."""
        with self._lock:
            self._news = self._news or bool(new)
            self._waiting += [reading for reading in new if reading.retention == "full"]

    def known(self, zone: str, start: datetime, end: datetime) -> list[Reading]:
        """What is archived of `[start, end)` and is no forecast; of several values for one time the last one said."""
        with self._store.transaction(write=False) as tx:
            found = tx.readings(zone, start, end, known=True)
        return list({(r.start, r.comparability): r for r in found}.values())

    def flush(self) -> bool:
        """Write what waits; returns whether anything was new since the last call. On StoreError all of it waits on."""
        while True:
            with self._lock:
                batch = self._waiting[:BATCH]
                if not batch:
                    news, self._news = self._news, False
                    return news
                with self._store.transaction() as tx:
                    tx.add_readings(batch)
                del self._waiting[: len(batch)]


class Refresh:
    """The loops of all sources, and the way for a person to ask for a zone at once."""

    def __init__(
        self,
        sources: Sequence[LiveSource],
        archive: Archive,
        store: Store,
        zones: Callable[[], Collection[str]],
        clock: Clock,
        signals: Signals,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """`zones` tells those in use now, each once; a change of them is told by `signals.zones_changed`.

        `leads` tells whether this server is the one that asks for them.
        """
        self._sources, self._archive, self._store = tuple(sources), archive, store
        self._zones, self._clock, self._signals, self._leads = zones, clock, signals, leads
        self._due: dict[LiveSource, dict[str, float]] = defaultdict(dict)
        self._restored: set[tuple[LiveSource, str]] = set()
        self._restoring = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="grid-ask")

    def steps(self) -> list[Step]:
        """One loop per source, woken when a cluster brings a new zone."""
        return [Step(f"refresh {s.name}", partial(self.step, s), self._signals.wake_for_zones()) for s in self._sources]

    def step(self, source: LiveSource) -> float:
        """Refresh the one zone of the source that is due longest; returns the seconds until there may be another."""
        mine = [zone for zone in self._zones() if zone in source.zones()]
        for zone in mine:
            self._restore(source, zone)
        if not self._leads():
            for zone in mine:
                self._read_again(source, zone)
            return LOOK_S
        due, now = self._due[source], self._clock.monotonic()
        ready = [zone for zone in mine if due.get(zone, now) <= now]
        if ready:
            zone = min(ready, key=lambda zone: due.get(zone, float("-inf")))
            due[zone] = now + LOOK_S
            source.refresh(zone, self._clock.now() - HISTORY, self._clock.now())
        self._flush()
        return 0.0 if len(ready) > 1 else LOOK_S

    def ask(self, zones: Sequence[str], since: datetime | None = None, patience_s: float = PATIENCE_S) -> None:
        """Have every source that covers these zones refresh them; returns when all have, or after `patience_s`.

        `since` is how far back to look (28 days when not given). Zones in use are the leader's to ask for.
        """
        others = frozenset() if self._leads() else frozenset(self._zones())
        pairs = [(source, zone) for zone in dict.fromkeys(zones) for source in self._sources if zone in source.zones()]
        start = min(since or self._clock.now(), self._clock.now() - OUTLOOK)
        asked = [
            self._pool.submit(self._read_again, source, zone)
            if zone in others
            else self._pool.submit(self._ask_one, source, zone, start)
            for source, zone in pairs
        ]
        for done in wait(asked, timeout=patience_s).done:
            done.result()
        self._flush()

    def close(self) -> None:
        """Stop answering `ask`."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask_one(self, source: LiveSource, zone: str, start: datetime) -> None:
        self._restore(source, zone)
        source.refresh(zone, start, self._clock.now())

    def _restore(self, source: LiveSource, zone: str) -> None:
        """What the source said before the server was last started, once."""
        with self._restoring:
            if (source, zone) in self._restored:
                return
            known = self._read_stored(source, zone, HISTORY + DAY)
            self._restored.add((source, zone))
        if known:
            log.info("grid: %s: %s: %d readings restored", source.name, zone, known)

    def _read_again(self, source: LiveSource, zone: str) -> None:
        self._restore(source, zone)
        self._read_stored(source, zone, RETOLD)

    def _read_stored(self, source: LiveSource, zone: str, back: timedelta) -> int:
        now = self._clock.now()
        with self._store.transaction(write=False) as tx:
            stored = tx.readings(zone, now - back, now, known=True) + tx.readings(zone, now, now + AHEAD)
        return source.restore(zone, stored, now)

    def _flush(self) -> None:
        if self._archive.flush():
            self._signals.readings.set()
            self._signals.decide.set()
