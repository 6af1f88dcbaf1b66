"""The account of an attempt: energy cut at borders of readings and period, each part times PUE times intensity.

All in exact integers. References go through the same code with their own readings, PUE and shift in time.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from carbon_sched.domain.emissions import apportion, cut_at_readings, each_co2e_ug, split_each_at_readings
from carbon_sched.domain.intensity import Signal
from carbon_sched.domain.time import US
from carbon_sched.domain.units import PPM
from carbon_sched.ledger.records import ACTUAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date, datetime

    from carbon_sched.domain.emissions import Cut
    from carbon_sched.domain.energy import Channel, Stretch
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.ledger.records import AttemptRecord, ReadingsUsed


@dataclass(frozen=True)
class Period:
    """Half-open `[since, until)`; None leaves a side open."""

    since: datetime | None = None
    until: datetime | None = None

    def cut(self, start: datetime, end: datetime) -> tuple[datetime, datetime] | None:
        """What of `[start, end)` lies inside; None when nothing does."""
        if self.since is not None and start < self.since:
            start = self.since
        if self.until is not None and end > self.until:
            end = self.until
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


class Share(NamedTuple):
    """Energy of one stretch under one reading, by channel; `reading` None: no intensity is known.

    `[start, end)` is when it was used (for a reference: when it would have been used).
    """

    channels: tuple[Channel, ...]
    start: datetime
    end: datetime
    energy_uj: tuple[int, ...]
    reading: Reading | None


class Part(NamedTuple):
    """Energy of one channel in a share; without a reading `co2e_ug` is None, not zero."""

    channel: Channel
    start: datetime
    end: datetime
    energy_uj: int
    facility_uj: int
    reading: Reading | None
    co2e_ug: int | None


class Sum(NamedTuple):
    """Parts of one channel, reading and UTC day (of their start) together.

    `separated_ug` is what of `co2e_ug` belongs to energy whose direct intensity is known too, `direct_ug` the direct
    CO2e of that. `error_uj` is the meter's, at its worst.
    """

    channel: Channel
    reading: Reading | None
    day: date
    energy_uj: int
    facility_uj: int
    co2e_ug: int
    separated_ug: int
    direct_ug: int
    error_uj: int


@dataclass(frozen=True)
class Account:
    """All energy of one attempt in one role, cut into shares; sums are over exact integers.

    `direct` are readings of basis direct, beside those of the shares.
    """

    attempt: AttemptRecord
    cluster: str
    zone: str
    pue_ppm: int
    pue_source: str
    shares: tuple[Share, ...]
    direct: tuple[Reading, ...] = ()

    @cached_property
    def energy_uj(self) -> int:
        """IT energy."""
        return sum(one.energy_uj for one in self.sums)

    @cached_property
    def facility_uj(self) -> int:
        """IT energy times PUE."""
        return sum(one.facility_uj for one in self.sums)

    @cached_property
    def covered_uj(self) -> int:
        """IT energy whose intensity is known."""
        return sum(one.energy_uj for one in self.sums if one.reading is not None)

    @cached_property
    def co2e_ug(self) -> int:
        """CO2e of the covered energy."""
        return sum(map(sum, map(self._emitted_ug, self.shares)))

    @cached_property
    def times(self) -> tuple[datetime, datetime] | None:
        """When the first of its energy was used and the last; None without any."""
        if not self.shares:
            return None
        return min(share.start for share in self.shares), max(share.end for share in self.shares)

    @cached_property
    def complete(self) -> bool:
        """Whether every joule has an intensity."""
        return all(share.reading is not None for share in self.shares)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Channel by channel."""
        return tuple(part for share in self.shares for part in self._parts(share))

    def _parts(self, share: Share) -> Iterator[Part]:
        channels, start, end, energy_uj, reading = share
        columns = zip(channels, energy_uj, self._facility_uj(energy_uj), self._emitted_ug(share), strict=True)
        for channel, used_uj, drawn_uj, emitted_ug in columns:
            yield Part(channel, start, end, used_uj, drawn_uj, reading, emitted_ug if reading else None)

    def _emitted_ug(self, share: Share) -> list[int]:
        """CO2e of each channel of a share; zero without a reading."""
        return self._co2e_ug(share.energy_uj, share.reading)

    @cached_property
    def sums(self) -> list[Sum]:
        """What the parts add up to; each is rounded for itself."""
        return [one for shares in self._alike for one in self._summed(shares)]

    @cached_property
    def _alike(self) -> list[list[Share]]:
        """Shares of the same channels, reading and day."""
        alike: dict[tuple[int, int, date], list[Share]] = defaultdict(list)
        for share in self.shares:
            alike[id(share.channels), id(share.reading), share.start.date()].append(share)
        return list(alike.values())

    def _summed(self, shares: Sequence[Share]) -> Iterator[Sum]:
        channels, start, _, _, reading = shares[0]
        columns = list(zip(*(share.energy_uj for share in shares), strict=True))
        for channel, energy_uj, apart in zip(channels, columns, self._apart(shares, columns), strict=True):
            yield Sum(
                channel,
                reading,
                start.date(),
                sum(energy_uj),
                sum(self._facility_uj(energy_uj)),
                sum(self._co2e_ug(energy_uj, reading)),
                *apart,
                sum(each_times_ppm(energy_uj, channel.error_ppm)),
            )

    def _apart(self, shares: Sequence[Share], columns: Iterable[Sequence[int]]) -> Iterable[tuple[int, int]]:
        """Of shares alike, by channel, `separated_ug` and `direct_ug`."""
        reading, beside = shares[0].reading, self._beside(shares)
        if beside is None:
            return (_added(by_share) for by_share in zip(*map(self._separated, shares), strict=True))
        known = reading if beside.reading else None
        return [(sum(self._co2e_ug(uj, known)), sum(self._co2e_ug(uj, beside.reading))) for uj in columns]

    def _beside(self, shares: Sequence[Share]) -> Cut | None:
        """What is known directly of all the time of shares alike; None where one reading does not speak of it all."""
        start, end = min(share.start for share in shares), max(share.end for share in shares)
        cuts = cut_at_readings(start, end, self.direct if shares[0].reading else ())
        return cuts[0] if len(cuts) == 1 else None

    def _separated(self, share: Share) -> Iterable[tuple[int, int]]:
        """By channel, `separated_ug` and `direct_ug`, cut at the direct readings' borders."""
        pieces = split_each_at_readings(share.start, share.end, share.energy_uj, self.direct)
        known = [cut.reading is not None for cut, _ in pieces]
        energies = zip(*(energy_uj for _, energy_uj in pieces), strict=True)
        emitted = zip(self._emitted_ug(share), energies, strict=True)
        direct_ug = zip(*(self._co2e_ug(energy_uj, cut.reading) for cut, energy_uj in pieces), strict=True)
        return zip((_of_known(ug, uj, known) for ug, uj in emitted), map(sum, direct_ug), strict=True)

    def direct_used(self) -> Iterator[tuple[Reading | None, int]]:
        """Direct readings with the energy that they were applied to."""
        for shares in self._alike:
            beside = self._beside(shares)
            if beside is not None:
                yield beside.reading, sum(sum(share.energy_uj) for share in shares)
                continue
            for share in shares:
                pieces = split_each_at_readings(share.start, share.end, share.energy_uj, self.direct)
                yield from ((cut.reading, sum(energy_uj)) for cut, energy_uj in pieces)

    def _facility_uj(self, energy_uj: Iterable[int]) -> list[int]:
        return each_times_ppm(energy_uj, self.pue_ppm)

    def _co2e_ug(self, energy_uj: Sequence[int], reading: Reading | None) -> list[int]:
        if reading is None:
            return [0] * len(energy_uj)
        return each_co2e_ug(energy_uj, self.pue_ppm, reading.intensity_mg_per_kwh)


def _added(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    first, second = zip(*pairs, strict=True)
    return sum(first), sum(second)


def _of_known(co2e_ug: int, energy_uj: Sequence[int], known: Sequence[bool]) -> int:
    """What of CO2e belongs to the pieces that are known: it follows their energy, so that nothing of it is lost."""
    if all(known):
        return co2e_ug
    return sum(compress(apportion(co2e_ug, energy_uj), known)) if any(known) and any(energy_uj) else 0


def account(
    attempt: AttemptRecord, used: ReadingsUsed | None, period: Period, stretches: Sequence[Stretch] | None = None
) -> Account:
    """Book `attempt` with the readings `used`; without any no energy is covered, and PUE is that of its opening.

    `stretches` are those that count; others than today's only where an earlier figure is to be shown again.
    """
    stretches = attempt.stretches if stretches is None else stretches
    if used is None:
        shares = _shares(stretches, period, (), timedelta(0))
        return Account(attempt, attempt.cluster, attempt.zone, attempt.pue_ppm, attempt.pue_source, tuple(shares))
    # what a marginal signal says of a change is no share of the total: it is never booked
    readings = _averages(used.readings)
    shares = _shares(stretches, period, readings, used.shift)
    direct = _averages(used.direct)
    return Account(attempt, used.cluster, used.zone, used.pue_ppm, used.pue_source, tuple(shares), direct)


def _averages(readings: Iterable[Reading]) -> tuple[Reading, ...]:
    return tuple(reading for reading in readings if reading.signal is Signal.AVERAGE)


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
    ours = [account for account in accounts if account.shares]
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


def _shares(
    stretches: Iterable[Stretch], period: Period, readings: Sequence[Reading], shift: timedelta
) -> Iterator[Share]:
    for channels, start, end, energy_uj, _ in stretches:
        inside = period.cut(start, end)
        if inside is None:
            continue
        whole = inside == (start, end)
        inside_uj = energy_uj if whole else tuple(within(inside, start, end, one_uj) for one_uj in energy_uj)
        pieces = split_each_at_readings(inside[0] + shift, inside[1] + shift, inside_uj, readings)
        for (since, until, reading), used_uj in pieces:
            yield Share(channels, since, until, used_uj, reading)


def facility_uj(energy_uj: int, pue_ppm: int) -> int:
    """IT energy times PUE, rounded half up."""
    return each_times_ppm((energy_uj,), pue_ppm)[0]


def each_times_ppm(energy_uj: Iterable[int], factor_ppm: int) -> list[int]:
    """Each energy times a factor, rounded half up."""
    return [(2 * used_uj * factor_ppm + PPM) // (2 * PPM) for used_uj in energy_uj]
