"""The receipt of one job: what it used, what that emitted, and what other choices would have, from the book alone.

`co2e_ug` and the book's microjoules are exact; every float is derived from them for people.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.energy import Reporter, SourceClass
from carbon_sched.domain.errors import NotFound
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import MG_PER_G, PPM, grams, joules, kwh
from carbon_sched.domain.variant import Outcome
from carbon_sched.ledger.account import Period, actual, references
from carbon_sched.ledger.records import ACTUAL, ORACLE
from carbon_sched.ledger.variant import served

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from carbon_sched.domain.energy import Window
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.ledger.account import Account, Part, Reference
    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.records import AttemptRecord, JobRecord
    from carbon_sched.wire import (
        Receipt,
        ReceiptDevice,
        ReceiptOverhead,
        ReceiptPerUnit,
        ReceiptReference,
        ReceiptWindow,
    )


FLAGS = {
    "leftover": "were used by processes that outlived the job, such as a detached actor: they may still run",
    "squatter": "were used on GPUs that were not allocated to the job (num_gpus): it may have slowed down another",
}
"""What a receipt says of energy with these flags (ENERGY-ATTRIBUTION.md, section 6)."""


REJECTED = {
    Outcome.FAILED: "failed when it was tried, and did not serve",
    Outcome.BELOW_FLOOR: "lay below the floor of quality when it was tried, and did not serve",
}
"""What a receipt says of variants that were found wanting."""


def receipt(book: Book, job_id: str) -> Receipt:
    """The receipt as the ledger stands; NotFound when the ledger does not know the job.

    `state` is the ledger's: the final state, else `running` once an attempt was opened, else `queued`.
    """
    job = book.jobs.get(job_id)
    if job is None:
        raise NotFound(f"the ledger holds no job {job_id!r}")
    attempts = list(job.attempts.values())
    accounts = [actual(attempt) for attempt in attempts]
    parts = [part for one in accounts for part in one.parts]
    shown = next((one for one in reversed(accounts) if one.parts), accounts[-1] if accounts else None)
    runs = [run for run in map(_run, attempts) if run]
    energy_uj, facility_uj = sum(one.energy_uj for one in accounts), sum(one.facility_uj for one in accounts)
    covered = _covered(parts)
    total_ug = sum(one.co2e_ug for one in accounts)
    compared = references(accounts)
    return {
        "job_id": job.job_id,
        "name": job.name,
        "state": job.state or ("running" if attempts else "queued"),
        "final": job.settled,
        "missing": _unique(text for attempt in attempts for text in attempt.missing),
        "cluster": shown.cluster if shown else None,
        "zone": shown.zone if shown else None,
        "started_at": to_rfc3339(min(run.start for run in runs)) if runs else None,
        "ended_at": to_rfc3339(max(run.end for run in runs)) if runs and job.state else None,
        "duration_s": sum((run.end - run.start).total_seconds() for run in runs) if runs else None,
        "energy_kwh": kwh(energy_uj),
        "energy_by_source_j": _by_source(parts),
        "devices": _devices(parts),
        "pue": _pue(accounts),
        "pue_source": "; ".join(_unique(one.pue_source for one in accounts if one.parts)),
        "facility_kwh": kwh(facility_uj),
        "intensity_g_per_kwh": covered.mean_g_per_kwh,
        "intensity_provider": ", ".join(_unique(reading.provider for reading in covered.readings)),
        "intensity_basis": ", ".join(_unique(reading.basis.value for reading in covered.readings)),
        "intensity_grade": covered.worst_grade,
        "co2e_g": grams(total_ug),
        "co2e_ug": total_ug,
        "expected_co2e_g": _expected(job),
        "references": [_reference(one) for one in compared if not one.problem and one.role != ORACLE],
        "notes": [*(f"{to_rfc3339(one.at)}: {one.said}" for one in job.amendments), *_notes(attempts, parts, compared)],
        "quality": {name: value / 1_000_000 for attempt in attempts for name, value in attempt.quality.items()},
        "variant": next((name for a in reversed(attempts) if (name := served(a.variants))), None),
        "windows": [_window(attempt, window) for attempt in attempts for window in attempt.windows],
        "per_unit": _per_unit(accounts),
        "suspensions": job.suspensions,
        "overhead": [_overhead(attempt, window) for attempt in attempts for window in attempt.overhead],
        "ledger_head": book.head,
    }


@dataclass(frozen=True)
class _Run:
    """When an attempt ran, by the wrapper's record where it exists, else by the meter's samples."""

    start: datetime
    end: datetime


def _run(attempt: AttemptRecord) -> _Run | None:
    start = attempt.started_at or min((stretch.start for stretch in attempt.stretches), default=None)
    end = attempt.ended_at or max((stretch.end for stretch in attempt.stretches), default=None)
    return _Run(start, end) if start and end and (attempt.started_at or attempt.stretches) else None


@dataclass(frozen=True)
class _Covered:
    """The readings behind the covered energy, each once, and their mean weighted by energy."""

    readings: tuple[Reading, ...]
    mean_g_per_kwh: float | None

    @property
    def worst_grade(self) -> str:
        """The lowest quality among the readings; empty without any."""
        worst = max((reading.grade for reading in self.readings), key=lambda grade: grade.rank, default=None)
        return worst.value if worst else ""


def _covered(parts: Sequence[Part]) -> _Covered:
    pairs = [(part.energy_uj, part.reading) for part in parts if part.reading is not None]
    energy_uj = sum(energy for energy, _ in pairs)
    weighted = sum(energy * reading.intensity_mg_per_kwh for energy, reading in pairs)
    mean = weighted / energy_uj / MG_PER_G if energy_uj else None
    return _Covered(tuple(dict.fromkeys(reading for _, reading in pairs)), mean)


def _by_source(parts: Sequence[Part]) -> dict[str, float]:
    sums = {source: sum(p.energy_uj for p in parts if p.channel.source is source) for source in SourceClass}
    used = {part.channel.source for part in parts}
    return {source.value: joules(energy) for source, energy in sums.items() if source in used}


def _devices(parts: Sequence[Part]) -> list[ReceiptDevice]:
    groups: dict[tuple[str, ...], list[Part]] = defaultdict(list)
    for part in parts:
        of = part.channel
        key = (of.machine, of.device, of.device_kind, of.source.value, of.reporter.value, of.rule)
        groups[key].append(part)
    return [_device(key, group) for key, group in sorted(groups.items())]


def _device(key: tuple[str, ...], parts: Sequence[Part]) -> ReceiptDevice:
    machine, device, kind, source, reporter, rule = key
    energy_uj = sum(part.energy_uj for part in parts)
    weighted_ppm = sum(part.energy_uj * part.channel.error_ppm for part in parts)
    return {
        "machine": machine,
        "device": device,
        "kind": kind,
        "source": source,
        "reporter": reporter,
        "rule": rule,
        "energy_j": joules(energy_uj),
        "error_pct": 100 * weighted_ppm / energy_uj / PPM if energy_uj else 0.0,
    }


def _window(attempt: AttemptRecord, window: Window) -> ReceiptWindow:
    """The attempt's own energy over the window's time, whatever else was on its machines."""
    booked = actual(attempt, Period(window.start, window.end))
    energy_j, co2e_g = joules(booked.energy_uj), grams(booked.co2e_ug) if booked.complete else None
    amounts = {name: millionths / 1_000_000 for name, millionths in window.units.items() if millionths}
    return {
        "attempt": attempt.attempt_id,
        "name": window.name,
        "start": to_rfc3339(window.start),
        "end": to_rfc3339(window.end),
        "energy_j": energy_j,
        "co2e_g": co2e_g,
        "units": amounts,
        "j_per_unit": {name: energy_j / amount for name, amount in amounts.items()},
        "co2e_g_per_unit": {} if co2e_g is None else {name: co2e_g / amount for name, amount in amounts.items()},
    }


def _per_unit(accounts: Sequence[Account]) -> dict[str, ReceiptPerUnit]:
    """The whole job by each unit of work that it counted; windows of one unit must not count the same work."""
    energy_uj, total_ug = sum(one.energy_uj for one in accounts), sum(one.co2e_ug for one in accounts)
    complete = all(one.complete for one in accounts)
    counted: dict[str, int] = defaultdict(int)
    for window in (window for one in accounts for window in one.attempt.windows):
        for unit, millionths in window.units.items():
            counted[unit] += millionths
    amounts = {unit: millionths / 1_000_000 for unit, millionths in counted.items() if millionths}
    return {
        unit: {
            "amount": amount,
            "energy_j": joules(energy_uj) / amount,
            "co2e_g": grams(total_ug) / amount if complete else None,
        }
        for unit, amount in amounts.items()
    }


def _overhead(attempt: AttemptRecord, window: Window) -> ReceiptOverhead:
    booked = actual(attempt, Period(window.start, window.end))
    return {
        "attempt": attempt.attempt_id,
        "kind": window.name,
        "start": to_rfc3339(window.start),
        "end": to_rfc3339(window.end),
        "energy_j": joules(booked.energy_uj),
        "co2e_g": grams(booked.co2e_ug) if booked.complete else None,
    }


def _pue(accounts: Sequence[Account]) -> float | None:
    """The PUE, weighted by energy where attempts had different ones."""
    burning = [one for one in accounts if one.parts]
    if len({one.pue_ppm for one in burning}) == 1:
        return burning[0].pue_ppm / PPM
    energy_uj = sum(one.energy_uj for one in burning)
    return sum(one.energy_uj * one.pue_ppm for one in burning) / energy_uj / PPM if energy_uj else None


def _expected(job: JobRecord) -> float | None:
    decision = job.placed or job.decision or {}
    expected_ug = decision.get("expected_co2e_ug")
    return None if expected_ug is None else grams(expected_ug)


def _reference(reference: Reference) -> ReceiptReference:
    accounts = [one for one in reference.accounts if one.parts]
    readings = [part.reading for one in accounts for part in one.parts if part.reading is not None]
    worst = max((reading.grade for reading in readings), key=lambda grade: grade.rank)
    return {
        "name": reference.role,
        "cluster": ", ".join(_unique(one.cluster for one in accounts)),
        "zone": ", ".join(_unique(one.zone for one in accounts)),
        "start": to_rfc3339(min(part.start for one in accounts for part in one.parts)),
        "co2e_g": grams(reference.co2e_ug),
        "saved_g": grams(reference.saved_ug),
        "note": f"the same energy, started at submission; intensity graded {worst.value}",
    }


_EVIDENCE_ONLY = (
    (Reporter.SELF_REPORTED, "the job's own side reported", "an independent meter watched the same devices"),
    (Reporter.RAY, "Ray's power gauge showed", "a reader of ours read the same GPUs"),
)


def _provisioned(attempt: AttemptRecord) -> str:
    """The time from the request of on-demand nodes to the attempt's start, and what they draw meanwhile; else ''."""
    nodes = (attempt.reserved or {}).get("nodes")
    if nodes is None or attempt.started_at is None:
        return ""
    seconds = max(0.0, (attempt.started_at - attempt.opened_at).total_seconds())
    spent = nodes["count"] * nodes["idle_mw"] / 1000 * seconds
    came = f"{nodes['count']} node{'s' if nodes['count'] > 1 else ''} of the on-demand pool {nodes['pool']}"
    drew = f"at most {spent:.3g} J while idle, estimated; beside the figures above"
    return f"{came} had {seconds:.0f} s to come and start {attempt.attempt_id}: {drew}"


def _notes(attempts: Sequence[AttemptRecord], parts: Sequence[Part], compared: Sequence[Reference]) -> list[str]:
    energy_uj = sum(part.energy_uj for part in parts)
    notes = []

    def share(uj: int, text: str) -> None:
        if uj:
            notes.append(f"{100 * uj / energy_uj:.3g} % of the energy {text}")

    share(sum(p.energy_uj for p in parts if p.reading is None), "has no known intensity; its CO2e is not in the figure")
    share(sum(p.energy_uj for p in parts if p.channel.source is SourceClass.ESTIMATED), "is estimated, not measured")
    own = sum(p.energy_uj for p in parts if p.channel.reporter is Reporter.SELF_REPORTED)
    share(own, "was reported by the job's own side, not by an independent meter")
    rays = sum(p.energy_uj for p in parts if p.channel.reporter is Reporter.RAY)
    share(rays, "is integrated from Ray's own power gauge, where no reader of ours ran; it knows GPUs, and no CPUs")
    notes += [
        f"{joules(used_uj):.6g} J {text}" for flag, text in FLAGS.items() if (used_uj := _flagged_uj(parts, flag))
    ]
    notes += _unique(text for attempt in attempts for text in attempt.notes)
    notes += [text for attempt in attempts if (text := _provisioned(attempt))]
    uses = [use for attempt in attempts for use in attempt.variants]
    notes += _unique(f"variant {use.name} {REJECTED[use.outcome]}" for use in uses if use.outcome in REJECTED)
    superseded = [span for attempt in attempts for span in attempt.superseded]
    for reporter, told, who in _EVIDENCE_ONLY:
        energy = sum(span.energy_uj for span in superseded if span.reporter is reporter)
        if energy:
            notes.append(f"{joules(energy):.6g} J that {told} are evidence only: {who} at that time")
    ran = [attempt for attempt in attempts if attempt.stretches]
    if len(ran) > 1:
        notes.append(f"{len(ran)} attempts used energy; all of it is booked")
    restated = [attempt.attempt_id for attempt in attempts if len(attempt.readings.get(ACTUAL, ())) > 1]
    notes += [f"the readings of {name} were revised; the newest hold here" for name in restated]
    notes += [f"no comparison with {one.role}: {one.problem}" for one in compared if one.problem and one.role != ORACLE]
    return notes


def _flagged_uj(parts: Sequence[Part], flag: str) -> int:
    return sum(part.energy_uj for part in parts if flag in part.channel.flags)


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
