"""Grid carbon intensity: readings, forecasts and how good they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from carbon_sched.domain.time import Interval

if TYPE_CHECKING:
    from datetime import datetime

MAX_INTENSITY_MG_PER_KWH = 2_500_000
"""Anything above 2,500 g/kWh is not an intensity of a grid (shared bound of the field's providers)."""
RANKING_FLOOR_MG_PER_KWH = 1_000
"""Zero-carbon hours are ranked as 1 g/kWh, so that a zero never swallows every other term."""


class Signal(str, Enum):
    """What a change of load is charged with; average may be booked, marginal may only steer."""

    AVERAGE = "average"
    MARGINAL = "marginal"


class Basis(str, Enum):
    """Which emissions are counted: combustion only, or the fuel's and plant's life cycle too."""

    DIRECT = "direct"
    LIFECYCLE = "lifecycle"


class Perimeter(str, Enum):
    """Electricity consumed in the zone (imports counted) or generated there."""

    CONSUMPTION = "consumption"
    GENERATION = "generation"


class Kind(str, Enum):
    """How a value came about."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    FORECAST = "forecast"
    STATIC = "static"


class Grade(str, Enum):
    """Quality of a value, best first; each step of the fallback chain lowers it."""

    LIVE = "A-live"
    PROVIDER_FORECAST = "B-provider-forecast"
    OWN_FORECAST = "C-own-forecast"
    ZONE_YEAR = "D-zone-year"
    COUNTRY_YEAR = "E-country-year"
    WORLD_YEAR = "F-world-year"

    @property
    def rank(self) -> int:
        """0 for the best."""
        return _RANKS[self]


_RANKS = {grade: rank for rank, grade in enumerate(Grade)}


@dataclass(frozen=True)
class Comparability:
    """Values may be ranked against each other only when these three agree."""

    signal: Signal
    basis: Basis
    perimeter: Perimeter


@dataclass(frozen=True)
class Ranking:
    """What clusters and hours are ranked by; `basis` None: life cycle for the average, any shared one for marginal."""

    signal: Signal = Signal.AVERAGE
    basis: Basis | None = None

    @property
    def as_booked(self) -> bool:
        """Whether decisions are ranked by what receipts are counted in."""
        return self.signal is Signal.AVERAGE and self.basis in (None, Basis.LIFECYCLE)

    @property
    def words(self) -> str:
        """For people: `marginal`, `direct average`."""
        return " ".join(filter(None, [self.basis.value if self.basis else "", self.signal.value]))


@dataclass(frozen=True, slots=True)
class Reading:
    """One intensity of one zone over a half-open interval, as one provider published it.

    Appended, never updated: a revision is a new reading with a later `issued_at`.
    """

    zone: str
    start: datetime
    end: datetime
    intensity_mg_per_kwh: int
    signal: Signal
    basis: Basis
    perimeter: Perimeter
    kind: Kind
    grade: Grade
    provider: str
    issued_at: datetime
    fetched_at: datetime
    low_mg_per_kwh: int | None = None
    high_mg_per_kwh: int | None = None
    model_version: str = ""
    payload_sha256: str = ""
    licence: str = ""
    retention: str = "full"

    def __post_init__(self) -> None:
        if not 0 <= self.intensity_mg_per_kwh <= MAX_INTENSITY_MG_PER_KWH:
            message = f"intensity out of range: {self.intensity_mg_per_kwh} mg/kWh"
            raise ValueError(message)
        Interval(self.start, self.end)

    @property
    def interval(self) -> Interval:
        """The time this value holds for."""
        return Interval(self.start, self.end)

    @property
    def comparability(self) -> Comparability:
        """What this value may be compared with."""
        return Comparability(self.signal, self.basis, self.perimeter)


@dataclass(frozen=True)
class Outlook:
    """What is expected of one zone from a moment on: contiguous, ordered readings, best grade for each time.

    `readings` tile `[readings[0].start, readings[-1].end)` without gap or overlap; the last one is a long-term average
    (climatology or yearly value) that reaches as far as anybody asks.
    """

    zone: str
    readings: tuple[Reading, ...]

    def __post_init__(self) -> None:
        for left, right in pairwise(self.readings):
            if left.end != right.start:
                message = f"outlook of {self.zone} has a gap or overlap at {left.end.isoformat()}"
                raise ValueError(message)

    @cached_property
    def comparability(self) -> Comparability | None:
        """What all its values may be compared with; None where they are not of one kind, or there are none."""
        kinds = {reading.comparability for reading in self.readings}
        return kinds.pop() if len(kinds) == 1 else None

    @cached_property
    def edges_s(self) -> tuple[float, ...]:
        """Where values change, in seconds since 1970: one more than there are readings."""
        return (*(reading.start.timestamp() for reading in self.readings), self.readings[-1].end.timestamp())

    @property
    def worst_grade(self) -> Grade:
        """The lowest quality in the outlook."""
        return max((reading.grade for reading in self.readings), key=lambda grade: grade.rank)
