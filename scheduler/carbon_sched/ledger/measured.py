"""What the ledger knows of a job's variants: measured joules per item, and quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.ledger.account import Period, actual

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from carbon_sched.domain.variant import Variants
    from carbon_sched.ledger.book import Book
    from carbon_sched.ledger.records import AttemptRecord
    from carbon_sched.ledger.variant import VariantUse

MILLION = 1_000_000


@dataclass(frozen=True)
class Measured:
    """Joules for one item (None where none was counted or metered) and the mean quality of a variant."""

    joules: float | None
    quality: float


def measured(
    book: Book, job: str, team: str, cluster: str, variants: Variants, keys: Mapping[str, str]
) -> dict[str, Measured]:
    """By variant, from all attempts of jobs of this name and team on one cluster, since energy is that of its hardware.

    `keys` tells how the ledger knows each variant. One of which no quality was told is not known.
    """
    attempts = [
        attempt
        for one in book.jobs.values()
        if (one.name, one.team) == (job, team)
        for attempt in one.attempts.values()
        if attempt.cluster == cluster and attempt.variants
    ]
    found = {
        name: _measured(
            [(attempt, use) for attempt in attempts for use in attempt.variants if use.key == key], variants
        )
        for name, key in keys.items()
    }
    return {name: one for name, one in found.items() if one is not None}


def _measured(used: Iterable[tuple[AttemptRecord, VariantUse]], variants: Variants) -> Measured | None:
    energy_uj, items, qualities = 0, 0, []
    for attempt, use in used:
        for window, amount in use.counted(variants.item):
            energy_uj += actual(attempt, Period(window.start, window.end)).energy_uj
            items += amount
        if variants.floor.metric in use.quality:
            qualities.append(use.quality[variants.floor.metric] / MILLION)
    if not qualities:
        return None
    joules = energy_uj / items if energy_uj and items else None  # uJ for a millionth of an item: J for an item
    return Measured(joules, sum(qualities) / len(qualities))
