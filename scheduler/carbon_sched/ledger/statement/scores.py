"""Manufacture of reserved hardware, SCI scores and inference (rows 14, 16 and 17).

M = TE x TiR / EL x RR / ToR, SCI = (E x I + M) / R: ISO/IEC 21031:2024. Time is what was reserved, idle time too. The
boundaries of training and inference are those of the Green Software Foundation's SCI for AI.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.time import US
from carbon_sched.domain.units import PPM, UG_PER_G
from carbon_sched.ledger.statement.model import Embodied, Inference, Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from carbon_sched.domain.energy import Window
    from carbon_sched.ledger.account import Period as Cut
    from carbon_sched.ledger.statement.lines import Used

MILLI = 1000
GPU_HOUR = "GPU-hour"
GPU_MILLI_US_PER_MILLIONTH = 3_600 * MILLI
"""GPU thousandths x microseconds in a millionth of a GPU-hour."""
PROVIDER, CONSUMER = "provider", "consumer"
BOUNDARIES = {
    "pretraining": PROVIDER,
    "finetuning": PROVIDER,
    "evaluation": PROVIDER,
    "inference-batch": CONSUMER,
    "inference-online": CONSUMER,
}


@dataclass(frozen=True)
class Reserved:
    """When hardware was kept for an attempt, all of it, and what of that lies in the statement's period."""

    start: datetime
    end: datetime
    inside: tuple[datetime, datetime]

    def share(self, amount: int) -> int:
        """What of an amount over the whole time falls in the period, by running totals: periods add up to the whole."""
        return self._until(amount, self.inside[1]) - self._until(amount, self.inside[0])

    def _until(self, amount: int, instant: datetime) -> int:
        return amount * ((instant - self.start) // US) // ((self.end - self.start) // US)

    @property
    def inside_us(self) -> int:
        """Microseconds in the period."""
        return (self.inside[1] - self.inside[0]) // US


def reserved(used: Used, period: Cut) -> Reserved | None:
    """By the wrapper's record where it exists, else by the meter's samples; None for what never ran, or not then."""
    attempt = used.attempt
    stretches = attempt.stretches
    if attempt.started_at is None and not stretches:
        return None
    start = attempt.started_at or min(stretch.start for stretch in stretches)
    end = attempt.ended_at or max((stretch.end for stretch in stretches), default=start)
    inside = period.cut(start, end)
    return Reserved(start, end, inside) if inside else None


def embodied(used: Sequence[Used], period: Cut) -> tuple[list[Embodied], list[str]]:
    """One row per attempt and kind of hardware, and attempts of whose hardware no figure is known."""
    found, unknown = [], []
    for one in used:
        time = reserved(one, period)
        if time is None:
            continue
        rows = [_part(one, time, item) for item in (one.attempt.reserved or {}).get("parts", ())]
        found += rows
        if not rows:
            unknown.append(one.attempt.attempt_id)
    return found, unknown


def _part(used: Used, time: Reserved, item: Mapping[str, Any]) -> Embodied:
    """`share_ppm` of a thing whose manufacture emitted low to high grams, over the time it serves."""
    whole_us, life_us = (time.end - time.start) // US, item["life_s"] * 1_000_000
    low_ug, high_ug = (
        time.share(grams * UG_PER_G * item["share_ppm"] * whole_us // (PPM * life_us))
        for grams in (item["low_g"], item["high_g"])
    )
    return Embodied(
        job=used.job.job_id,
        attempt=used.attempt.attempt_id,
        cluster=used.account.cluster,
        hardware=item["hardware"],
        reserved_us=time.inside_us,
        life_us=life_us,
        low_ug=low_ug,
        central_ug=(low_ug + high_ug) // 2,
        high_ug=high_ug,
        source=item["source"],
    )


def scores(used: Sequence[Used], made: Sequence[Embodied], period: Cut) -> list[Score]:
    """One score per boundary and unit of work: GPU-hours that were reserved, and what the jobs' own windows counted.

    Gross: all an attempt used counts, also what it used outside the windows.
    """
    made_ug: dict[str, int] = defaultdict(int)
    for row in made:
        made_ug[row.attempt] += row.central_ug
    groups: dict[tuple[str, str], list[tuple[Used, int]]] = defaultdict(list)
    for one in used:
        boundary = BOUNDARIES.get(one.job.phase, "")
        for unit, amount in amounts(one, period).items():
            groups[boundary, unit].append((one, amount))
    return [_score(key, group, made_ug) for key, group in sorted(groups.items())]


def _score(key: tuple[str, str], group: Sequence[tuple[Used, int]], made_ug: Mapping[str, int]) -> Score:
    boundary, unit = key
    return Score(
        unit=unit,
        boundary=boundary,
        phases=", ".join(sorted({one.job.phase for one, _ in group})),
        attempts=len(group),
        amount_millionths=sum(amount for _, amount in group),
        energy_uj=sum(one.account.energy_uj for one, _ in group),
        co2e_ug=sum(one.account.co2e_ug for one, _ in group),
        embodied_ug=sum(made_ug[one.attempt.attempt_id] for one, _ in group),
    )


def amounts(used: Used, period: Cut) -> dict[str, int]:
    """Millionths of each unit that an attempt did in the period; zero amounts are left out."""
    found: dict[str, int] = defaultdict(int)
    time = reserved(used, period)
    milli = (used.attempt.reserved or {}).get("gpus_milli", 0)
    if time is not None and milli:
        whole = milli * ((time.end - time.start) // US) // GPU_MILLI_US_PER_MILLIONTH
        found[GPU_HOUR] = time.share(whole)
    for window in used.attempt.windows:
        for unit, millionths in window.units.items():
            found[unit] += _within(window, millionths, period)
    return {unit: amount for unit, amount in found.items() if amount}


def _within(window: Window, millionths: int, period: Cut) -> int:
    inside = period.cut(window.start, window.end)
    return Reserved(window.start, window.end, inside).share(millionths) if inside else 0


def inference(used: Sequence[Used], period: Cut) -> list[Inference]:
    """Row 17: per model and unit of its inference, by what it used in all, idle time of its replicas too."""
    groups: dict[tuple[str, str], list[tuple[Used, int]]] = defaultdict(list)
    for one in used:
        if BOUNDARIES.get(one.job.phase) == CONSUMER:
            for unit, amount in amounts(one, period).items():
                groups[one.job.model, unit].append((one, amount))
    return [
        Inference(
            model=model,
            unit=unit,
            amount_millionths=sum(amount for _, amount in group),
            jobs=len({one.job.job_id for one, _ in group}),
            energy_uj=sum(one.account.energy_uj for one, _ in group),
            co2e_ug=sum(one.account.co2e_ug for one, _ in group),
        )
        for (model, unit), group in sorted(groups.items())
    ]
