"""What people ask of the grid: intensities now, expected and past, for zones of clusters or any other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from carbon_sched.domain.intensity import Comparability, Outlook, Reading
    from carbon_sched.forecast.record import TrackRecord
    from carbon_sched.ports import Clock
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.refresh import Refresh

    Record = Callable[[str, Comparability], TrackRecord | None]

MOST_ZONES = 20
LONGEST_PAST = timedelta(days=90)


class Comparison(Protocol):
    """Outlooks that may be ranked against each other, and what was done or left out for that."""

    @property
    def outlooks(self) -> Mapping[str, Outlook]:
        """One per zone."""

    @property
    def notes(self) -> tuple[str, ...]:
        """In plain words."""


class Grid(Protocol):
    """What is needed from `grid.chain`."""

    def compare(self, zones: Sequence[str], now: datetime, until: datetime) -> Comparison:
        """Outlooks over `[now, until)`."""

    def actual(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Readings that tile `[start, end)` for booking."""


@dataclass(frozen=True)
class Expected:
    """Readings per zone over `[now, until)`, without gaps, mutually comparable; how our forecasts did there lately."""

    now: datetime
    until: datetime
    readings: Mapping[str, list[Reading]]
    records: Mapping[str, TrackRecord | None]
    notes: tuple[str, ...]


class Intensities:
    """Asks providers for what a person wants to see, waiting a little for them; planning never does that."""

    def __init__(self, grid: Grid, refresh: Refresh, fleet: Fleet, clock: Clock, record: Record) -> None:
        self._grid, self._refresh, self._fleet, self._clock, self._record = grid, refresh, fleet, clock, record

    def expected(self, zones: Sequence[str], ahead: timedelta) -> Expected:
        """Now and what is expected; without zones, those of the clusters."""
        wanted = self._wanted(zones)
        self._refresh.ask(wanted)
        now = self._clock.now()
        until = now + ahead
        found = self._grid.compare(wanted, now, until) if wanted else None
        if found is None:
            return Expected(now, until, {}, {}, ())
        cut = {zone: [r for r in outlook.readings if r.start < until] for zone, outlook in found.outlooks.items()}
        records = {zone: self._record(zone, readings[0].comparability) for zone, readings in cut.items()}
        return Expected(now, until, cut, records, found.notes)

    def past(self, zone: str, since: datetime) -> tuple[datetime, list[Reading]]:
        """What would be booked for `[since, now)`, with now; InvalidInput for a time to come or longer than 90 days."""
        now = self._clock.now()
        if not now - LONGEST_PAST <= since < now:
            remedy = f"Give a past time, at most {LONGEST_PAST.days} days ago"
            raise InvalidInput("since", to_rfc3339(since), "is out of reach", remedy)
        self._refresh.ask([zone], since)
        return now, self._grid.actual(zone, since, now, now)

    def _wanted(self, zones: Sequence[str]) -> list[str]:
        wanted = list(dict.fromkeys(zones or self._fleet.zones()))
        if len(wanted) > MOST_ZONES and zones:
            raise InvalidInput("zone", len(wanted), "zones are too many at once", f"Ask for at most {MOST_ZONES}")
        return wanted
