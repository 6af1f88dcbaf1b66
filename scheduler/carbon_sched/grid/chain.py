"""The chain from live values down to yearly averages, always in one comparability (layer: grid adapters).

Every answer is in the *house* comparability (by default average, life-cycle, consumption), so that zones may be ranked
and a decision and its receipt are counted alike. For each zone, best first:

    live and forecast values of providers that publish in that comparability; of several, the one that covers all zones
    values of another comparability, scaled to the level of the former or of the zone's yearly average, and marked so
    our own forecast from what is known
    the long-term average: yearly by zone, country, world, never below the mean of what is known (missing never wins)

Marginal or direct values may steer (`ranked`), never be booked (`actual`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from carbon_sched.domain.errors import GridError, InvalidInput
from carbon_sched.domain.intensity import Basis, Comparability, Grade, Kind, Outlook, Ranking, Reading, Signal
from carbon_sched.grid.level import at_level_of, at_yearly_level, native, refined
from carbon_sched.grid.provider import HOUSE
from carbon_sched.grid.tiling import mean_mg_per_kwh, seconds, tile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from carbon_sched.ports import GridSource

log = logging.getLogger(__name__)

HISTORY = timedelta(days=28)
"""How far back an outlook looks for the level and the shape of a zone."""
TAIL = timedelta(hours=1)
DAY_S = 86_400
DOUBTED_FACTOR = 2.15
"""A level this far from the zone's yearly average is used, with a note; weather alone seldom does that for days."""
OURS = "carbon-sched"
AS_BOOKED = Ranking()
FLAT_MODEL = "flat at the mean of what is known"


class Yearly(Protocol):
    """The end of the chain (`yearly.YearlyTable`)."""

    def reading(self, zone: str, start: datetime, end: datetime, now: datetime) -> Reading:
        """One static reading over `[start, end)`, whatever its comparability."""

    def reading_like(self, zone: str, start: datetime, end: datetime, like: Comparability) -> Reading | None:
        """One static reading over `[start, end)` that may be ranked with `like`, or None."""


class Forecaster(Protocol):
    """Our own forecast of one zone."""

    def __call__(self, zone: str, known: Sequence[Reading], now: datetime, until: datetime) -> Sequence[Reading]:
        """Expected values over `[known[-1].end, until)`, or over its beginning.

        `known` is ordered, of one comparability, may have holes, and may end before `now` (data lag) or after it
        (a provider's own forecast). The answer is ordered, free of overlaps, of the same comparability, kind forecast,
        grade own-forecast; empty when too little is known. Of the grade of a provider's forecast is what it holds of
        the time before: that forecast, improved.
        """


@dataclass(frozen=True)
class Comparison:
    """Outlooks that may be ranked against each other, and what had to be done or left out for that."""

    like: Comparability
    outlooks: Mapping[str, Outlook]
    notes: tuple[str, ...] = ()


@dataclass
class _Zone:
    """What all sources say of one zone over a period, by source in order of preference."""

    zone: str
    by_source: list[list[Reading]]
    notes: list[str] = field(default_factory=list)


class Grid:
    """Outlooks for deciding and readings for booking, from any number of sources."""

    def __init__(
        self,
        sources: Sequence[GridSource],
        yearly: Yearly,
        *,
        forecaster: Forecaster | None = None,
        like: Comparability = HOUSE,
    ) -> None:
        """`sources` in order of preference; `like` is the house comparability (average and life-cycle)."""
        if like.signal is not Signal.AVERAGE or like.basis is not Basis.LIFECYCLE:
            problem = "has no yearly averages to fall back to"
            raise InvalidInput(
                "grid basis", f"{like.signal.value}/{like.basis.value}", problem, "Use average, lifecycle"
            )
        self._sources, self._yearly, self._forecaster, self._like = tuple(sources), yearly, forecaster, like
        self._said: frozenset[str] = frozenset()  # notes of the last comparison: each is logged when it is new

    # deciding ------------------------------------------------------------------------------------

    def outlook(self, zone: str, now: datetime, until: datetime) -> Outlook:
        """What is expected of one zone over `[now, until)`, best grades first, without a gap."""
        return self.compare([zone], now, until).outlooks[zone]

    def outlooks(self, zones: Sequence[str], now: datetime, until: datetime) -> dict[str, Outlook]:
        """Mutually comparable outlooks over `[now, until)`, one per zone."""
        return dict(self.compare(zones, now, until).outlooks)

    def ranked(
        self, zones: Sequence[str], now: datetime, until: datetime, ranking: Ranking
    ) -> tuple[dict[str, Outlook], str]:
        """Outlooks to rank by where that is not what is booked, and in words what they are or why there are none."""
        found = self.compare(zones, now, until, ranking)
        if found.like == self._like:
            return {}, found.notes[0]
        said = f"ranked by {found.like.signal.value} intensity ({found.like.basis.value}), booked by average"
        return dict(found.outlooks), said

    def compare(self, zones: Sequence[str], now: datetime, until: datetime, ranking: Ranking = AS_BOOKED) -> Comparison:
        """Outlooks of one comparability for all zones, with notes on every source that failed or was rescaled.

        Values of another `ranking` than what is booked are used if each zone has them now, in one comparability;
        otherwise those that are booked, and the first note says so.
        """
        since = now.replace(minute=0, second=0, microsecond=0) - HISTORY  # whole: forecasts of the same hour are reused
        found = [self._fetch(zone, since, until, now) for zone in dict.fromkeys(zones)]
        like, notes = self._common_like(found, now, ranking)
        lead = self._lead(found, like, now)
        outlooks = {}
        for zone in found:
            known = self._known(zone, like, lead, since, until, now)
            outlooks[zone.zone] = self._continued(zone.zone, known, like, now, until)
            notes += [f"{zone.zone}: {note}" for note in zone.notes]
        for note in sorted(set(notes) - self._said):
            log.info("grid: %s", note)
        self._said = frozenset(notes)
        return Comparison(like, outlooks, tuple(notes))

    # booking -------------------------------------------------------------------------------------

    def actual(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Readings that tile `[start, end)` for booking: average, best grade known by `now`, ordered, without a gap."""
        if end <= start:
            return []
        found = self._fetch(zone, start, end, now)
        known = self._known(found, self._like, None, start, end, now)
        pieces, holes = tile([known], start, end)
        if holes and any(self._covers(source, zone) for source in self._sources):
            found = self._fetch(zone, start - HISTORY, end, now)
            known = self._known(found, self._like, None, start - HISTORY, end, now)
            pieces, holes = tile([known, self._own(zone, known, known[-1].end if known else start, end)], start, end)
        yearly = [self._longterm(zone, hole.start, hole.end, self._like, []) for hole in holes]
        return sorted([*pieces, *yearly], key=lambda reading: reading.start)

    def direct(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Direct (combustion) readings in `[start, end)`, house perimeter; holes where nobody publishes them."""
        like = replace(self._like, basis=Basis.DIRECT)
        found = self._fetch(zone, start, end, now)
        return tile(_layers([native(readings, like) for readings in found.by_source]), start, end)[0]

    # what is known -------------------------------------------------------------------------------

    def _fetch(self, zone: str, start: datetime, end: datetime, now: datetime) -> _Zone:
        found = _Zone(zone, [])
        for source in self._sources:
            found.by_source.append([])
            if not self._covers(source, zone):
                continue
            try:
                found.by_source[-1] = source.readings(zone, start, end, now)
            except GridError as error:
                found.notes.append(str(error))
        return found

    def _covers(self, source: GridSource, zone: str) -> bool:
        return zone in source.zones()

    def _common_like(self, found: Sequence[_Zone], now: datetime, ranking: Ranking) -> tuple[Comparability, list[str]]:
        if ranking.as_booked:
            return self._like, []
        kinds = [{r.comparability for r in _all(zone) if _meant(r, ranking) and r.end > now} for zone in found]
        shared = set.intersection(*kinds) if kinds else set()
        if shared:
            return min(shared, key=repr), []
        lacking = ", ".join(zone.zone for zone, kind in zip(found, kinds, strict=True) if not kind)
        because = f"there is none for {lacking}" if lacking else "it is counted in different ways"
        return self._like, [f"not ranked by {ranking.words} intensity, since {because}: ranked by what is booked"]

    def _lead(self, found: Sequence[_Zone], like: Comparability, now: datetime) -> int | None:
        """The first source that has values of `like` for every zone from now on."""
        for index in range(len(self._sources)):
            if all(any(r.end > now for r in native(zone.by_source[index], like)) for zone in found):
                return index
        return None

    def _known(
        self, zone: _Zone, like: Comparability, lead: int | None, start: datetime, end: datetime, now: datetime
    ) -> list[Reading]:
        """One line of values of `like`, holes left open: the lead's first, refined and lengthened by the others."""
        natives = [native(readings, like) for readings in zone.by_source]
        others = [r for index, r in enumerate(natives) if index != lead]
        first = tile([natives[lead]], start, end)[0] if lead is not None else []
        base = tile([first, *_layers(others)], start, end)[0]
        self._doubt_level(zone, base, like, now)
        rescaled = [self._rescaled(zone, base, r, like, now) for r in _foreign(zone.by_source, like)]
        if lead is not None:
            for readings in _foreign(zone.by_source, like):
                base = refined(base, readings)
        return tile([base, *rescaled], start, end)[0]

    def _rescaled(
        self, zone: _Zone, base: Sequence[Reading], readings: Sequence[Reading], like: Comparability, now: datetime
    ) -> list[Reading]:
        scaled = at_level_of(base, readings) if base else []
        if not scaled and not base:
            yearly = self._yearly.reading_like(zone.zone, now, now + TAIL, like)
            scaled = at_yearly_level(yearly, readings) if yearly else []
        name, what = readings[0].provider, readings[0].comparability
        said = f"{what.signal.value}/{what.basis.value}/{what.perimeter.value}"
        if scaled:
            level = scaled[0].model_version.partition(" (")[0]  # the ratio changes with every answer
            zone.notes.append(f"{name} publishes {said}; used {level}")
        elif not base:
            zone.notes.append(
                f"{name} publishes {said}, too little of it to be brought to a comparable level; not used"
            )
        return scaled

    def _doubt_level(self, zone: _Zone, base: Sequence[Reading], like: Comparability, now: datetime) -> None:
        """Say so when a day or more averages far from the zone's year: pounds for kilograms is a factor of 2.2."""
        yearly = self._yearly.reading_like(zone.zone, now, now + TAIL, like)
        mean = mean_mg_per_kwh(base)
        if yearly is None or yearly.grade is not Grade.ZONE_YEAR or not mean or seconds(base) < DAY_S:
            return
        times = mean / yearly.intensity_mg_per_kwh
        if not 1 / DOUBTED_FACTOR <= times <= DOUBTED_FACTOR:
            said = f"{base[0].provider} averages {times:.2g} times the zone's yearly average"
            zone.notes.append(f"{said}; used, but is its unit g/kWh?")

    # what is not ---------------------------------------------------------------------------------

    def _own(self, zone: str, known: Sequence[Reading], now: datetime, until: datetime) -> list[Reading]:
        if self._forecaster is None or not known or (known[-1].end >= until and known[-1].kind is not Kind.FORECAST):
            return []
        return list(self._forecaster(zone, known, now, until))

    def _continued(
        self, zone: str, known: Sequence[Reading], like: Comparability, now: datetime, until: datetime
    ) -> Outlook:
        own = self._own(zone, known, now, until)
        true = [r for r in known if r.kind is not Kind.FORECAST]
        improved = [r for r in own if r.grade is Grade.PROVIDER_FORECAST]
        ours = [r for r in own if r.grade is not Grade.PROVIDER_FORECAST and r.end > known[-1].end]
        pieces, holes = tile([true, improved, known, ours], now, until)
        holes_filled = [self._longterm(zone, hole.start, hole.end, like, known) for hole in holes]
        pieces = sorted([*pieces, *holes_filled], key=lambda reading: reading.start)
        if not holes or holes[-1].end < until:
            pieces.append(self._longterm(zone, until, until + TAIL, like, known))
        return Outlook(zone, tuple(pieces))

    def _longterm(
        self, zone: str, start: datetime, end: datetime, like: Comparability, known: Sequence[Reading]
    ) -> Reading:
        """The yearly average, or the mean of what is known where that is higher or there is no yearly one."""
        yearly = self._yearly.reading_like(zone, start, end, like)
        mean = mean_mg_per_kwh(known)
        if mean is None or (yearly is not None and yearly.intensity_mg_per_kwh >= mean):
            return yearly or self._yearly.reading(zone, start, end, start)
        last = known[-1]
        return replace(
            last,
            start=start,
            end=end,
            intensity_mg_per_kwh=round(mean),
            low_mg_per_kwh=None,
            high_mg_per_kwh=None,
            kind=Kind.FORECAST,
            grade=Grade.OWN_FORECAST,
            provider=OURS,
            model_version=f"{FLAT_MODEL} ({last.provider})",
        )


def _meant(reading: Reading, ranking: Ranking) -> bool:
    return reading.signal is ranking.signal and ranking.basis in (None, reading.basis)


def _all(zone: _Zone) -> list[Reading]:
    return [reading for readings in zone.by_source for reading in readings]


def _layers(by_source: Sequence[Sequence[Reading]]) -> list[list[Reading]]:
    """Readings by grade, best first, and within a grade by source."""
    grades = sorted({r.grade for readings in by_source for r in readings}, key=lambda grade: grade.rank)
    return [[r for r in readings if r.grade is grade] for grade in grades for readings in by_source]


def _foreign(by_source: Sequence[Sequence[Reading]], like: Comparability) -> list[list[Reading]]:
    """Per source, the readings of the same signal that are counted otherwise."""
    kept = (
        [
            r
            for r in readings
            if r.signal is like.signal and not (r.basis is like.basis and r.perimeter is like.perimeter)
        ]
        for readings in by_source
    )
    return [readings for readings in kept if readings]
