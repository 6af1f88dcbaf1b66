"""Comparable outlooks for all zones in use, and which cluster would have been the best fixed choice."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from carbon_sched.domain.intensity import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.intensity import Outlook, Ranking, Reading

TRAILING = timedelta(days=28)
"""Window of the "best fixed cluster" reference: the past only, never hindsight (design section 7)."""

SHOWN = timedelta(hours=48)
"""How far ahead readers see."""
FRESH, USABLE = timedelta(minutes=1), timedelta(minutes=5)
"""After the first, what readers are shown is computed anew beside them; after the second, they wait for it.

Who came a little before others, and waited for what they had computed, is shown that too.
"""


def home_of(clusters: Sequence[Cluster]) -> str | None:
    """The declared home cluster, else the one registered first; None without clusters."""
    declared = next((cluster.name for cluster in clusters if cluster.home), None)
    return declared or (clusters[0].name if clusters else None)


class Grid(Protocol):
    """What the service needs from `grid.chain`."""

    def outlooks(self, zones: Sequence[str], now: datetime, until: datetime) -> dict[str, Outlook]:
        """Mutually comparable outlooks over `[now, until)`, one per zone."""

    def ranked(
        self, zones: Sequence[str], now: datetime, until: datetime, ranking: Ranking
    ) -> tuple[dict[str, Outlook], str]:
        """Outlooks to rank by where that is not what is booked, and in words what they are, or why there are none."""

    def actual(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Readings that tile `[start, end)` for booking, best grade first known."""


class Outlooks:
    """Answers what the grid is expected to do, and did; `news` is set when readings came in."""

    def __init__(self, grid: Grid, news: threading.Event | None = None) -> None:
        self._grid, self._news = grid, news or threading.Event()
        self._means: dict[str, tuple[datetime, float]] = {}
        self._looking = threading.Lock()
        self._kept: _Kept | None = None
        self._coming: Future[_Kept] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outlooks")

    def of(self, zones: Sequence[str], now: datetime, until: datetime) -> dict[str, Outlook]:
        """One outlook per zone, comparable with each other."""
        return self._grid.outlooks(list(dict.fromkeys(zones)), now, until) if zones else {}

    def shown(self, zones: Sequence[str], now: datetime) -> dict[str, tuple[Reading, ...]]:
        """As `of`, over SHOWN from now on, for readers, who come often: computed at most some minutes ago.

        For twenty zones that takes a good part of a second, and pages are brought up to date every second. An average
        that was shown for want of readings makes way for the first that come.
        """
        with self._looking:
            if self._coming and self._coming.done():
                done, self._coming = self._coming, None
                self._kept = done.result()
            kept = self._kept
            if kept and kept.averages and self._news.is_set():
                kept = None
            if kept is None or kept.outlooks.keys() != set(zones) or not kept.at - FRESH <= now < kept.at + USABLE:
                kept = self._kept = self._keep(zones, now)
            elif now >= kept.at + FRESH and not self._coming:
                self._coming = self._thread.submit(self._keep, zones, now)
        return {zone: _between(found, now, now + SHOWN) for zone, found in kept.outlooks.items()}

    def _keep(self, zones: Sequence[str], now: datetime) -> _Kept:
        self._news.clear()
        return _Kept(now, self.of(zones, now, now + SHOWN + USABLE))

    def close(self) -> None:
        """Wait for what is computed beside readers; nothing is from now on."""
        self._thread.shutdown()

    def ranked(
        self, zones: Sequence[str], now: datetime, until: datetime, ranking: Ranking
    ) -> tuple[dict[str, Outlook], str]:
        """What the policy ranks by where that is not `of`, by zone, and a remark; nothing where it is."""
        if ranking.as_booked or not zones:
            return {}, ""
        return self._grid.ranked(list(dict.fromkeys(zones)), now, until, ranking)

    def actual(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """What is known of `[start, end)` by now."""
        return self._grid.actual(zone, start, end, now)

    def best_fixed(self, clusters: Sequence[Cluster], now: datetime) -> str | None:
        """The cluster with the least mean intensity x PUE over the trailing 28 days; None without clusters."""
        if not clusters:
            return None
        means = {zone: self._trailing_mean(zone, now) for zone in {cluster.zone for cluster in clusters}}
        return min(clusters, key=lambda cluster: means[cluster.zone] * cluster.pue.ppm).name

    def _trailing_mean(self, zone: str, now: datetime) -> float:
        """Asked for once an hour: four weeks hardly move within one."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        at, mean = self._means.get(zone, (None, 0.0))
        if at != hour:
            readings = self._grid.actual(zone, now - TRAILING, now, now)
            weights = [(reading.end - reading.start).total_seconds() for reading in readings]
            mean = sum(r.intensity_mg_per_kwh * w for r, w in zip(readings, weights, strict=True)) / sum(weights)
            self._means[zone] = (hour, mean)
        return mean


class _Kept(NamedTuple):
    at: datetime
    outlooks: dict[str, Outlook]

    @property
    def averages(self) -> bool:
        """Whether the present is an average somewhere."""
        return any(outlook.readings[0].kind is Kind.STATIC for outlook in self.outlooks.values())


def _between(outlook: Outlook, now: datetime, until: datetime) -> tuple[Reading, ...]:
    first, *later = (reading for reading in outlook.readings if reading.end > now and reading.start < until)
    return replace(first, start=max(first.start, now)), *later
