"""Rows 5 to 10 of the checklist: energy, gaps, PUE and intensities, from the parts that the account cut."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING

from carbon_sched.domain.emissions import apportion, co2e_ug, split_at_readings
from carbon_sched.domain.energy import SourceClass
from carbon_sched.domain.intensity import Signal
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import PPM
from carbon_sched.ledger.account import Period as Cut
from carbon_sched.ledger.figures import ratio
from carbon_sched.ledger.records import ACTUAL
from carbon_sched.ledger.statement.model import Day, Gap, Line, Pue, Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date, datetime

    from carbon_sched.domain.intensity import Reading
    from carbon_sched.ledger.account import Account, Part
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
        clipped = (at.clip(part.start, part.end, part.energy_uj) for at in taken for part in self.account.parts)
        return sum(inside[2] for inside in clipped if inside is not None)


def lines(used: Iterable[Used]) -> list[Line]:
    """One line per attempt, kind of device, source, reporter, rule and series of intensities, in a stable order."""
    found: list[Line] = []
    for one in used:
        direct = _direct(one.attempt)
        alike = [_line(one, parts, direct) for parts in _alike(one.account.parts)]
        keys = ("component", "source", "reporter", "rule", "provider", "grade")
        found += [line for _, line in summed(alike, keys)]
    return found


def _alike(parts: Iterable[Part]) -> Iterable[list[Part]]:
    """Parts of one attempt by what makes their lines equal in all but sums (members of enums are one object each)."""
    groups: dict[tuple[object, ...], list[Part]] = defaultdict(list)
    for part in parts:
        span = part.span
        groups[span.device_kind, id(span.source), id(span.reporter), span.rule, id(part.reading)].append(part)
    return groups.values()


def summed(lines: Iterable[Line], fields: Sequence[str]) -> list[tuple[tuple[str, ...], Line]]:
    """Lines added up for each combination of values of these fields, in the order of the values."""
    groups: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in lines:
        groups[tuple(getattr(line, name) for name in fields)].append(line)
    return [
        (key, replace(group[0], **{name: sum(getattr(line, name) for line in group) for name in SUMS}))
        for key, group in sorted(groups.items())
    ]


def _direct(attempt: AttemptRecord) -> list[Reading]:
    newest = attempt.newest(ACTUAL)
    return [reading for reading in newest.direct if reading.signal is Signal.AVERAGE] if newest else []


def _line(used: Used, parts: Sequence[Part], direct: Sequence[Reading]) -> Line:
    job, span, reading = used.job, parts[0].span, parts[0].reading
    energy_uj = sum(part.energy_uj for part in parts)
    apart = [separated(part, used.account.pue_ppm, direct) for part in parts] if direct else []
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
        component=span.device_kind,
        source=span.source.value,
        reporter=span.reporter.value,
        rule=span.rule,
        provider=reading.provider if reading else "",
        grade=reading.grade.value if reading else "",
        energy_uj=energy_uj,
        facility_uj=sum(part.facility_uj for part in parts),
        covered_uj=energy_uj if reading else 0,
        co2e_ug=sum(part.co2e_ug or 0 for part in parts),
        separated_ug=sum(separated_ug for separated_ug, _ in apart),
        direct_ug=sum(direct_ug for _, direct_ug in apart),
        error_uj=sum((2 * part.energy_uj * part.span.error_ppm + PPM) // (2 * PPM) for part in parts),
    )


def separated(part: Part, pue_ppm: int, direct: Sequence[Reading]) -> tuple[int, int]:
    """Of a part's life-cycle CO2e, that of energy whose direct intensity is known too; and its direct CO2e.

    The part is cut at the direct readings' borders; its CO2e follows its energy, so that nothing of it is lost.
    """
    if part.co2e_ug is None or not part.energy_uj:
        return 0, 0
    pieces = split_at_readings(part.start, part.end, part.energy_uj, direct)
    shares = apportion(part.co2e_ug, [piece.energy_uj for piece in pieces])
    known = [(share, piece) for share, piece in zip(shares, pieces, strict=True) if piece.reading is not None]
    direct_ug = sum(co2e_ug(p.energy_uj, pue_ppm, p.reading.intensity_mg_per_kwh) for _, p in known if p.reading)
    return sum(share for share, _ in known), direct_ug


# --------------------------------------------------------------------------------------------------------------- gaps


def gaps(used: Sequence[Used], period: Cut) -> list[Gap]:
    """What is not known of these attempts: intensities, energy, and what the service missed."""
    return [
        gap
        for one in used
        for gap in (*_unknown_intensity(one), *_unmetered(one, period), *_other_pue(one, period), *_missing(one))
    ]


def _unknown_intensity(used: Used) -> Iterator[Gap]:
    parts = [part for part in used.account.parts if part.reading is None]
    for start, end in union((part.start, part.end) for part in parts):
        energy_uj = sum(part.energy_uj for part in parts if start <= part.start < end)
        yield _gap(used, "no intensity", start, end, energy_uj)


def _unmetered(used: Used, period: Cut) -> Iterator[Gap]:
    attempt = used.attempt
    if attempt.started_at is None or attempt.ended_at is None or not attempt.spans:
        return
    cursor = attempt.started_at if period.since is None else max(attempt.started_at, period.since)
    last = attempt.ended_at if period.until is None else min(attempt.ended_at, period.until)
    for start, end in [*union((span.start, span.end) for span in attempt.spans), (last, last)]:
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
    direct = _direct(used.attempt)
    parts = [part for part in used.account.parts if part.reading is not None]
    cut = [split_at_readings(part.start, part.end, part.energy_uj, direct) for part in parts] if direct else []
    for use, pieces in (("booked", parts), ("direct", chain.from_iterable(cut))):
        sums: dict[int, int] = defaultdict(int)
        readings = {}
        for piece in pieces:
            if piece.reading is not None:
                sums[id(piece.reading)] += piece.energy_uj
                readings[id(piece.reading)] = piece.reading
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
    """Energy and CO2e by the UTC day in which a part began."""
    sums: dict[date, list[int]] = defaultdict(lambda: [0, 0])
    for one in used:
        for part in one.account.parts:
            both = sums[part.start.date()]
            both[0] += part.energy_uj
            both[1] += part.co2e_ug or 0
    return [Day(day.isoformat(), *both) for day, both in sorted(sums.items())]
