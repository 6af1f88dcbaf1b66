"""The account of an attempt: energy cut at borders of readings and period, each part times PUE times intensity.

All in exact integers. References go through the same code with their own readings, PUE and shift in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from carbon_sched.domain.emissions import apportion, cut_at_readings, each_co2e_ug, split_each_at_readings
from carbon_sched.domain.intensity import Signal
from carbon_sched.domain.time import US, UTC
from carbon_sched.domain.units import PPM
from carbon_sched.ledger.records import ACTUAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date

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

    def moved(self, shift: timedelta) -> Period:
        """As much later."""
        return Period(self.since and self.since + shift, self.until and self.until + shift) if shift else self

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
    """Energy of the same channels under one reading that began on one UTC day; `reading` None: no intensity is known.

    `times` are `[start, end)` of when it was used (for a reference: when it would have been used), `energy_uj` the
    microjoules of each channel in each of them.
    """

    channels: tuple[Channel, ...]
    reading: Reading | None
    times: list[tuple[datetime, datetime]]
    energy_uj: list[tuple[int, ...]]

    @property
    def columns(self) -> Iterator[tuple[int, ...]]:
        """Microjoules by channel."""
        return zip(*self.energy_uj, strict=True)

    @property
    def extent(self) -> tuple[datetime, datetime]:
        """From its first start to its last end."""
        return min(start for start, _ in self.times), max(end for _, end in self.times)


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
        return sum(map(sum, self._emitted_ug))

    @cached_property
    def times(self) -> tuple[datetime, datetime] | None:
        """When the first of its energy was used and the last; None without any."""
        if not self.shares:
            return None
        starts, ends = zip(*(share.extent for share in self.shares), strict=True)
        return min(starts), max(ends)

    @cached_property
    def complete(self) -> bool:
        """Whether every joule has an intensity."""
        return all(share.reading is not None for share in self.shares)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Share by share, and channel by channel."""
        return tuple(part for share in self.shares for part in self._parts(share))

    def _parts(self, share: Share) -> Iterator[Part]:
        reading = share.reading
        for (start, end), energy_uj in zip(share.times, share.energy_uj, strict=True):
            booked = self._facility_uj(energy_uj), self._co2e_ug(energy_uj, reading)
            for channel, used_uj, drawn_uj, emitted_ug in zip(share.channels, energy_uj, *booked, strict=True):
                yield Part(channel, start, end, used_uj, drawn_uj, reading, emitted_ug if reading else None)

    @cached_property
    def _emitted_ug(self) -> list[list[int]]:
        """CO2e of each channel of each share; zero without a reading."""
        return [[sum(self._co2e_ug(uj, share.reading)) for uj in share.columns] for share in self.shares]

    @cached_property
    def sums(self) -> list[Sum]:
        """What the parts add up to; each is rounded for itself."""
        booked = zip(self.shares, self._beside, self._emitted_ug, strict=True)
        return [one for each in booked for one in self._summed(*each)]

    def _summed(self, share: Share, beside: Cut | None, emitted_ug: Sequence[int]) -> Iterator[Sum]:
        day = share.times[0][0].date()
        columns = share.channels, share.columns, emitted_ug, self._apart(share, beside, emitted_ug)
        for channel, energy_uj, co2e_ug, apart in zip(*columns, strict=True):
            drawn_uj, error_uj = self._facility_uj(energy_uj), each_times_ppm(energy_uj, channel.error_ppm)
            yield Sum(channel, share.reading, day, sum(energy_uj), sum(drawn_uj), co2e_ug, *apart, sum(error_uj))

    def _apart(self, share: Share, beside: Cut | None, emitted_ug: Sequence[int]) -> Iterable[tuple[int, int]]:
        """Of a share, by channel, `separated_ug` and `direct_ug`."""
        if beside is None:
            times = zip(share.times, share.energy_uj, strict=True)
            return (_added(by_time) for by_time in zip(*(self._separated(share, *one) for one in times), strict=True))
        if beside.reading is None:
            return [(0, 0)] * len(share.channels)
        direct_ug = (sum(self._co2e_ug(energy_uj, beside.reading)) for energy_uj in share.columns)
        return zip(emitted_ug, direct_ug, strict=True)

    @cached_property
    def _beside(self) -> list[Cut | None]:
        """What is known directly of all the time of each share; None where one reading does not speak of it all."""
        cut = (cut_at_readings(*share.extent, self.direct if share.reading else ()) for share in self.shares)
        return [cuts[0] if len(cuts) == 1 else None for cuts in cut]

    def _separated(
        self, share: Share, when: tuple[datetime, datetime], energy_uj: tuple[int, ...]
    ) -> Iterable[tuple[int, int]]:
        """The same of one of its times, cut at the direct readings' borders."""
        pieces = split_each_at_readings(*when, energy_uj, self.direct)
        known = [cut.reading is not None for cut, _ in pieces]
        energies = zip(*(used_uj for _, used_uj in pieces), strict=True)
        emitted = zip(self._co2e_ug(energy_uj, share.reading), energies, strict=True)
        direct_ug = zip(*(self._co2e_ug(used_uj, cut.reading) for cut, used_uj in pieces), strict=True)
        return zip((_of_known(ug, uj, known) for ug, uj in emitted), map(sum, direct_ug), strict=True)

    def direct_used(self) -> Iterator[tuple[Reading | None, int]]:
        """Direct readings with the energy that they were applied to."""
        for share, beside in zip(self.shares, self._beside, strict=True):
            if beside is not None:
                yield beside.reading, sum(map(sum, share.energy_uj))
                continue
            for when, energy_uj in zip(share.times, share.energy_uj, strict=True):
                pieces = split_each_at_readings(*when, energy_uj, self.direct)
                yield from ((cut.reading, sum(used_uj)) for cut, used_uj in pieces)

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
        return Account(attempt, attempt.cluster, attempt.zone, attempt.pue_ppm, attempt.pue_source, shares)
    # what a marginal signal says of a change is no share of the total: it is never booked
    readings = _averages(used.readings)
    shares = _shares(stretches, period, readings, used.shift)
    direct = _averages(used.direct)
    return Account(attempt, used.cluster, used.zone, used.pue_ppm, used.pue_source, shares, direct)


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
) -> tuple[Share, ...]:
    """Stretches, moved by `shift`, cut at the borders of period and readings; in the order of each share's first."""
    period = period.moved(shift)
    found: dict[tuple[int, int, date], Share] = {}
    latest: dict[int, tuple[Share, datetime, datetime]] = {}
    for channels, begin, finish, energy_uj, _ in stretches:
        start, end = (begin + shift, finish + shift) if shift else (begin, finish)
        share, since, until = latest.get(id(channels), (None, end, start))
        if share and since <= start and end <= until:  # nearly always, and there are millions
            share.times.append((start, end))
            share.energy_uj.append(energy_uj)
            continue
        inside = period.cut(start, end)
        if inside is None:
            continue
        whole = inside == (start, end)
        inside_uj = energy_uj if whole else tuple(within(inside, start, end, one_uj) for one_uj in energy_uj)
        for cut, used_uj in split_each_at_readings(*inside, inside_uj, readings):
            key = id(channels), id(cut.reading), cut.start.date()
            share = found.setdefault(key, Share(channels, cut.reading, [], []))
            share.times.append((cut.start, cut.end))
            share.energy_uj.append(used_uj)
            if cut.reading:
                latest[id(channels)] = share, *_room(cut.start, cut.reading, period)
    return tuple(found.values())


def _room(moment: datetime, reading: Reading, period: Period) -> tuple[datetime, datetime]:
    """Within which stretches lie that belong to the same share as this moment; the day's last microsecond is not."""
    since, until = period.cut(reading.start, reading.end) or (moment, moment)
    day = moment.date()
    return max(since, datetime.combine(day, time.min, UTC)), min(until, datetime.combine(day, time.max, UTC))


def facility_uj(energy_uj: int, pue_ppm: int) -> int:
    """IT energy times PUE, rounded half up."""
    return each_times_ppm((energy_uj,), pue_ppm)[0]


def each_times_ppm(energy_uj: Iterable[int], factor_ppm: int) -> list[int]:
    """Each energy times a factor, rounded half up."""
    return [(2 * used_uj * factor_ppm + PPM) // (2 * PPM) for used_uj in energy_uj]
