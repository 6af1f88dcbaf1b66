"""Rows 5 to 10 of the checklist: energy, gaps, PUE and intensities, from the shares that the account cut."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import SourceClass
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.account import Period as Cut
from carbon_sched.ledger.figures import ratio
from carbon_sched.ledger.statement.model import Day, Gap, Line, Pue, Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date, datetime

    from carbon_sched.domain.intensity import Reading
    from carbon_sched.ledger.account import Account, Sum
    from carbon_sched.ledger.records import AttemptRecord, JobRecord

SUMS = ("energy_uj", "facility_uj", "covered_uj", "co2e_ug", "separated_ug", "direct_ug", "error_uj")
LEAST_GAP = timedelta(seconds=30)
"""Shorter stretches without energy are a meter's own beginning and end (journal segments are as long)."""


@dataclass(frozen=True)
class Used:
    """One attempt of a selected job, booked by the readings that hold now, within the period."""

    job: JobRecord
    account: Account

    @property
    def attempt(self) -> AttemptRecord:
        """The attempt."""
        return self.account.attempt

    @property
    def overhead_uj(self) -> int:
        """What suspensions took of its energy beside the work."""
        taken = [Cut(window.start, window.end) for window in self.attempt.overhead]
        parts = self.account.parts if taken else ()
        clipped = (at.clip(part.start, part.end, part.energy_uj) for at in taken for part in parts)
        return sum(inside[2] for inside in clipped if inside is not None)


def lines(used: Iterable[Used]) -> list[Line]:
    """One line per attempt, kind of device, source, reporter, rule and series of intensities, in a stable order."""
    found: list[Line] = []
    for one in used:
        groups: dict[tuple[str, ...], list[Sum]] = defaultdict(list)
        for each in one.account.sums:
            groups[_key(each)].append(each)
        found += [_line(one, key, group) for key, group in sorted(groups.items())]
    return found


def _key(of: Sum) -> tuple[str, ...]:
    """Component, source, reporter, rule, provider and grade."""
    channel, reading = of.channel, of.reading
    series = (reading.provider, reading.grade.value) if reading else ("", "")
    return (channel.device_kind, channel.source.value, channel.reporter.value, channel.rule, *series)


def summed(lines: Iterable[Line], fields: Sequence[str]) -> list[tuple[tuple[str, ...], Line]]:
    """Lines added up for each combination of values of these fields, in the order of the values."""
    groups: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in lines:
        groups[tuple(getattr(line, name) for name in fields)].append(line)
    return [
        (key, replace(group[0], **{name: sum(getattr(line, name) for line in group) for name in SUMS}))
        for key, group in sorted(groups.items())
    ]


def _line(used: Used, key: tuple[str, ...], sums: Sequence[Sum]) -> Line:
    job = used.job
    component, source, reporter, rule, provider, grade = key
    return Line(
        job=job.job_id,
        name=job.name,
        team=job.team,
        project=job.project,
        model=job.model,
        phase=job.phase,
        stage=job.stage,
        attempt=used.attempt.attempt_id,
        outcome=used.attempt.outcome or "open",
        cluster=used.account.cluster,
        zone=used.account.zone,
        pue_ppm=used.account.pue_ppm,
        component=component,
        source=source,
        reporter=reporter,
        rule=rule,
        provider=provider,
        grade=grade,
        energy_uj=sum(one.energy_uj for one in sums),
        facility_uj=sum(one.facility_uj for one in sums),
        covered_uj=sum(one.energy_uj for one in sums if one.reading),
        co2e_ug=sum(one.co2e_ug for one in sums),
        separated_ug=sum(one.separated_ug for one in sums),
        direct_ug=sum(one.direct_ug for one in sums),
        error_uj=sum(one.error_uj for one in sums),
    )


# --------------------------------------------------------------------------------------------------------------- gaps


def gaps(used: Sequence[Used], period: Cut) -> list[Gap]:
    """What is not known of these attempts: intensities, energy, and what the service missed."""
    return [
        gap
        for one in used
        for gap in (*_unknown_intensity(one), *_unmetered(one, period), *_other_pue(one, period), *_missing(one))
    ]


def _unknown_intensity(used: Used) -> Iterator[Gap]:
    shares = [share for share in used.account.shares if share.reading is None]
    unknown = [one for share in shares for one in zip(share.times, map(sum, share.energy_uj), strict=True)]
    for start, end in union(when for when, _ in unknown):
        energy_uj = sum(used_uj for (since, _), used_uj in unknown if start <= since < end)
        yield _gap(used, "no intensity", start, end, energy_uj)


def _unmetered(used: Used, period: Cut) -> Iterator[Gap]:
    attempt = used.attempt
    if attempt.started_at is None or attempt.ended_at is None or not attempt.stretches:
        return
    cursor = attempt.started_at if period.since is None else max(attempt.started_at, period.since)
    last = attempt.ended_at if period.until is None else min(attempt.ended_at, period.until)
    for start, end in [*union((stretch.start, stretch.end) for stretch in attempt.stretches), (last, last)]:
        if min(start, last) - cursor >= LEAST_GAP:
            yield _gap(used, "no energy", cursor, min(start, last), None)
        cursor = max(cursor, end)


def _other_pue(used: Used, period: Cut) -> Iterator[Gap]:
    """A PUE is an average over months: when somebody states another one says nothing of when it changed."""
    for at, pue_ppm in used.attempt.pue_changes:
        if period.holds(at):
            what = f"PUE {ratio(pue_ppm)} was stated then; booked is {ratio(used.account.pue_ppm)}, as at its opening"
            yield Gap(used.job.job_id, used.attempt.attempt_id, what, to_rfc3339(at), None, None)


def _missing(used: Used) -> Iterator[Gap]:
    for text in used.attempt.missing:
        yield Gap(used.job.job_id, used.attempt.attempt_id, text, None, None, None)


def _gap(used: Used, what: str, start: datetime, end: datetime, energy_uj: int | None) -> Gap:
    return Gap(used.job.job_id, used.attempt.attempt_id, what, to_rfc3339(start), to_rfc3339(end), energy_uj)


def union(stretches: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Stretches of time joined where they overlap or adjoin, in order."""
    joined: list[tuple[datetime, datetime]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def estimated_uj(lines: Iterable[Line]) -> int:
    """Energy that no device measured."""
    return sum(line.energy_uj for line in lines if line.source == SourceClass.ESTIMATED.value)


# ------------------------------------------------------------------------------------------------- PUE and intensities


def pues(used: Sequence[Used]) -> list[Pue]:
    """Energy before and after each PUE that was applied."""
    sums: dict[tuple[str, int, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in used:
        account = one.account
        both = sums[(account.cluster, account.pue_ppm, one.attempt.pue_period, account.pue_source)]
        both[0] += account.energy_uj
        both[1] += account.facility_uj
    return [Pue(*key, *both) for key, both in sorted(sums.items()) if both[0]]


def series(used: Sequence[Used]) -> list[Series]:
    """Every series whose values entered a figure, with the energy it was applied to."""
    energy: dict[tuple[str, Reading], int] = defaultdict(int)
    for one in used:
        for use, reading, used_uj in _applied(one):
            energy[use, reading] += used_uj
    groups: dict[tuple[str, ...], list[tuple[Reading, int]]] = defaultdict(list)
    for (use, reading), used_uj in energy.items():
        groups[_same(use, reading)].append((reading, used_uj))
    return [_series(key, group) for key, group in sorted(groups.items())]


def _applied(used: Used) -> Iterator[tuple[str, Reading, int]]:
    """Each reading that a figure of the attempt rests on, with the energy it was applied to (readings hash slowly)."""
    booked = ((one.reading, one.energy_uj) for one in used.account.sums)
    for use, applied in (("booked", booked), ("direct", used.account.direct_used())):
        sums: dict[int, int] = defaultdict(int)
        readings = {}
        for reading, energy_uj in applied:
            if reading is not None:
                sums[id(reading)] += energy_uj
                readings[id(reading)] = reading
        yield from ((use, reading, sums[key]) for key, reading in readings.items())


def _same(use: str, r: Reading) -> tuple[str, ...]:
    kinds = (r.signal.value, r.basis.value, r.perimeter.value, r.kind.value, r.grade.value)
    return (use, r.zone, r.provider, *kinds, r.model_version, r.licence)


def _series(key: tuple[str, ...], group: Sequence[tuple[Reading, int]]) -> Series:
    readings = [reading for reading, _ in group]
    values = [reading.intensity_mg_per_kwh for reading in readings]
    issued = [reading.issued_at for reading in readings]
    answers = sorted({reading.payload_sha256 for reading in readings})
    use, zone, provider, signal, basis, perimeter, kind, grade, version, licence = key
    return Series(
        use=use,
        zone=zone,
        provider=provider,
        signal=signal,
        basis=basis,
        perimeter=perimeter,
        kind=kind,
        grade=grade,
        model_version=version,
        licence=licence,
        readings=len({(reading.start, reading.end, reading.intensity_mg_per_kwh) for reading in readings}),
        since=to_rfc3339(min(reading.start for reading in readings)),
        until=to_rfc3339(max(reading.end for reading in readings)),
        first_issued=to_rfc3339(min(issued)),
        last_issued=to_rfc3339(max(issued)),
        low_mg_per_kwh=min(values),
        high_mg_per_kwh=max(values),
        answers=len(answers),
        sha256=answers[0] if len(answers) == 1 else hashlib.sha256("\n".join(answers).encode()).hexdigest(),
        energy_uj=sum(used_uj for _, used_uj in group),
    )


def days(used: Sequence[Used]) -> list[Day]:
    """Energy and CO2e by the UTC day in which a share began."""
    sums: dict[date, list[int]] = defaultdict(lambda: [0, 0])
    for one in used:
        for each in one.account.sums:
            both = sums[each.day]
            both[0] += each.energy_uj
            both[1] += each.co2e_ug
    return [Day(day.isoformat(), *both) for day, both in sorted(sums.items())]
