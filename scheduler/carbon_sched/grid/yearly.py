"""Yearly averages by zone, country and world: the end of the fallback chain, which always answers.

What the tables hold (sources and licences: `data/README.md`):

    electricity-maps-yearly   zones and countries   average, lifecycle, consumption (flow-traced)
    ember-yearly              countries, the world  average, lifecycle, generation
    epa-egrid                 US states, the US     average, direct,    generation
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from carbon_sched.domain.intensity import Basis, Comparability, Grade, Kind, Perimeter, Reading, Signal
from carbon_sched.domain.time import UTC
from carbon_sched.domain.units import mg_per_kwh
from carbon_sched.grid.tables import rows

if TYPE_CHECKING:
    from collections.abc import Iterable

WORLD = "WORLD"
"""The zone of a cluster whose place is not known: booked with the world's average, the lowest grade."""

TABLES = (
    ("electricity-maps-yearly", "zone_year_electricitymaps_ODbL.csv"),
    ("epa-egrid", "us_state_year.csv"),
    ("ember-yearly", "country_year.csv"),
)


@dataclass(frozen=True)
class YearlyValue:
    """One row of a table: the average of one zone over one calendar year."""

    provider: str
    zone: str
    year: int
    intensity_mg_per_kwh: int
    basis: Basis
    perimeter: Perimeter
    licence: str
    retrieved: datetime
    sha256: str

    def fits(self, like: Comparability | None) -> bool:
        """Whether it may be ranked with values of `like`; the world imports nothing, so both perimeters fit it."""
        if like is None:
            return True
        same_perimeter = self.perimeter is like.perimeter or self.zone == WORLD
        return like.signal is Signal.AVERAGE and self.basis is like.basis and same_perimeter


class YearlyTable:
    """Implements `ports.YearlyAverages` on the shipped tables."""

    def __init__(self, values: Iterable[YearlyValue]) -> None:
        """Values in order of preference; of one provider and zone there may be many years."""
        self._by_zone: dict[str, list[YearlyValue]] = {}
        for value in values:
            self._by_zone.setdefault(value.zone, []).append(value)

    @classmethod
    def load(cls) -> YearlyTable:
        """The shipped tables."""
        return cls(_value(provider, row) for provider, name in TABLES for row in rows(name))

    def zones(self) -> frozenset[str]:
        """Every zone and country that has a row of its own, and the world."""
        return frozenset(self._by_zone)

    def reading(self, zone: str, start: datetime, end: datetime, now: datetime) -> Reading:  # noqa: ARG002 - the port
        """One static reading over `[start, end)`: the zone's average, else its country's, else the world's.

        Of several years the newest that is not later than the year of `start`, or the oldest there is.
        """
        found = self._find(zone, start, None)
        if found is None:
            raise LookupError("the yearly tables hold no row for the world")
        return _reading(zone, found, start, end, found.perimeter)

    def reading_like(self, zone: str, start: datetime, end: datetime, like: Comparability) -> Reading | None:
        """The same among values that may be ranked with `like`; None when no table has such values for this place."""
        found = self._find(zone, start, like)
        return None if found is None else _reading(zone, found, start, end, like.perimeter)

    def _find(self, zone: str, start: datetime, like: Comparability | None) -> YearlyValue | None:
        for place in dict.fromkeys((zone, country_of(zone), WORLD)):
            fitting = [value for value in self._by_zone.get(place, ()) if value.fits(like)]
            if fitting:
                return _of_year([value for value in fitting if value.provider == fitting[0].provider], start.year)
        return None


def country_of(zone: str) -> str:
    """ISO 3166 two-letter country of a zone key: `US-CAL-CISO` -> `US`."""
    return zone.partition("-")[0]


def _of_year(values: list[YearlyValue], year: int) -> YearlyValue:
    past = [value for value in values if value.year <= year]
    return max(past, key=lambda value: value.year) if past else min(values, key=lambda value: value.year)


def _reading(zone: str, value: YearlyValue, start: datetime, end: datetime, perimeter: Perimeter) -> Reading:
    return Reading(
        zone=zone,
        start=start,
        end=end,
        intensity_mg_per_kwh=value.intensity_mg_per_kwh,
        signal=Signal.AVERAGE,
        basis=value.basis,
        perimeter=perimeter,
        kind=Kind.STATIC,
        grade=_grade(zone, value),
        provider=value.provider,
        issued_at=datetime(value.year + 1, 1, 1, tzinfo=UTC),
        fetched_at=value.retrieved,
        model_version=str(value.year),
        payload_sha256=value.sha256,
        licence=value.licence,
    )


def _grade(zone: str, value: YearlyValue) -> Grade:
    if value.zone == WORLD:
        return Grade.WORLD_YEAR
    national = value.zone != zone or value.provider == "ember-yearly"
    return Grade.COUNTRY_YEAR if national else Grade.ZONE_YEAR


def _value(provider: str, row: dict[str, str]) -> YearlyValue:
    return YearlyValue(
        provider=provider,
        zone=row["zone"],
        year=int(row["year"]),
        intensity_mg_per_kwh=mg_per_kwh(float(row["g_per_kwh"])),
        basis=Basis(row["basis"]),
        perimeter=Perimeter(row["perimeter"]),
        licence=row["licence"],
        retrieved=datetime.fromisoformat(row["retrieved"]).replace(tzinfo=UTC),
        sha256=hashlib.sha256(",".join(row.values()).encode()).hexdigest(),
    )
