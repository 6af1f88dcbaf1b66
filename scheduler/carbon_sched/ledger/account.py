"""The account of an attempt: energy cut at borders of readings and period, each part times PUE times intensity.

All in exact integers. References go through the same code with their own readings, PUE and shift in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from carbon_sched.domain.emissions import co2e_ug, cut_at_readings, shared
from carbon_sched.domain.intensity import Signal
from carbon_sched.domain.time import US
from carbon_sched.domain.units import PPM
from carbon_sched.ledger.records import ACTUAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from carbon_sched.domain.energy import EnergySpan
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.ledger.records import AttemptRecord, ReadingsUsed


@dataclass(frozen=True)
class Period:
    """Half-open `[since, until)`; None leaves a side open."""

    since: datetime | None = None
    until: datetime | None = None

    def cut(self, start: datetime, end: datetime) -> tuple[datetime, datetime] | None:
        """What of `[start, end)` lies inside; None when nothing does."""
        start = start if self.since is None else max(start, self.since)
        end = end if self.until is None else min(end, self.until)
        return (start, end) if start < end else None

    def clip(self, start: datetime, end: datetime, energy_uj: int) -> tuple[datetime, datetime, int] | None:
        """Start, end and microjoules of what of a stretch of energy lies inside; None when nothing does."""
        inside = self.cut(start, end)
        return None if inside is None else (*inside, within(inside, start, end, energy_uj))

    def holds(self, instant: datetime) -> bool:
        """Whether it lies inside."""
        return (self.since is None or instant >= self.since) and (self.until is None or instant < self.until)


ALWAYS = Period()


def within(inside: tuple[datetime, datetime], start: datetime, end: datetime, energy_uj: int) -> int:
    """Energy of the part `inside` of `[start, end)`.

    It follows time by running totals, so that adjoining periods add up to the whole exactly.
    """
    if inside == (start, end):
        return energy_uj
    first, last = (energy_uj * ((instant - start) // US) // ((end - start) // US) for instant in inside)
    return last - first


_STRETCH = attrgetter("start", "end")
"""Spans of one segment share it: what holds for it is looked up once."""


class Part(NamedTuple):
    """Energy of one span under one reading. `reading` None: no intensity is known, so `co2e_ug` is None, not zero.

    `[start, end)` is when it was used (for a reference: when it would have been used). A tuple, for there are millions
    of them in a statement.
    """

    span: EnergySpan
    start: datetime
    end: datetime
    energy_uj: int
    facility_uj: int
    reading: Reading | None
    co2e_ug: int | None


_new = tuple.__new__


@dataclass(frozen=True)
class Account:
    """All parts of one attempt in one role; sums are over exact integers."""

    attempt: AttemptRecord
    cluster: str
    zone: str
    pue_ppm: int
    pue_source: str
    parts: tuple[Part, ...]

    @cached_property
    def energy_uj(self) -> int:
        """IT energy."""
        return sum(part.energy_uj for part in self.parts)

    @cached_property
    def facility_uj(self) -> int:
        """IT energy times PUE."""
        return sum(part.facility_uj for part in self.parts)

    @cached_property
    def covered_uj(self) -> int:
        """IT energy whose intensity is known."""
        return sum(part.energy_uj for part in self.parts if part.reading is not None)

    @cached_property
    def co2e_ug(self) -> int:
        """CO2e of the covered energy."""
        return sum(part.co2e_ug for part in self.parts if part.co2e_ug is not None)

    @cached_property
    def times(self) -> tuple[datetime, datetime] | None:
        """When the first of its energy was used and the last; None without any."""
        if not self.parts:
            return None
        return min(part.start for part in self.parts), max(part.end for part in self.parts)

    @cached_property
    def complete(self) -> bool:
        """Whether every joule has an intensity."""
        return all(part.reading is not None for part in self.parts)


def account(
    attempt: AttemptRecord, used: ReadingsUsed | None, period: Period, spans: Sequence[EnergySpan] | None = None
) -> Account:
    """Book `attempt` with the readings `used`; without any no energy is covered, and PUE is that of its opening.

    `spans` are those that count; others than today's only where an earlier figure is to be shown again.
    """
    spans = attempt.spans if spans is None else spans
    if used is None:
        parts = _parts(spans, period, attempt.pue_ppm, (), timedelta(0))
        return Account(attempt, attempt.cluster, attempt.zone, attempt.pue_ppm, attempt.pue_source, tuple(parts))
    # what a marginal signal says of a change is no share of the total: it is never booked
    readings = [reading for reading in used.readings if reading.signal is Signal.AVERAGE]
    parts = _parts(spans, period, used.pue_ppm, readings, used.shift)
    return Account(attempt, used.cluster, used.zone, used.pue_ppm, used.pue_source, tuple(parts))


def actual(attempt: AttemptRecord, period: Period = ALWAYS) -> Account:
    """The account by the readings that hold now for where and when it ran."""
    return account(attempt, attempt.newest(ACTUAL), period)


@dataclass(frozen=True)
class Reference:
    """What the same energy would have been booked as under another choice, beside what it was booked as.

    `problem` says why the two cannot be compared; then the figures mean nothing.
    """

    role: str
    accounts: tuple[Account, ...]
    ours_ug: int
    problem: str = ""

    @property
    def co2e_ug(self) -> int:
        """CO2e of the other choice."""
        return sum(account.co2e_ug for account in self.accounts)

    @property
    def saved_ug(self) -> int:
        """What our choice saved against it; negative where it cost more."""
        return self.co2e_ug - self.ours_ug


def references(accounts: Sequence[Account], period: Period = ALWAYS) -> list[Reference]:
    """Every reference choice recorded for attempts of one job, by the identical method, in the order of their names.

    `accounts` are those of the attempts by `actual`, over the same period.
    """
    ours = [account for account in accounts if account.parts]
    roles = sorted({role for account in ours for role in account.attempt.readings if role != ACTUAL})
    return [_reference(role, ours, period) for role in roles]


def _reference(role: str, ours: Sequence[Account], period: Period) -> Reference:
    theirs = tuple(account(one.attempt, one.attempt.newest(role), period) for one in ours)
    problem = ""
    if not all(account.complete for account in ours):
        problem = "part of the job's own energy has no intensity"
    elif not all(account.complete for account in theirs):
        problem = "part of the time it would have run has no intensity there"
    return Reference(role, theirs, sum(account.co2e_ug for account in ours), problem)


def _parts(
    spans: Iterable[EnergySpan], period: Period, pue_ppm: int, readings: Sequence[Reading], shift: timedelta
) -> Iterator[Part]:
    for (start, end), together in groupby(spans, key=_STRETCH):
        inside = period.cut(start, end)
        if inside is None:
            continue
        cuts = cut_at_readings(inside[0] + shift, inside[1] + shift, readings)
        whole = inside == (start, end)
        for span in together:
            energy_uj = span.energy_uj if whole else within(inside, start, end, span.energy_uj)
            for (since, until, reading), used_uj in zip(cuts, shared(energy_uj, cuts), strict=True):
                emitted_ug = co2e_ug(used_uj, pue_ppm, reading.intensity_mg_per_kwh) if reading else None
                fields = (span, since, until, used_uj, facility_uj(used_uj, pue_ppm), reading, emitted_ug)
                yield _new(Part, fields)


def facility_uj(energy_uj: int, pue_ppm: int) -> int:
    """IT energy times PUE, rounded half up."""
    return (2 * energy_uj * pue_ppm + PPM) // (2 * PPM)
