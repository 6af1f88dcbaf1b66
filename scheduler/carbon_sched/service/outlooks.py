"""Comparable outlooks for all zones in use, and which cluster would have been the best fixed choice."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.intensity import Outlook, Ranking, Reading

TRAILING = timedelta(days=28)
"""Window of the "best fixed cluster" reference: the past only, never hindsight (design section 7)."""


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
    """Answers what the grid is expected to do, and did."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._means: dict[str, tuple[datetime, float]] = {}

    def of(self, zones: Sequence[str], now: datetime, until: datetime) -> dict[str, Outlook]:
        """One outlook per zone, comparable with each other."""
        return self._grid.outlooks(list(dict.fromkeys(zones)), now, until) if zones else {}

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
            weights = [reading.interval.duration.total_seconds() for reading in readings]
            mean = sum(r.intensity_mg_per_kwh * w for r, w in zip(readings, weights, strict=True)) / sum(weights)
            self._means[zone] = (hour, mean)
        return mean
